//! A walker over Thrift's compact encoding that never trusts a length.
//!
//! Parquet's footer and page headers are Thrift structures. The decoding itself is done by the `parquet` crate;
//! this walker goes over the bytes first, so that lengths, counts and nesting that no sound file has are refused
//! before anything is allocated for them.
//!
//! Source: the Thrift compact protocol specification (doc/specs/thrift-compact-protocol.md of Apache Thrift).

/// Why the walk ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// More bytes are needed than there are.
    End,
    /// The bytes are no Thrift structure.
    Malformed(&'static str),
}

impl Fault {
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::End => "a structure runs past its end",
            Self::Malformed(what) => what,
        }
    }
}

/// Deeper nesting than any sound structure has.
const MAX_DEPTH: u32 = 24;

/// A type nibble of the compact protocol.
pub(super) mod kind {
    pub const TRUE: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const BYTE: u8 = 3;
    pub const I64: u8 = 6;
    pub const DOUBLE: u8 = 7;
    pub const BINARY: u8 = 8;
    pub const LIST: u8 = 9;
    pub const SET: u8 = 10;
    pub const MAP: u8 = 11;
    pub const STRUCT: u8 = 12;
}

/// Position in a byte slice.
#[derive(Clone, Debug)]
pub(super) struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walker<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes walked over.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.bytes.get(self.at).ok_or(Fault::End)?;
        self.at += 1;
        Ok(byte)
    }

    fn advance(&mut self, length: u64) -> Result<(), Fault> {
        if length > self.remaining() as u64 {
            return Err(Fault::End);
        }
        self.at += length as usize;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Fault::Malformed("a number of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Malformed("a number of more than 64 bits"))
    }

    /// A signed integer in zigzag form.
    pub(super) fn integer(&mut self) -> Result<i64, Fault> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Walks a structure and gives each field to `visit` as (number, type); `visit` returns true when it has
    /// walked over the value itself, false to have it skipped.
    pub(super) fn structure(
        &mut self,
        depth: u32,
        visit: &mut dyn FnMut(&mut Self, i16, u8) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::Malformed("structures nested too deep"));
        }
        let mut number = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            let delta = i16::from(head >> 4);
            number = if delta == 0 {
                i16::try_from(self.integer()?).map_err(|_| Fault::Malformed("a field number out of range"))?
            } else {
                number.checked_add(delta).ok_or(Fault::Malformed("a field number out of range"))?
            };
            let kind = head & 0x0f;
            if !visit(self, number, kind)? {
                self.skip(kind, depth + 1)?;
            }
        }
    }

    /// Type and number of elements of a list; the number is at most the number of bytes left.
    pub(super) fn list(&mut self) -> Result<(u8, u64), Fault> {
        let head = self.byte()?;
        let short = u64::from(head >> 4);
        let size = if short == 15 { self.varint()? } else { short };
        if size > self.remaining() as u64 {
            return Err(Fault::Malformed("a list longer than the bytes that are left"));
        }
        Ok((head & 0x0f, size))
    }

    /// Walks over a value of the given type.
    pub(super) fn skip(&mut self, kind: u8, depth: u32) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::Malformed("structures nested too deep"));
        }
        match kind {
            // In a field the truth value is in the type; in a list it takes a byte, which `elements` handles.
            kind::TRUE | kind::FALSE => Ok(()),
            kind::BYTE => self.advance(1),
            4..=kind::I64 => self.varint().map(drop),
            kind::DOUBLE => self.advance(8),
            kind::BINARY => {
                let length = self.varint()?;
                self.advance(length)
            }
            kind::LIST | kind::SET => {
                let (element, size) = self.list()?;
                self.elements(element, size, depth + 1)
            }
            kind::MAP => {
                let size = self.varint()?;
                if size == 0 {
                    return Ok(());
                }
                if size > self.remaining() as u64 {
                    return Err(Fault::Malformed("a map longer than the bytes that are left"));
                }
                let kinds = self.byte()?;
                for _ in 0..size {
                    self.elements(kinds >> 4, 1, depth + 1)?;
                    self.elements(kinds & 0x0f, 1, depth + 1)?;
                }
                Ok(())
            }
            kind::STRUCT => self.structure(depth + 1, &mut |_, _, _| Ok(false)),
            _ => Err(Fault::Malformed("an unknown type")),
        }
    }

    fn elements(&mut self, kind: u8, size: u64, depth: u32) -> Result<(), Fault> {
        match kind {
            kind::TRUE | kind::FALSE => self.advance(size),
            _ => (0..size).try_for_each(|_| self.skip(kind, depth)),
        }
    }
}

//! The part of zip that `torch.save` uses: stored (uncompressed) entries, found through the central directory,
//! checked by their CRC-32. Source: APPNOTE.TXT 6.3 (PKWARE), sections 4.3.7, 4.3.12, 4.3.16.

use std::collections::BTreeMap;

use super::fault;
use crate::error::NnError;

const END: &[u8] = b"PK\x05\x06";
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";

/// Entries by name.
///
/// # Errors
/// [`NnError::Weights`] if the archive is cut, compressed, encrypted or damaged.
pub fn entries(bytes: &[u8]) -> Result<BTreeMap<String, &[u8]>, NnError> {
    let end = find_end(bytes).ok_or_else(|| fault("no end record", "a whole zip archive"))?;
    let count = number(bytes, end + 10, 2)?;
    let mut at = number(bytes, end + 16, 4)?;
    let mut found = BTreeMap::new();
    for _ in 0..count {
        if slice(bytes, at, 4)? != ENTRY {
            return Err(fault("a damaged central directory", "a zip archive below 4 GiB"));
        }
        let flags = number(bytes, at + 8, 2)?;
        let method = number(bytes, at + 10, 2)?;
        let crc = number(bytes, at + 16, 4)? as u32;
        let size = number(bytes, at + 20, 4)?;
        let full_size = number(bytes, at + 24, 4)?;
        let name_length = number(bytes, at + 28, 2)?;
        let extra_length = number(bytes, at + 30, 2)?;
        let comment_length = number(bytes, at + 32, 2)?;
        let local = number(bytes, at + 42, 4)?;
        let name = String::from_utf8_lossy(slice(bytes, at + 46, name_length)?).into_owned();
        let refuse = |found: &str, expected: &str| {
            Err(NnError::Weights {
                file: None,
                name: Some(name.clone()),
                found: found.to_owned(),
                expected: expected.to_owned(),
            })
        };
        if method != 0 || size != full_size || flags & 1 != 0 {
            return refuse("a compressed or encrypted entry", "a stored one, as `torch.save` writes");
        }
        if slice(bytes, local, 4)? != LOCAL {
            return refuse("a damaged local header", "a whole zip archive");
        }
        let start = local + 30 + number(bytes, local + 26, 2)? + number(bytes, local + 28, 2)?;
        let data = slice(bytes, start, size)?;
        if checksum(data) != crc {
            return refuse("data that do not match their CRC-32", "an undamaged file");
        }
        found.insert(name, data);
        at += 46 + name_length + extra_length + comment_length;
    }
    Ok(found)
}

/// The end record stands last, before a comment of at most 65535 bytes.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(22)?;
    (last.saturating_sub(65_535)..=last).rev().find(|&at| bytes[at..].starts_with(END))
}

fn slice(bytes: &[u8], start: usize, length: usize) -> Result<&[u8], NnError> {
    start
        .checked_add(length)
        .and_then(|end| bytes.get(start..end))
        .ok_or_else(|| fault(format!("{} bytes", bytes.len()), format!("{length} more at {start}")))
}

fn number(bytes: &[u8], start: usize, length: usize) -> Result<usize, NnError> {
    let digits = slice(bytes, start, length)?;
    Ok(digits.iter().rev().fold(0, |value, &digit| value << 8 | usize::from(digit)))
}

/// CRC-32 as in IEEE 802.3, reflected.
pub fn checksum(bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (byte, entry) in (0u32..).zip(&mut table) {
        *entry = (0..8).fold(
            byte,
            |value, _| {
                if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 }
            },
        );
    }
    !bytes.iter().fold(!0u32, |crc, &byte| table[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    #[test]
    fn checksum_of_the_standard_test_text() {
        assert_eq!(super::checksum(b"123456789"), 0xcbf4_3926);
    }
}

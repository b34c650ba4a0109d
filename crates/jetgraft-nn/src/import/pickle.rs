//! The part of Python's pickle that describes tensors, as data: a stack machine over an arena of values.
//!
//! Constructors are not called. `collections.OrderedDict` becomes a dictionary and PyTorch's rebuild functions
//! become tensor descriptions; every other name yields a value that can only be ignored. Values refer to each
//! other by number, so nesting costs no stack, and each instruction makes at most one.
//! Source of the instruction set: Python's `pickletools`, protocols 0 to 5 as far as `torch.save` uses them.

use std::collections::HashMap;

use super::fault;
use crate::error::NnError;

/// Number of a value in the arena.
pub type Ref = usize;

/// A tensor as the pickle describes it: a strided view of a storage.
#[derive(Clone, Debug)]
pub struct TensorView {
    /// Key of the storage.
    pub storage: String,
    /// Its type, such as `FloatStorage`.
    pub kind: String,
    /// First element.
    pub offset: usize,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Strides in elements.
    pub strides: Vec<usize>,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing that matters here.
    Opaque,
    /// An integer that fits.
    Int(i64),
    /// A longer integer, little-endian two's complement.
    Long(Vec<u8>),
    /// Text.
    Text(String),
    /// A tuple, or the frozen items of a list.
    Tuple(Vec<Ref>),
    /// A list.
    List(Vec<Ref>),
    /// A dictionary in order.
    Dict(Vec<(Ref, Ref)>),
    /// `module.name`, not resolved.
    Global(String),
    /// Key and type of a storage.
    Storage(String, String),
    /// A tensor.
    Tensor(TensorView),
}

/// A finished pickle.
#[derive(Debug)]
pub struct Pickle {
    arena: Vec<Value>,
    root: Ref,
}

impl Pickle {
    /// The value on top at the end.
    pub fn root(&self) -> &Value {
        &self.arena[self.root]
    }

    /// A value by number.
    pub fn get(&self, at: Ref) -> &Value {
        &self.arena[at]
    }
}

/// Runs one pickle; returns it and the number of bytes that it took.
///
/// # Errors
/// [`NnError::Weights`] at the first instruction that is unknown, cut or makes no sense.
pub fn run(bytes: &[u8]) -> Result<(Pickle, usize), NnError> {
    let mut machine = Machine { bytes, ..Machine::default() };
    let root = machine.run()?;
    Ok((Pickle { arena: machine.arena, root }, machine.at))
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    arena: Vec<Value>,
    stack: Vec<Ref>,
    marks: Vec<usize>,
    memo: HashMap<u32, Ref>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Ref, NnError> {
        loop {
            let start = self.at;
            let code = self.take(1)?[0];
            match code {
                // PROTO, FRAME: nothing to do.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),
                // Scalars.
                b'N' => self.push(Value::Opaque),
                0x88 => self.push(Value::Int(1)),
                0x89 => self.push(Value::Int(0)),
                b'J' => {
                    let value = self.unsigned(4)? as u32 as i32;
                    self.push(Value::Int(value.into()));
                }
                b'K' => {
                    let value = self.unsigned(1)?;
                    self.push(Value::Int(value as i64));
                }
                b'M' => {
                    let value = self.unsigned(2)?;
                    self.push(Value::Int(value as i64));
                }
                0x8a => {
                    let length = self.unsigned(1)? as usize;
                    let digits = self.take(length)?;
                    self.push(long(digits));
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Opaque);
                }
                // Text: unicode, and byte strings of Python 2 files.
                b'X' | b'T' => self.text(4)?,
                0x8c | b'U' => self.text(1)?,
                0x8d => self.text(8)?,
                // Bytes.
                b'C' => self.skip(1)?,
                b'B' => self.skip(4)?,
                // Containers.
                b'(' => self.marks.push(self.stack.len()),
                b')' => self.push(Value::Tuple(Vec::new())),
                b']' | 0x8f => self.push(Value::List(Vec::new())),
                b'}' => self.push(Value::Dict(Vec::new())),
                b't' => {
                    let items = self.marked()?;
                    self.push(Value::Tuple(items));
                }
                b'l' | 0x91 => {
                    let items = self.marked()?;
                    self.push(Value::List(items));
                }
                b'd' => {
                    let items = pairs(&self.marked()?)?;
                    self.push(Value::Dict(items));
                }
                0x85..=0x87 => {
                    let mut items = Vec::new();
                    for _ in 0..code - 0x84 {
                        items.push(self.pop()?);
                    }
                    items.reverse();
                    self.push(Value::Tuple(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' | 0x90 => {
                    let items = self.marked()?;
                    self.append(&items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.marked()?;
                    self.set_items(&items)?;
                }
                // Stack.
                b'0' => drop(self.pop()?),
                b'1' => drop(self.marked()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                // Memo.
                b'q' => self.remember(1)?,
                b'r' => self.remember(4)?,
                0x94 => {
                    let (key, top) = (self.memo.len() as u32, self.top()?);
                    self.memo.insert(key, top);
                }
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                // Names, never resolved.
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.push(Value::Global(format!("{module}.{name}")));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let global = match (&self.arena[module], &self.arena[name]) {
                        (Value::Text(module), Value::Text(name)) => format!("{module}.{name}"),
                        _ => return Err(self.refuse(start, "a name that is not text")),
                    };
                    self.push(Value::Global(global));
                }
                // Calls, described and not made.
                b'R' | 0x81 => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    let value = self.call(callee, arguments);
                    self.push(value);
                }
                // State of an object: attributes such as the version of a module.
                b'b' => drop(self.pop()?),
                b'Q' => {
                    let id = self.pop()?;
                    let value = self.storage(id);
                    self.push(value);
                }
                _ => return Err(self.refuse(start, &format!("instruction 0x{code:02x}"))),
            }
        }
    }

    fn refuse(&self, at: usize, found: &str) -> NnError {
        fault(format!("{found} at byte {at} of a pickle"), "a pickle of tensors by name")
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], NnError> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { return Err(self.refuse(self.at, "the end of the data")) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn unsigned(&mut self, length: usize) -> Result<u64, NnError> {
        Ok(self.take(length)?.iter().rev().fold(0, |value, &digit| value << 8 | u64::from(digit)))
    }

    fn line(&mut self) -> Result<String, NnError> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.refuse(self.at, "a name without an end"));
        };
        self.at += length + 1;
        Ok(String::from_utf8_lossy(&rest[..length]).into_owned())
    }

    fn text(&mut self, width: usize) -> Result<(), NnError> {
        let length = self.unsigned(width)? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn skip(&mut self, width: usize) -> Result<(), NnError> {
        let length = self.unsigned(width)? as usize;
        self.take(length)?;
        self.push(Value::Opaque);
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.arena.len());
        self.arena.push(value);
    }

    fn top(&self) -> Result<Ref, NnError> {
        self.stack.last().copied().ok_or_else(|| self.refuse(self.at, "an empty stack"))
    }

    fn pop(&mut self) -> Result<Ref, NnError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn marked(&mut self) -> Result<Vec<Ref>, NnError> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => Err(self.refuse(self.at, "a missing mark")),
        }
    }

    fn append(&mut self, items: &[Ref]) -> Result<(), NnError> {
        let top = self.top()?;
        if let Value::List(list) = &mut self.arena[top] {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Ref]) -> Result<(), NnError> {
        let items = pairs(items)?;
        let top = self.top()?;
        if let Value::Dict(dict) = &mut self.arena[top] {
            dict.extend(items);
        }
        Ok(())
    }

    fn remember(&mut self, width: usize) -> Result<(), NnError> {
        let key = self.unsigned(width)? as u32;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Result<(), NnError> {
        let key = self.unsigned(width)? as u32;
        match self.memo.get(&key) {
            Some(&value) => self.stack.push(value),
            None => return Err(self.refuse(self.at, "an unknown memo")),
        }
        Ok(())
    }

    fn call(&self, callee: Ref, arguments: Ref) -> Value {
        let (Value::Global(name), Value::Tuple(arguments)) = (&self.arena[callee], &self.arena[arguments])
        else {
            return Value::Opaque;
        };
        match name.as_str() {
            "collections.OrderedDict" => Value::Dict(Vec::new()),
            "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor" => {
                self.tensor(arguments).map_or(Value::Opaque, Value::Tensor)
            }
            "torch._utils._rebuild_parameter" => match arguments.first().map(|&at| &self.arena[at]) {
                Some(Value::Tensor(tensor)) => Value::Tensor(tensor.clone()),
                _ => Value::Opaque,
            },
            _ => Value::Opaque,
        }
    }

    fn tensor(&self, arguments: &[Ref]) -> Option<TensorView> {
        let [storage, offset, shape, strides, ..] = arguments else { return None };
        let Value::Storage(key, kind) = &self.arena[*storage] else { return None };
        Some(TensorView {
            storage: key.clone(),
            kind: kind.clone(),
            offset: self.size(*offset)?,
            shape: self.sizes(*shape)?,
            strides: self.sizes(*strides)?,
        })
    }

    fn size(&self, at: Ref) -> Option<usize> {
        match self.arena[at] {
            Value::Int(value) => usize::try_from(value).ok(),
            _ => None,
        }
    }

    fn sizes(&self, at: Ref) -> Option<Vec<usize>> {
        match &self.arena[at] {
            Value::Tuple(items) if items.len() <= 16 => items.iter().map(|&item| self.size(item)).collect(),
            _ => None,
        }
    }

    /// `("storage", type, key, device, elements, ...)`.
    fn storage(&self, id: Ref) -> Value {
        let Value::Tuple(parts) = &self.arena[id] else { return Value::Opaque };
        let [tag, kind, key, ..] = parts[..] else { return Value::Opaque };
        match (&self.arena[tag], &self.arena[kind], &self.arena[key]) {
            (Value::Text(tag), Value::Global(kind), Value::Text(key)) if tag == "storage" => {
                let kind = kind.rsplit('.').next().unwrap_or(kind);
                Value::Storage(key.clone(), kind.to_owned())
            }
            _ => Value::Opaque,
        }
    }
}

fn long(digits: &[u8]) -> Value {
    if digits.len() > 8 {
        return Value::Long(digits.to_vec());
    }
    let fill = if digits.last().is_some_and(|&top| top >= 0x80) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide[..digits.len()].copy_from_slice(digits);
    Value::Int(i64::from_le_bytes(wide))
}

fn pairs(items: &[Ref]) -> Result<Vec<(Ref, Ref)>, NnError> {
    if !items.len().is_multiple_of(2) {
        return Err(fault("a key without a value", "a pickle of tensors by name"));
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

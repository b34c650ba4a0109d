//! Both layouts of `torch.save`, without Python.

use std::collections::BTreeMap;

use super::pickle::{Pickle, TensorView, Value, run};
use super::{Element, ForeignTensor, archive, fault, in_entry};
use crate::error::NnError;

/// First value of the older layout.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Dictionaries inside dictionaries are followed this far.
const MAX_DEPTH: usize = 8;

type Tensors = BTreeMap<String, ForeignTensor>;

/// The zip layout: `<name>/data.pkl` and one entry `<name>/data/<key>` per storage.
pub fn read_zip(bytes: &[u8]) -> Result<Tensors, NnError> {
    let entries = archive::entries(bytes)?;
    let Some((name, pickle)) = entries.iter().find(|(name, _)| name.ends_with("/data.pkl")) else {
        return Err(fault("a zip archive without `data.pkl`", "a file written by `torch.save`"));
    };
    let folder = name.trim_end_matches("data.pkl");
    if entries.get(&format!("{folder}byteorder")).is_some_and(|order| *order != b"little") {
        return Err(fault("big-endian data", "little-endian data"));
    }
    let (pickle, _) = run(pickle).map_err(|error| in_entry(error, name))?;
    let storage = |view: &TensorView| {
        let key = format!("{folder}data/{}", view.storage);
        entries.get(&key).copied().ok_or_else(|| fault("no such entry", format!("entry `{key}`")))
    };
    collect(&pickle, bytes.len(), storage)
}

/// The older layout: three header pickles, the state, the list of storage keys, then for each its number of
/// elements (64 bits) and its raw elements.
pub fn read_legacy(bytes: &[u8]) -> Result<Tensors, NnError> {
    let mut at = 0;
    let mut next = || {
        let (pickle, length) = run(&bytes[at..])?;
        at += length;
        Ok::<_, NnError>(pickle)
    };
    let magic = next()?;
    if !matches!(magic.root(), Value::Long(digits) if digits[..] == MAGIC) {
        return Err(fault("a pickle that `torch.save` did not write", "a PyTorch weight file"));
    }
    let (_protocol, _system) = (next()?, next()?);
    let (state, keys) = (next()?, next()?);
    let mut kinds = BTreeMap::new();
    visit(&state, |_, view| drop(kinds.insert(view.storage.clone(), view.kind.clone())))?;
    let Value::List(keys_list) = keys.root() else {
        return Err(fault("no list of storages", "a whole PyTorch weight file"));
    };
    let mut storages: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for &key in keys_list {
        let Value::Text(key) = keys.get(key) else {
            return Err(fault("a storage key that is not text", "a whole PyTorch weight file"));
        };
        // A storage that no tensor uses has no known element size, so what follows it could not be found.
        let kind = kinds.get(key).ok_or_else(|| fault("a storage without a tensor", "a state dictionary"))?;
        let size = element(kind)?.size();
        let cut = || in_entry(fault("the end of the file", "the elements of a storage"), key);
        let count = bytes.get(at..at + 8).ok_or_else(cut)?;
        let count = count.iter().rev().fold(0u64, |value, &digit| value << 8 | u64::from(digit));
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        let end = length.and_then(|length| length.checked_add(at + 8)).ok_or_else(cut)?;
        storages.insert(key, bytes.get(at + 8..end).ok_or_else(cut)?);
        at = end;
    }
    if at != bytes.len() {
        return Err(fault(format!("{} bytes after the last storage", bytes.len() - at), "none"));
    }
    let storage = |view: &TensorView| {
        let found = storages.get(view.storage.as_str()).copied();
        found.ok_or_else(|| fault("no such storage", format!("storage `{}`", view.storage)))
    };
    collect(&state, bytes.len(), storage)
}

fn collect<'a>(
    pickle: &Pickle,
    limit: usize,
    storage: impl Fn(&TensorView) -> Result<&'a [u8], NnError>,
) -> Result<Tensors, NnError> {
    let mut views = Vec::new();
    visit(pickle, |name, view| views.push((name, view.clone())))?;
    if views.is_empty() {
        return Err(fault("no tensor", "a dictionary of tensors by name"));
    }
    let mut tensors = Tensors::new();
    let mut total = 0usize;
    for (name, view) in views {
        let tensor = storage(&view).and_then(|data| {
            // Views may share a storage; a file of n bytes may not unfold to more than n elements.
            let count = elements(&view.shape)?;
            total = total.saturating_add(count);
            if total > limit {
                return Err(fault("more elements than the file has bytes", "tensors that are stored"));
            }
            read(&view, count, data)
        });
        tensors.insert(name.clone(), tensor.map_err(|error| in_entry(error, &name))?);
    }
    Ok(tensors)
}

/// Calls `see` with every tensor in the dictionaries of a pickle and its dotted name.
fn visit(pickle: &Pickle, mut see: impl FnMut(String, &TensorView)) -> Result<(), NnError> {
    let mut open = vec![(pickle.root(), String::new(), 0)];
    let mut steps = 0;
    while let Some((value, prefix, depth)) = open.pop() {
        let Value::Dict(items) = value else { continue };
        for &(key, item) in items {
            steps += 1;
            if steps > 1 << 17 {
                return Err(fault("more than 131072 entries", "a state dictionary"));
            }
            let Value::Text(key) = pickle.get(key) else { continue };
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match pickle.get(item) {
                Value::Tensor(view) => see(name, view),
                inner @ Value::Dict(_) if depth < MAX_DEPTH && name.len() < 1024 => {
                    open.push((inner, name, depth + 1));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn elements(shape: &[usize]) -> Result<usize, NnError> {
    shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        .ok_or_else(|| fault(format!("shape {shape:?}"), "a shape that fits in memory"))
}

fn element(kind: &str) -> Result<Element, NnError> {
    Ok(match kind {
        "DoubleStorage" => Element::F64,
        "FloatStorage" => Element::F32,
        "HalfStorage" => Element::F16,
        "BFloat16Storage" => Element::Bf16,
        "LongStorage" => Element::I64,
        "IntStorage" => Element::I32,
        "ShortStorage" => Element::I16,
        "ByteStorage" => Element::U8,
        "BoolStorage" => Element::Bool,
        _ => return Err(fault(format!("storage type {kind}"), "a float or integer storage")),
    })
}

fn read(view: &TensorView, count: usize, data: &[u8]) -> Result<ForeignTensor, NnError> {
    let element = element(&view.kind)?;
    let available = data.len() / element.size();
    let outside = || {
        fault(
            format!("a storage of {available} elements"),
            format!("shape {:?} at {} with strides {:?} inside it", view.shape, view.offset, view.strides),
        )
    };
    if view.strides.len() != view.shape.len() || count > available {
        return Err(outside());
    }
    let mut values = Vec::with_capacity(count);
    if count > 0 {
        let last = view.shape.iter().zip(&view.strides).try_fold(view.offset, |at, (&size, &stride)| {
            stride.checked_mul(size - 1).and_then(|step| at.checked_add(step))
        });
        if last.is_none_or(|last| last >= available) {
            return Err(outside());
        }
        let mut index = vec![0usize; view.shape.len()];
        for _ in 0..count {
            let at = index.iter().zip(&view.strides).map(|(&i, &stride)| i * stride).sum::<usize>();
            values.push(element.value(data, view.offset + at));
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < view.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
    }
    Ok(ForeignTensor { shape: view.shape.clone(), values, dtype: element.name() })
}

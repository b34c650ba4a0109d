//! From text to a typed recipe, with every fault that can be found reported at once.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::{Error, Result};

/// One thing wrong with a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted key, such as `study.plans[1].kind`; empty for the whole file.
    pub key: String,
    /// Line in the file, from 1, where the key stands.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Fault {
    /// A fault found by the checks after reading.
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), line: None, what: what.into() }
    }
}

/// All faults of a recipe as one error.
pub fn faults_to_error(name: &str, faults: &[Fault]) -> Error {
    let mut error = Error::new(match faults.len() {
        1 => format!("recipe `{name}` has a fault"),
        n => format!("recipe `{name}` has {n} faults"),
    });
    for fault in faults {
        let place = match (fault.line, fault.key.is_empty()) {
            (Some(line), false) => format!("line {line}, `{}`: ", fault.key),
            (Some(line), true) => format!("line {line}: "),
            (None, false) => format!("`{}`: ", fault.key),
            (None, true) => String::new(),
        };
        error = error.detail("fault", format!("{place}{}", fault.what));
    }
    error.hint("`jetgraft recipe show quickstart` prints a recipe that works, each key with its meaning")
}

/// Text to a table.
///
/// # Errors
/// A fault with the line of the syntax error.
pub fn parse(text: &str) -> std::result::Result<Table, Fault> {
    text.parse::<Table>().map_err(|error| Fault {
        key: String::new(),
        line: error.span().map(|span| line_at(text, span.start)),
        what: format!("not TOML: {}", error.message()),
    })
}

/// Applies one `--set key=value`. The value is read as TOML, and as a plain string if it is none.
///
/// # Errors
/// No `=`, or a key that passes through something that is not a table or list.
pub fn set(table: &mut Table, assignment: &str) -> Result<()> {
    let Some((key, text)) = assignment.split_once('=') else {
        return Err(Error::new(format!("--set {assignment}: no `=`"))
            .expected("KEY=VALUE, such as train.budget.epochs=5"));
    };
    let (key, text) = (key.trim(), text.trim());
    let value = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_string()));
    let parts: Vec<&str> = key.split('.').collect();
    // On a copy, so that a refused assignment changes nothing.
    let mut whole = Value::Table(table.clone());
    put(&mut whole, &parts, value).map_err(|part| {
        Error::new(format!("--set {assignment}: `{part}` is neither a table nor a list in this recipe"))
            .hint("`jetgraft recipe check RECIPE` prints all keys")
    })?;
    if let Value::Table(changed) = whole {
        *table = changed;
    }
    Ok(())
}

/// Puts `value` at a path; the part of the path that leads nowhere otherwise.
fn put(place: &mut Value, path: &[&str], value: Value) -> std::result::Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *place = value;
        return Ok(());
    };
    match place {
        Value::Table(inner) => {
            let next = inner.entry((*first).to_string()).or_insert_with(|| Value::Table(Table::new()));
            put(next, rest, value)
        }
        Value::Array(list) => match first.parse::<usize>().ok().and_then(|index| list.get_mut(index)) {
            Some(next) => put(next, rest, value),
            None => Err((*first).to_string()),
        },
        _ => Err((*first).to_string()),
    }
}

/// Table to a typed recipe. A fault does not end the reading: something of the right type takes the place of the
/// value at fault, and the rest is read.
///
/// # Errors
/// All faults found, in the order of the file where the line is known.
pub fn typed<T: DeserializeOwned>(table: &Table, text: &str) -> std::result::Result<T, Vec<Fault>> {
    let mut value = Value::Table(table.clone());
    let mut faults: Vec<Fault> = Vec::new();
    // Keys whose value is a stand-in: what is wrong with them, or below them, has been said.
    let mut mended: Vec<String> = Vec::new();
    // A recipe has fewer keys than this; the bound only guards against a fault that no stand-in mends.
    for _ in 0..200 {
        let error = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
            Ok(recipe) if faults.is_empty() => return Ok(recipe),
            Ok(_) => break,
            Err(error) => error,
        };
        let mut path: Vec<String> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                serde_path_to_error::Segment::Map { key } => Some(key.clone()),
                serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
                // The variant of a tagged enum is no key of the file.
                serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => None,
            })
            .collect();
        let message = error.inner().message().trim().to_string();
        let known = |path: &[String]| (0..=path.len()).any(|n| mended.contains(&path[..n].join(".")));
        let went_on = if let Some(field) = quoted_after(&message, "missing field ") {
            if !known(&path) {
                let what = format!("`{field}` is missing");
                faults.push(Fault { line: line_of(text, &path), what, key: path.join(".") });
            }
            path.push(field.to_string());
            // The next round says which type it has.
            put(&mut value, &refs(&path), Value::String(String::new())).is_ok()
        } else if let Some(field) = quoted_after(&message, "unknown field ") {
            if path.last().map(String::as_str) != Some(field) {
                path.push(field.to_string());
            }
            if !known(&path) {
                let what = match nearest(field, message.split('`').skip(3).step_by(2)) {
                    Some(near) => format!("unknown key; did you mean `{near}`?"),
                    None => format!("unknown key; {}", message.split_once(", ").map_or("", |(_, rest)| rest)),
                };
                faults.push(Fault { line: line_of(text, &path), key: path.join("."), what });
            }
            remove(&mut value, &path)
        } else {
            if !known(&path) {
                faults.push(Fault { line: line_of(text, &path), key: path.join("."), what: message.clone() });
            }
            match stand_in(&message) {
                Some(other) if !path.is_empty() => put(&mut value, &refs(&path), other).is_ok(),
                _ => false,
            }
        };
        let key = path.join(".");
        // A stand-in that is refused in its turn for the same reason cannot be mended.
        if !went_on || mended.iter().filter(|earlier| **earlier == key).count() > 3 {
            break;
        }
        // Without the kind nobody knows which keys belong beside it.
        if let [parent @ .., last] = path.as_slice()
            && last == "kind"
            && !parent.is_empty()
        {
            mended.push(parent.join("."));
        }
        mended.push(key);
    }
    faults.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
    Err(faults)
}

fn refs(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// A value of the type that a message of serde asks for.
fn stand_in(message: &str) -> Option<Value> {
    let expected = message.split_once("expected ")?.1;
    // `unknown variant`: the first that there is.
    if let Some(variant) = expected.strip_prefix("one of ").unwrap_or(expected).strip_prefix('`') {
        return Some(Value::String(variant.split('`').next()?.to_string()));
    }
    let is = |kinds: &[&str]| kinds.iter().any(|kind| expected.starts_with(kind));
    Some(if is(&["f64", "f32", "floating point"]) {
        Value::Float(0.5)
    } else if is(&["u", "i64", "i32", "i16", "i8", "integer", "a nonzero"]) {
        Value::Integer(1)
    } else if is(&["a bool"]) {
        Value::Boolean(false)
    } else if is(&["a sequence", "a tuple"]) {
        Value::Array(Vec::new())
    } else if is(&["an array of length 2"]) {
        Value::Array(vec![Value::Float(0.5), Value::Float(0.5)])
    } else if is(&["struct", "a map", "internally tagged enum", "enum", "string or map", "map"]) {
        Value::Table(Table::new())
    } else if is(&["a string", "a borrowed string", "path string"]) {
        Value::String(String::new())
    } else {
        return None;
    })
}

/// The text between backticks that follows `lead`.
fn quoted_after<'a>(message: &'a str, lead: &str) -> Option<&'a str> {
    let rest = message.strip_prefix(lead)?.strip_prefix('`')?;
    rest.split('`').next()
}

/// The candidate with the smallest edit distance, if it is near enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(name.len()) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut place = value;
    for part in parents {
        let next = match place {
            Value::Table(inner) => inner.get_mut(part),
            Value::Array(list) => part.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
            _ => None,
        };
        match next {
            Some(next) => place = next,
            None => return false,
        }
    }
    match place {
        Value::Table(inner) => inner.remove(last).is_some(),
        _ => false,
    }
}

fn line_at(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

/// Faults of the checks after reading, with their lines.
pub fn placed(mut faults: Vec<Fault>, text: &str) -> Vec<Fault> {
    for fault in &mut faults {
        let path: Vec<String> = fault.key.split('.').map(str::to_string).collect();
        fault.line = (1..=path.len()).rev().find_map(|n| line_of(text, &path[..n]));
    }
    faults.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
    faults
}

/// Takes the line from faults of values that `changes` (`key=value`) gave, and says so instead.
pub fn blame_changes(faults: &mut [Fault], changes: &[String]) {
    let keys: Vec<&str> =
        changes.iter().filter_map(|change| Some(change.split_once('=')?.0.trim())).collect();
    for fault in faults {
        let below = |key: &&&str| {
            fault.key.strip_prefix(**key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some(key) = keys.iter().find(below) {
            fault.line = None;
            fault.what = format!("{} (given by --set {key})", fault.what);
        }
    }
}

/// Line where `path` stands in the text (a key set on the command line stands nowhere).
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    use toml::de::DeValue;
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut line = None;
    let mut table = Some(document.get_ref());
    let mut list: Option<&toml::de::DeArray<'_>> = None;
    for part in path {
        let found = if let Some(inner) = table {
            let (key, value) = inner.iter().find(|(key, _)| key.get_ref() == part)?;
            line = Some(line_at(text, key.span().start));
            value
        } else {
            let value = list?.get(part.parse::<usize>().ok()?)?;
            line = Some(line_at(text, value.span().start));
            value
        };
        (table, list) = match found.get_ref() {
            DeValue::Table(inner) => (Some(inner), None),
            DeValue::Array(inner) => (None, Some(inner)),
            _ => (None, None),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{parse, set, typed};

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        epochs: usize,
        rate: f64,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        name: String,
        train: Inner,
    }

    #[test]
    fn every_fault_is_reported_at_once_with_its_line() {
        let text = "nme = 'x'\nname = 3\n[train]\nepoch = 3\nepochs = 'three'\nrate = 0.1\n";
        let faults = typed::<Outer>(&parse(text).unwrap(), text).unwrap_err();
        let seen: Vec<_> = faults.iter().map(|f| (f.line, f.key.as_str())).collect();
        assert_eq!(
            seen,
            [(Some(1), "nme"), (Some(2), "name"), (Some(4), "train.epoch"), (Some(5), "train.epochs")]
        );
        assert_eq!(faults[0].what, "unknown key; did you mean `name`?");
        assert_eq!(faults[2].what, "unknown key; did you mean `epochs`?");
    }

    #[test]
    fn a_missing_key_names_its_table() {
        let text = "name = 'x'\n[train]\nepochs = 3\n";
        let faults = typed::<Outer>(&parse(text).unwrap(), text).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].key.as_str(), faults[0].line), ("train", Some(2)));
        assert_eq!(faults[0].what, "`rate` is missing");
    }

    #[test]
    fn a_fault_hides_no_other() {
        let text = "[train]\nepochs = 'three'\nrate = 'fast'\n[trian]\n";
        let faults = typed::<Outer>(&parse(text).unwrap(), text).unwrap_err();
        let seen: Vec<_> = faults.iter().map(|f| (f.line, f.key.as_str(), f.what.as_str())).collect();
        let usize_wanted = "invalid type: string \"three\", expected usize";
        let f64_wanted = "invalid type: string \"fast\", expected f64";
        assert_eq!(
            seen,
            [
                (Some(2), "train.epochs", usize_wanted),
                (Some(3), "train.rate", f64_wanted),
                (Some(4), "trian", "unknown key; did you mean `train`?"),
                (None, "", "`name` is missing"),
            ]
        );
    }

    #[test]
    fn a_missing_table_is_one_fault() {
        let faults = typed::<Outer>(&parse("name = 'x'").unwrap(), "name = 'x'").unwrap_err();
        let seen: Vec<_> = faults.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(seen, ["`train` is missing"]);
    }

    #[test]
    fn set_reaches_tables_and_lists_and_refuses_the_rest() {
        let mut table = parse("name = 'x'\nlist = [{a = 1}, {a = 2}]\n").unwrap();
        set(&mut table, "train.epochs=5").unwrap();
        set(&mut table, "list.1.a = 7").unwrap();
        set(&mut table, "name=plain words").unwrap();
        assert_eq!(table["train"]["epochs"].as_integer(), Some(5));
        assert_eq!(table["list"][1]["a"].as_integer(), Some(7));
        assert_eq!(table["name"].as_str(), Some("plain words"));
        let before = table.clone();
        assert!(set(&mut table, "name.deeper=1").is_err());
        assert!(set(&mut table, "list.9.a=1").is_err());
        assert!(set(&mut table, "no assignment").is_err());
        assert_eq!(table, before, "a refused assignment changes nothing");
    }
}

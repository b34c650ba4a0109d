//! A train recipe to begin with, from what a file holds. It passes the checks as it stands; what the file cannot tell
//! (the meaning of the classes, how the jets were made) is marked.

use jetgraft_data::columns::JetColumns;
use jetgraft_data::inspect::Inspection;
use toml::Value;

use super::schema::FORMAT;

/// The recipe for a file.
pub fn propose(inspection: &Inspection) -> String {
    let proposal = &inspection.proposal;
    let path = inspection.path.to_string_lossy();
    let file = quoted(&path);
    let mut text = format!("format = \"{FORMAT}\"\nkind = \"train\"\n");
    text += &format!("name = {}\n", quoted(&folder_name(inspection)));
    text += &format!("title = {}\n", quoted(&format!("LundNet-5 on {}", file_name(inspection))));
    text += "\n[model]\nkind = \"lundnet\"\n\n[input]\nkind = \"lund\"\nfeatures = \"lundnet-5\"\n\n[task]\n";
    let by_condition = proposal.classes.len() >= 2;
    if by_condition {
        text += &format!("files = [{file}]\n");
    }
    // How jets were made stands in no column.
    text +=
        "jets = { algorithm = \"anti-kt\", radius = 1.0 }  # not in the file: say how the jets were made\n";
    if by_condition {
        text += "# Give the classes names of your own; more than two are in the file if lines follow that are commented out.\n";
        for (at, class) in proposal.classes.iter().enumerate() {
            let (mark, key) = match at {
                0 => ("", "background"),
                1 => ("", "signal"),
                _ => ("# ", "signal"),
            };
            let (name, when) = (quoted(&class.name), quoted(&class.when));
            text += &format!("{mark}{key} = {{ name = {name}, when = {when} }}  # {} rows\n", class.rows);
        }
    } else {
        text += "# No column of classes was found: one file a class.\n";
        text += &format!("background = {{ name = \"background\", files = [{file}] }}\n");
        text +=
            "signal = { name = \"signal\", files = [\"signal.parquet\"] }  # the file of the other class\n";
    }
    text += "split = { train = 0.7, validation = 0.1, test = 0.2 }\n";
    if !proposal.missing.is_empty() {
        text += &format!(
            "# No column was found for {}: map them under [task.columns].\n",
            proposal.missing.join(", ")
        );
    }
    if !proposal.renamed.is_empty() {
        text += "\n[task.columns]\n";
        text += &renamed(&proposal.columns, &proposal.renamed);
    }
    text += "\n[train]\nbatch_size = 64\nbudget = { epochs = 8 }\nlearning_rate = 1e-3\n";
    text
}

/// The columns that differ from the defaults, one a line.
fn renamed(columns: &JetColumns, keys: &[String]) -> String {
    // The struct has string values only, so it always is a table; were it not, the recipe would lack the lines.
    let table = toml::Table::try_from(columns).unwrap_or_default();
    keys.iter().filter_map(|key| Some(format!("{key} = {}\n", table.get(key)?))).collect()
}

fn file_name(inspection: &Inspection) -> String {
    inspection.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The file's name up to the first dot, in the letters that a run folder may have.
fn folder_name(inspection: &Inspection) -> String {
    let name = file_name(inspection);
    let stem = name.split('.').find(|part| !part.is_empty()).unwrap_or("jets");
    stem.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' }).collect()
}

/// A TOML string.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

//! Tables on the terminal.

use comfy_table::presets;
use comfy_table::{ContentArrangement, Table};

/// An empty table in the house's style: no box, so that it can be pasted and piped.
pub fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

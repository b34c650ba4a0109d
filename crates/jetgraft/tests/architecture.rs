//! The edges between the crates are those of ARCHITECTURE.md, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The allowed edges, read from the table in ARCHITECTURE.md so that the page cannot go stale.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut edges = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `crates/") || line.starts_with("| `benches`"))
    {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`').trim_start_matches("crates/").to_string();
        edges.insert(name, cells[2].split(", ").map(str::to_string).collect::<BTreeSet<_>>());
    }
    assert!(edges.len() >= 8, "the table of crates in ARCHITECTURE.md was not found");
    edges
}

fn manifests() -> Vec<(String, toml::Table)> {
    let mut folders: Vec<_> = std::fs::read_dir(root().join("crates"))
        .expect("crates/")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.join("Cargo.toml").is_file())
        .collect();
    folders.push(root().join("benches"));
    folders
        .iter()
        .map(|folder| {
            let text = std::fs::read_to_string(folder.join("Cargo.toml")).expect("Cargo.toml");
            let name = folder.file_name().expect("name").to_string_lossy().into_owned();
            (name, text.parse().expect("a manifest is TOML"))
        })
        .collect()
}

fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|section| manifest.get(*section)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect()
}

#[test]
fn crates_depend_on_each_other_only_as_the_architecture_says() {
    let allowed = allowed();
    for (name, manifest) in manifests() {
        let may =
            allowed.get(&name).unwrap_or_else(|| panic!("{name} is missing in ARCHITECTURE.md's table"));
        for dependency in dependencies(&manifest) {
            let Some(short) = dependency.strip_prefix("jetgraft-") else { continue };
            assert!(
                may.contains("all") || may.contains(short),
                "{name} uses {dependency}; ARCHITECTURE.md allows it only {may:?}"
            );
        }
    }
}

#[test]
fn only_nn_learn_and_the_product_see_burn() {
    for (name, manifest) in manifests() {
        let sees = dependencies(&manifest).contains("burn");
        let may = ["jetgraft-nn", "jetgraft-learn", "jetgraft", "benches"].contains(&name.as_str());
        assert!(!sees || may, "{name} must not see Burn");
    }
}

#[test]
fn only_the_binary_prints_or_exits() {
    let mut stack = vec![root().join("crates")];
    while let Some(folder) = stack.pop() {
        for entry in std::fs::read_dir(&folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                if !["tests", "examples"].iter().any(|skip| path.ends_with(skip)) {
                    stack.push(path);
                }
                continue;
            }
            let text = path.to_string_lossy();
            if !text.ends_with(".rs")
                || text.ends_with("crates/jetgraft/src/main.rs")
                || text.ends_with("printer.rs")
            {
                continue;
            }
            let code = std::fs::read_to_string(&path).expect("source");
            let code = code.split("#[cfg(test)]").next().unwrap_or("");
            for word in ["process::exit(", "println!(", "eprintln!(", "std::env::var"] {
                let used = code.lines().any(|l| l.contains(word) && !l.trim_start().starts_with("//"));
                assert!(!used, "{text} uses {word}");
            }
        }
    }
}

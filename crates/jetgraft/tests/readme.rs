//! The commands of README.md work: every `sh` block after a line `<!-- run -->` is run, in order, in a folder that looks
//! like the repository and keeps what they write.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking and log to stderr")]

mod common;

use std::process::Command;
use std::time::Instant;

/// Commands of the marked blocks; a line that ends in a backslash goes on in the next.
fn commands(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut marked, mut inside, mut goes_on) = (false, false, false);
    for line in text.lines() {
        let line = line.trim();
        match line {
            "<!-- run -->" => marked = true,
            "```sh" if marked => inside = true,
            "```" => (marked, inside) = (false, false),
            _ if inside && !line.is_empty() && !line.starts_with('#') => {
                let (part, more) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
                match found.last_mut() {
                    Some(last) if goes_on => last.push_str(part),
                    _ => found.push(part.to_string()),
                }
                goes_on = more;
            }
            _ => {}
        }
    }
    found
}

#[test]
fn marked_blocks_are_found() {
    let text = "```sh\nno\n```\n<!-- run -->\n```sh\n# words\na \\\n  b\nc\n```\nx\n```sh\nno\n```\n";
    assert_eq!(commands(text), ["a b", "c"]);
}

#[test]
#[cfg(unix)]
fn every_command_of_the_readme_works() {
    let root = common::root();
    let text = std::fs::read_to_string(root.join("README.md")).unwrap();
    let commands = commands(&text);
    assert!(!commands.is_empty(), "README.md has no block marked `<!-- run -->`");
    // What the commands write goes into the scratch folder; what they read is the repository's.
    let folder = common::scratch();
    for entry in std::fs::read_dir(root.canonicalize().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name != "runs" && name != "target" && !name.to_string_lossy().starts_with('.') {
            std::os::unix::fs::symlink(entry.path(), folder.path().join(name)).unwrap();
        }
    }
    for command in commands {
        let typed =
            command.strip_prefix("cargo run --release -- ").or_else(|| command.strip_prefix("jetgraft "));
        let typed = typed.unwrap_or_else(|| panic!("a marked command runs jetgraft: {command}"));
        let began = Instant::now();
        // The shell splits the words, as it does for the reader.
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("\"$JETGRAFT\" {typed}"))
            .env("JETGRAFT", env!("CARGO_BIN_EXE_jetgraft"))
            .env_remove("RUST_LOG")
            .current_dir(folder.path())
            .output()
            .unwrap();
        eprintln!("{:6.1} s  {command}", began.elapsed().as_secs_f64());
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

//! The page and its files.

#[path = "../examples/gallery/synthetic.rs"]
#[allow(dead_code)]
mod synthetic;

use jetgraft_report::table::{Cell, Column};
use jetgraft_report::{Block, KeyNumber, Page, ReportError, Section, Table, WriteOptions, write_report};

fn body(html: &str) -> &str {
    html.split_once("<body>").map_or("", |(_, body)| body)
}

#[test]
fn page_asks_for_nothing_and_has_no_script() {
    let html = synthetic::page().expect("page").html(Some("figures")).expect("html");
    assert!(!html.contains("<script"));
    assert!(!html.contains("<link"));
    // Namespaces are names, not addresses; nothing else may point outside.
    let outside = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!outside.contains("http://") && !outside.contains("https://"));
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("@media print"));
    assert!(html.contains("<meta name=\"viewport\""));
}

#[test]
fn the_answer_comes_first_then_the_figure() {
    let html = synthetic::page().expect("page").html(None).expect("html");
    let at = |text: &str| body(&html).find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(at("class=\"answer\"") < at("<figure"));
    assert!(at("<figure") < at("<table"));
    assert!(at("<table") < at("<dl>"));
}

#[test]
fn page_can_be_read_without_seeing() {
    let html = synthetic::page().expect("page").html(Some("figures")).expect("html");
    let body = body(&html);
    assert!(html.contains("<html lang=\"en\">"));
    assert_eq!(body.matches("<h1>").count(), 1);
    assert_eq!(body.matches("<figure").count(), body.matches("<figcaption>").count());
    assert_eq!(body.matches("<svg").count(), body.matches("<title id=").count());
    assert_eq!(body.matches("<table").count(), body.matches("class=\"caption\"").count());
    // Ids are unique on the page, and each name by reference exists.
    let ids: Vec<&str> = body.split(" id=\"").skip(1).filter_map(|s| s.split('"').next()).collect();
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), unique.len());
    for part in body.split("aria-labelledby=\"").skip(1) {
        for id in part.split('"').next().unwrap_or_default().split(' ') {
            assert!(unique.contains(&id), "{id}");
        }
    }
}

#[test]
fn hostile_strings_stay_text_everywhere() {
    let bad = "<script>alert('x')</script><img src=x onerror=y>\" {{ 7*7 }} {% raw %}";
    let mut table = Table::new(bad, bad);
    table.columns = vec![Column::text(bad), Column::number(bad)];
    table.push_in(bad, vec![Cell::text(bad), Cell::Markup(bad.into())]);
    table.notes = vec![bad.into()];
    let page = Page {
        title: bad.into(),
        subtitle: bad.into(),
        answer: vec![bad.into()],
        numbers: vec![KeyNumber { value: bad.into(), label: bad.into(), note: bad.into() }],
        sections: vec![
            Section::new(bad, vec![Block::Table(table), Block::Text(bad.into())]),
            Section::new(
                "other",
                vec![
                    Block::Facts(vec![(bad.into(), bad.into())]),
                    Block::Folded {
                        summary: bad.into(),
                        blocks: vec![Block::Code { caption: bad.into(), text: bad.into() }],
                    },
                ],
            ),
        ],
        footer: bad.into(),
    };
    let html = page.html(None).expect("html");
    assert!(!html.contains("<script") && !html.contains("<img"));
    assert!(html.contains("{{ 7*7 }}"), "template marks in the input are text");
}

#[test]
fn tables_put_values_and_intervals_into_columns() {
    let html = synthetic::page().expect("page").html(None).expect("html");
    assert!(html.contains("<td class=\"n v\">0.918</td><td class=\"i\">[0.915, 0.921]</td>"));
    assert!(html.contains("colspan=\"2\" class=\"v2\">AUC</th>"));
    // Every row of the table spans the same number of columns.
    let table = html.split("<table ").nth(1).and_then(|t| t.split("</table>").next()).expect("a table");
    let widths: std::collections::BTreeSet<usize> = table
        .split("<tr")
        .skip(1)
        .map(|row| {
            let cells = row.matches("<td").count() + row.matches("<th ").count();
            let spans: usize = row
                .split("colspan=\"")
                .skip(1)
                .filter_map(|s| s.split('"').next()?.parse::<usize>().ok())
                .map(|n| n - 1)
                .sum();
            cells + spans
        })
        .collect();
    assert_eq!(widths.len(), 1, "{widths:?}");
}

#[test]
fn files_are_whole_and_links_lead_to_them() {
    let folder = tempfile::tempdir().expect("folder");
    let page = synthetic::page().expect("page");
    let options = WriteOptions { png_scale: 0.5, ..WriteOptions::default() };
    let out = folder.path().join("new/report");
    for _ in 0..2 {
        // The second time the files are replaced.
        let written = write_report(&page, &out, &options).expect("written");
        assert_eq!(written.len(), 1 + 2 * page.figures().len());
        assert!(written.iter().all(|p| p.metadata().is_ok_and(|m| m.len() > 1000)));
    }
    let html = std::fs::read_to_string(out.join("report.html")).expect("page");
    for link in html.split("<a href=\"").skip(1).filter_map(|s| s.split('"').next()) {
        if !link.starts_with('#') {
            assert!(out.join(link).is_file(), "{link}");
        }
    }
    let left = std::fs::read_dir(out.join("figures")).expect("figures").filter_map(Result::ok);
    assert!(left.into_iter().all(|e| !e.file_name().to_string_lossy().contains(".part")));
}

#[test]
fn a_folder_that_cannot_be_is_a_typed_error() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("file");
    let error = write_report(&synthetic::page().expect("page"), &file, &WriteOptions::default())
        .expect_err("a file is no folder");
    assert!(matches!(error, ReportError::Io { action: "making folder", .. }));
    assert!(error.hint().is_some());
}

//! The page of a study: the answer in words and numbers, the figure that shows it, tables, provenance.

use jetgraft_report::page::{Block, KeyNumber, Page, Section};
use jetgraft_report::plot::text::escape;
use jetgraft_report::table::{Cell, Column, Table};
use jetgraft_stats::curve::LabelsNeeded;
use jetgraft_stats::interval::{format_level, format_significant};
use jetgraft_stats::label_factor::LabelFactor;
use jetgraft_stats::target::TargetSummary;

use crate::analysis::{Row, StudyTable};
use crate::error::Result;
use crate::study_figures;
use crate::study_folder::{Study, StudyRecord};

/// Composes the page.
///
/// # Errors
/// An incomplete study.
pub fn page(study: &Study) -> Result<Page> {
    let figures = study_figures::all(study)?;
    let table = &study.table;
    let mut rejection = vec![Block::Text(
        "Background rejection 1/\\epsilon_{B} at signal efficiency \\epsilon_{S}; where few background jets are left above the \
         threshold the curves are faint and the tables give the count."
            .into(),
    )];
    rejection.extend(figures.roc.into_iter().map(Block::Figure));
    let sections = vec![
        Section::new("Data efficiency", vec![Block::Figure(figures.data_efficiency)]),
        Section::new(
            "Results",
            vec![
                Block::Table(result_table(study)),
                Block::Table(gain_table(study)),
                Block::Table(label_table(study)),
            ],
        ),
        Section::new("Rejection", rejection),
        Section::new("Training", figures.loss.into_iter().map(Block::Figure).collect()),
        Section::new("Scores", vec![Block::Figure(figures.scores)]),
        Section::new("Mass sculpting", vec![Block::Figure(figures.mass_sculpting)]),
        Section::new(
            "The jets",
            figures
                .lund_plane
                .map(Block::Figure)
                .into_iter()
                .chain([Block::Table(jets_table(study))])
                .collect(),
        ),
        Section::new("Provenance", provenance(study)),
    ];
    Ok(Page {
        title: study.record.title.clone(),
        subtitle: format!(
            "{}: {} against {}; target sizes {}; {} seeds; {} test jets, touched once",
            escape(study.record.source.as_ref().map_or("from scratch", |source| &source.description)),
            escape(&study.record.target.classes[1]),
            escape(&study.record.target.classes[0]),
            list(&study.record.sizes),
            study.record.seeds,
            study.labels.len(),
        ),
        answer: answer(study),
        numbers: numbers(table, &study.record.scratch),
        sections,
        footer: format!("jetgraft {}; recipe {}", escape(&study.record.version), escape(&study.record.name)),
    })
}

fn list(sizes: &[usize]) -> String {
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// One sentence per plan: what it gained at the smallest size, and in labels. No plan is picked by its result.
pub fn answer(study: &Study) -> Vec<String> {
    let (table, scratch) = (&study.table, &study.record.scratch);
    let (Some(&smallest), Some(&largest)) = (study.record.sizes.first(), study.record.sizes.last()) else {
        return Vec::new();
    };
    let row = |plan: &str, size: usize| table.rows.iter().find(|row| row.plan == plan && row.size == size);
    let mut sentences = Vec::new();
    for summary in table.plans.iter().filter(|summary| summary.plan != *scratch) {
        let (Some(small), Some(base)) = (row(&summary.plan, smallest), row(scratch, smallest)) else {
            continue;
        };
        let labels = match &summary.label_factor {
            Some(LabelFactor::NoSignificantGain { .. }) | None => {
                format!("no significant gain in labels against {} at {largest} jets", escape(scratch))
            }
            Some(factor) => format!(
                "it reaches the AUC that {} has with {largest} jets with \\bf{{{factor} times}} fewer",
                escape(scratch)
            ),
        };
        let reduction = small.error_reduction.as_ref().map_or(String::new(), |reduction| {
            format!(", an error reduction of {}", escape(&reduction.to_string()))
        });
        let from = if study.record.source.is_some() {
            "from scratch".to_string()
        } else {
            format!("of {}", escape(scratch))
        };
        sentences.push(format!(
            "\\bf{{{}}}: with {smallest} target jets AUC {} against {} {from}{reduction}; {labels}.",
            escape(&summary.plan),
            small.auc.total,
            base.auc.total,
        ));
    }
    sentences
}

/// What the tables mean by scratch where the reference has another name.
fn scratch_note(record: &StudyRecord) -> String {
    match record.scratch.as_str() {
        "scratch" => String::new(),
        other => format!(" Scratch here is the plan {other}."),
    }
}

fn numbers(table: &StudyTable, scratch: &str) -> Vec<KeyNumber> {
    let level = format_level(table.level);
    table
        .plans
        .iter()
        .filter(|summary| summary.plan != scratch)
        .filter_map(|summary| {
            let (value, note) = match summary.label_factor.as_ref()? {
                LabelFactor::Gain { interval } => (
                    format!("{} ×", format_significant(interval.value, 2)),
                    format!(
                        "{level} % CL [{}, {}]",
                        format_significant(interval.low, 2),
                        format_significant(interval.high, 2)
                    ),
                ),
                LabelFactor::Beyond { at_least, .. } => (
                    format!("> {} ×", format_significant(*at_least, 2)),
                    format!("{level} % CL, beyond the sizes measured"),
                ),
                LabelFactor::NoSignificantGain { .. } => ("none".into(), "no significant gain".into()),
            };
            Some(KeyNumber { value, label: format!("fewer labels, {}", escape(&summary.plan)), note })
        })
        .collect()
}

fn result_table(study: &Study) -> Table {
    let mut table = Table::new(
        "results",
        "Test performance of each plan and target size, mean over seeds with total interval (seeds and test jets).",
    );
    table.columns = vec![
        Column::text("plan"),
        Column::number("accuracy"),
        Column::number("AUC"),
        Column::number("1/\\epsilon_{B} at \\epsilon_{S} = 0.5"),
        Column::number("1/\\epsilon_{B} at \\epsilon_{S} = 0.3"),
    ];
    for row in &study.table.rows {
        table.push_in(
            format!("{} target jets", row.size),
            vec![
                Cell::text(row.plan.clone()),
                Cell::text(row.accuracy.total.to_string()),
                Cell::text(row.auc.total.to_string()),
                Cell::text(row.rejection_50.to_string()),
                Cell::text(row.rejection_30.to_string()),
            ],
        );
    }
    let level = format_level(study.table.level);
    let [background, signal] = study.table.test_jets;
    table.notes = vec![
        format!("{level} % CL; n = {} seeds; {background} {} and {signal} {} test jets.", study.record.seeds,
            escape(&study.record.target.classes[0]), escape(&study.record.target.classes[1])),
        "Accuracy and AUC: Student t over seeds and the variance over test jets (AUC: DeLong) in quadrature. Rejection: one over \
         the mean \\epsilon_{B}, Clopper-Pearson over jets, order statistics of the threshold and Student t over seeds; in round brackets the background jets of each \
         seed; a > is a one-sided limit."
            .into(),
    ];
    table
}

fn gain_table(study: &Study) -> Table {
    let mut table = Table::new(
        "gains",
        "What the graft gained over scratch at the same size, paired on the same jets and seeds.",
    );
    table.columns = vec![
        Column::text("plan"),
        Column::number("error reduction"),
        Column::number("AUC gain"),
        Column::number("epochs to scratch's AUC"),
        Column::number("seconds to it"),
        Column::number("epochs run"),
        Column::number("seconds run"),
        Column::number("CPU seconds"),
    ];
    for row in &study.table.rows {
        table.push_in(
            format!("{} target jets", row.size),
            vec![
                Cell::text(row.plan.clone()),
                row.error_reduction.as_ref().map_or(Cell::Missing, |r| Cell::text(r.to_string())),
                row.auc_gain.as_ref().map_or(Cell::Missing, |gain| Cell::text(gain.total.to_string())),
                Cell::text(summary(&row.epochs_to_scratch, 0)),
                Cell::text(summary(&row.seconds_to_scratch, 1)),
                Cell::number(row.epochs, 1),
                Cell::number(row.seconds, 1),
                Cell::number(row.cpu_seconds, 1),
            ],
        );
    }
    table.notes = vec![
        format!(
            "{} % CL. Error reduction 1 - Err/Err_{{scratch}}: bootstrap over test jets and Student t over seeds. Scratch's AUC is the best validation AUC of \
             scratch at the same size and seed; shown is the median over seeds with the range, and how many seeds got there when not all did.{}",
            format_level(study.table.level),
            escape(&scratch_note(&study.record))
        ),
        "The time of validation is part of the seconds; reading and clustering the jets is not.".into(),
    ];
    table
}

/// Median with range, and how many seeds got there.
pub fn summary(summary: &TargetSummary, decimals: usize) -> String {
    let reached = if summary.reached < summary.seeds {
        format!(" ({}/{})", summary.reached, summary.seeds)
    } else {
        String::new()
    };
    match (summary.median, summary.least, summary.most) {
        (Some(median), Some(least), Some(most)) => {
            format!("{median:.decimals$} [{least:.decimals$}, {most:.decimals$}]")
        }
        (Some(median), Some(least), None) => format!("{median:.decimals$} [{least:.decimals$}, -]{reached}"),
        (None, Some(least), _) => format!("- [{least:.decimals$}, -]{reached}"),
        _ => format!("not reached{reached}"),
    }
}

fn label_table(study: &Study) -> Table {
    let mut table = Table::new(
        "labels",
        "How many times fewer labels each plan needs for scratch's AUC at the largest size.",
    );
    table.columns = vec![
        Column::text("plan"),
        Column::number("label factor"),
        Column::text("fit of 1 - AUC against target jets"),
        Column::number("exponent"),
    ];
    for summary in &study.table.plans {
        table.push(vec![
            Cell::text(summary.plan.clone()),
            summary.label_factor.as_ref().map_or(Cell::Missing, |factor| Cell::text(factor.to_string())),
            summary.fit.as_ref().map_or(Cell::Missing, |fit| Cell::text(fit.fit.model.describe())),
            summary.fit.as_ref().map_or(Cell::Missing, |fit| Cell::text(fit.exponent.to_string())),
        ]);
    }
    table.notes = vec![format!(
        "{} % CL over seeds (multiplier bootstrap), read between the points by monotone interpolation in ln jets.",
        format_level(study.table.level)
    )];
    if let Some(needed) = study.table.plans.iter().find_map(|summary| summary.labels_for_best.as_ref()) {
        table.notes.push(format!(
            "More events instead: {}",
            match needed {
                LabelsNeeded::Finite { labels } => format!(
                    "by its fit, scratch would need {} jets for the best grafted error.",
                    labels.bracket()
                ),
                LabelsNeeded::AtLeast { at_least, .. } => format!(
                    "by its fit, scratch would need at least {} jets for the best grafted error.",
                    format_significant(*at_least, 2)
                ),
                LabelsNeeded::Unreachable { .. } => {
                    "by its fit, scratch never reaches the best grafted error.".to_string()
                }
            }
        ));
    }
    table
}

fn jets_table(study: &Study) -> Table {
    let mut table =
        Table::new("jets", "Jets of each part; no event is in two parts, nor in source and target.");
    table.columns = vec![
        Column::text("task"),
        Column::text("part"),
        Column::number("background"),
        Column::number("signal"),
        Column::number("events"),
    ];
    let tasks = study.record.source.iter().filter_map(|source| source.task.as_ref());
    let tasks = tasks.map(|task| ("source", task));
    for (name, task) in tasks.chain([("target", &study.record.target)]) {
        for part in task.parts.iter().filter(|part| part.events > 0) {
            table.push_in(
                format!("{name}: {} against {}", escape(&task.classes[1]), escape(&task.classes[0])),
                vec![
                    Cell::text(name),
                    Cell::text(part.part.clone()),
                    Cell::Count(part.background as u64),
                    Cell::Count(part.signal as u64),
                    Cell::Count(part.events as u64),
                ],
            );
        }
    }
    table.notes = vec![format!(
        "Mean {} of a target jet: {:.1} ({}).",
        escape(&study.record.target.nodes),
        study.record.target.mean_nodes,
        escape(&study.record.target.input)
    )];
    table
}

fn provenance(study: &Study) -> Vec<Block> {
    let record = &study.record;
    let mut facts = vec![
        ("program".to_string(), record.version.clone()),
        ("seed".to_string(), record.seed.to_string()),
        ("subsets".to_string(), record.subsets.clone()),
        ("device and threads".to_string(), record.machine.clone()),
    ];
    let mut wall = format!("{:.0} s", record.seconds);
    if let Some(source) = &record.source {
        facts.push(("source".to_string(), source.description.clone()));
        facts.push(("source weights (BLAKE3)".to_string(), source.weights_blake3.clone()));
        wall += &format!(", of which source {:.0} s", source.seconds);
    }
    facts.push(("wall time".to_string(), wall));
    let tasks = record.source.iter().filter_map(|source| source.task.as_ref());
    let tasks = tasks.map(|task| ("source", task));
    for (name, task) in tasks.chain([("target", &record.target)]) {
        for file in &task.manifest.files {
            facts.push((
                format!("{name} file"),
                format!(
                    "{}, {} rows, {} bytes, BLAKE3 {}",
                    file.path.display(),
                    file.rows,
                    file.bytes,
                    file.blake3
                ),
            ));
        }
        facts.push((format!("{name} ledger"), task.ledger.to_string()));
    }
    vec![
        Block::Facts(facts),
        Block::Folded {
            summary: "Graft reports".into(),
            blocks: study
                .grafts
                .iter()
                .map(|(plan, text)| Block::Code { caption: escape(plan), text: text.clone() })
                .collect(),
        },
        Block::Folded {
            summary: "The recipe, resolved: running it repeats the study".into(),
            blocks: vec![Block::Code { caption: "recipe.resolved.toml".into(), text: study.recipe.clone() }],
        },
    ]
}

/// The table on stdout.
pub fn terminal(study: &Study) -> String {
    let mut table = crate::tables::plain();
    table.set_header([
        "jets",
        "plan",
        "accuracy",
        "AUC",
        "1/eps_B at 0.5",
        "1/eps_B at 0.3",
        "error reduction",
        "epochs to scratch",
        "seconds",
        "label factor",
    ]);
    let factor = |row: &Row| {
        let last = study.record.sizes.last() == Some(&row.size);
        let summary = study.table.plans.iter().find(|summary| summary.plan == row.plan);
        match summary.and_then(|summary| summary.label_factor.as_ref()) {
            Some(factor) if last => factor.to_string(),
            _ => String::new(),
        }
    };
    for row in &study.table.rows {
        table.add_row([
            row.size.to_string(),
            row.plan.clone(),
            row.accuracy.total.to_string(),
            row.auc.total.to_string(),
            row.rejection_50.to_string(),
            row.rejection_30.to_string(),
            row.error_reduction.as_ref().map_or(String::new(), ToString::to_string),
            summary(&row.epochs_to_scratch, 0),
            summary(&row.seconds_to_scratch, 1),
            factor(row),
        ]);
    }
    let [background, signal] = study.table.test_jets;
    format!(
        "{table}\n{} % CL over {} seeds and {background} {} + {signal} {} test jets. Rejection: background jets of each seed in round \
         brackets, > is a limit.\nError reduction is paired with scratch. Epochs and seconds until the validation AUC reaches scratch's \
         best at that size: median [range] over seeds.\nLabel factor: how many times fewer jets give scratch's AUC at the largest size.{}\n",
        format_level(study.table.level),
        study.record.seeds,
        study.record.target.classes[0],
        study.record.target.classes[1],
        scratch_note(&study.record),
    )
}

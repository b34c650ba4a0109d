//! The page of single runs, side by side: rejection, losses, scores, the table, provenance.

use std::path::PathBuf;

use jetgraft_report::figure::{
    self, EpochPoint, Loss, LossCurve, Roc as RocFigure, RocCurve, RocPoint, ScorePlan, Scores as ScoreFigure,
};
use jetgraft_report::page::{Block, Page, Section};
use jetgraft_report::plot::scale::Scale;
use jetgraft_report::plot::text::escape;
use jetgraft_report::table::{Cell, Column, Table};
use jetgraft_report::{Context, Estimate};
use jetgraft_stats::histogram::{Axis, Histogram};
use jetgraft_stats::rejection::{Rejection, RejectionEstimate};
use jetgraft_stats::roc::Roc;

use crate::cmd::evaluate::{self, Evaluation};
use crate::error::Result;
use crate::run_dir::{self, Run};
use crate::scores::{self, Binary};

/// Level of bands in figures.
const BAND_LEVEL: f64 = 0.68;
/// Bins of the score histograms.
const SCORE_BINS: usize = 25;

/// Composes the page of one or more runs.
///
/// # Errors
/// A folder that is no run or has no test predictions.
pub fn page(folders: &[PathBuf]) -> Result<Page> {
    let mut runs = Vec::new();
    for folder in folders {
        let run = run_dir::read(folder)?;
        let path = run.folder.join(run_dir::PREDICTIONS);
        runs.push((
            name(&run, folders.len() > 1),
            scores::read_binary(&path)?,
            evaluate::evaluate(&path, None)?,
            run,
        ));
    }
    let answer = runs
        .iter()
        .map(|(name, _, evaluation, _)| {
            format!(
                "\\bf{{{}}}: accuracy {}, AUC {}, 1/\\epsilon_{{B}} at \\epsilon_{{S}} = 0.5 of {}.",
                escape(name),
                evaluation.accuracy,
                evaluation.auc,
                evaluation.rejection_50
            )
        })
        .collect();
    let mut sections = vec![Section::new("Rejection", vec![Block::Figure(roc_figure(&runs)?)])];
    if let Some(figure) = loss_figure(&runs)? {
        sections.push(Section::new("Training", vec![Block::Figure(figure)]));
    }
    sections.push(Section::new("Scores", vec![Block::Figure(score_figure(&runs)?)]));
    sections.push(Section::new("Results", vec![Block::Table(table(&runs))]));
    sections.push(Section::new("Provenance", provenance(&runs)));
    let first = &runs[0].3;
    Ok(Page {
        title: if runs.len() == 1 { first.record.title.clone() } else { format!("{} runs", runs.len()) },
        subtitle: format!("{} against {}", escape(&runs[0].1.classes[1]), escape(&runs[0].1.classes[0])),
        answer,
        numbers: Vec::new(),
        sections,
        footer: escape(&run_dir::version()),
    })
}

type Shown = (String, Binary, Evaluation, Run);

/// Runs of one study share a name: then the plan, size and seed tell them apart.
fn name(run: &Run, several: bool) -> String {
    if several {
        format!("{}, {} jets, seed {}", run.record.plan, run.record.size, run.record.seed)
    } else {
        run.record.name.clone()
    }
}

fn context(runs: &[Shown]) -> Context {
    let jets = &runs[0].3.card.jets;
    let cut = jets.pt_min_gev.map_or(String::new(), |low| format!(", \\it{{p}}_{{T}} > {low} GeV"));
    Context {
        data: "test jets".into(),
        selection: vec![format!("{} \\it{{R}} = {:.1}{cut}", escape(&jets.algorithm), jets.radius)],
    }
}

fn roc_figure(runs: &[Shown]) -> Result<jetgraft_report::Figure> {
    let mut curves = Vec::new();
    for (name, scores, evaluation, _) in runs {
        let roc = Roc::new(&scores.signal, &scores.labels)?;
        let mut points = Vec::new();
        for step in 1..=47 {
            let signal_efficiency = (0.04 + 0.02 * f64::from(step)).min(1.0);
            let at = Rejection::at(&roc, signal_efficiency, BAND_LEVEL)?;
            let rejection = match &at.estimate {
                RejectionEstimate::Measured { interval } => {
                    Estimate::new(interval.value, interval.low, interval.high)
                }
                RejectionEstimate::LowerLimit { limit, .. } => Estimate::new(*limit, *limit, f64::INFINITY),
            };
            points.push(RocPoint {
                signal_efficiency,
                rejection,
                n_background: at.background_count as f64,
                ratio: None,
            });
        }
        let auc = &evaluation.auc;
        curves.push(RocCurve {
            plan: name.clone(),
            points,
            auc: Some(Estimate::new(auc.value, auc.low, auc.high)),
        });
    }
    let [n_background, n_signal] = runs[0].2.jets;
    Ok(figure::roc(&RocFigure {
        context: context(runs),
        target_size: None,
        reference: (runs.len() > 1).then(|| runs[0].0.clone()),
        curves,
        level: BAND_LEVEL,
        over: "the test jets".into(),
        n_signal,
        n_background,
        min_background: 10.0,
        working_points: crate::analysis::SIGNAL_EFFICIENCIES.to_vec(),
        caption: None,
    })?)
}

fn loss_figure(runs: &[Shown]) -> Result<Option<jetgraft_report::Figure>> {
    let exact = |epoch: f64, loss: f64| EpochPoint { epoch, loss: Estimate::new(loss, loss, loss) };
    let curves: Vec<LossCurve> = runs
        .iter()
        .filter(|(_, _, _, run)| !run.log.is_empty())
        .map(|(name, _, _, run)| LossCurve {
            plan: name.clone(),
            training: run.log.iter().map(|record| exact(record.epoch, record.training_loss)).collect(),
            validation: run.log.iter().map(|record| exact(record.epoch, record.validation.loss)).collect(),
            chosen_epoch: run.record.chosen.as_ref().map(|chosen| chosen.epoch),
        })
        .collect();
    if curves.is_empty() {
        return Ok(None);
    }
    Ok(Some(figure::loss(&Loss {
        context: context(runs),
        curves,
        title: "cross-entropy".into(),
        scale: Scale::Linear,
        target_size: None,
        level: BAND_LEVEL,
        over: "one run each".into(),
        caption: None,
    })?))
}

fn score_figure(runs: &[Shown]) -> Result<jetgraft_report::Figure> {
    let axis = Axis::regular(SCORE_BINS, 0.0, 1.0 + 1e-9)?;
    let plans = runs
        .iter()
        .map(|(name, scores, _, _)| {
            let counts = |wanted: bool| {
                let mut histogram = Histogram::new(axis.clone());
                let class = scores.signal.iter().zip(&scores.labels).filter(|(_, signal)| **signal == wanted);
                histogram.fill_all(&class.map(|(score, _)| *score).collect::<Vec<f64>>());
                histogram.sums()
            };
            ScorePlan { plan: name.clone(), signal: counts(true), background: counts(false), auc: None }
        })
        .collect();
    Ok(figure::scores(&ScoreFigure {
        context: context(runs),
        edges: (0..=SCORE_BINS).map(|bin| bin as f64 / SCORE_BINS as f64).collect(),
        plans,
        signal: runs[0].1.classes[1].clone(),
        background: runs[0].1.classes[0].clone(),
        scale: Scale::Log,
        caption: None,
    })?)
}

fn table(runs: &[Shown]) -> Table {
    let mut table = Table::new("results", "Test performance with 95 % intervals over the test jets.");
    table.columns = vec![
        Column::text("run"),
        Column::number("accuracy"),
        Column::number("AUC"),
        Column::number("1/\\epsilon_{B} at \\epsilon_{S} = 0.5"),
        Column::number("1/\\epsilon_{B} at \\epsilon_{S} = 0.3"),
        Column::number("seconds"),
    ];
    for (name, _, evaluation, run) in runs {
        table.push(vec![
            Cell::text(name.clone()),
            Cell::text(evaluation.accuracy.to_string()),
            Cell::text(evaluation.auc.to_string()),
            Cell::text(evaluation.rejection_50.to_string()),
            Cell::text(evaluation.rejection_30.to_string()),
            Cell::number(run.record.seconds, 1),
        ]);
    }
    let [background, signal] = runs[0].2.jets;
    table.notes = vec![format!(
        "n = {background} {} and {signal} {} jets. Accuracy: Clopper-Pearson; AUC: DeLong; rejection with its background count.",
        escape(&runs[0].1.classes[0]),
        escape(&runs[0].1.classes[1])
    )];
    table
}

fn provenance(runs: &[Shown]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (name, _, _, run) in runs {
        let record = &run.record;
        let mut facts = vec![
            ("run".to_string(), name.clone()),
            ("program".to_string(), record.version.clone()),
            ("seed".to_string(), record.seed.to_string()),
            (
                "parameters".to_string(),
                format!("{} of {} learnt", record.trained_parameters, record.parameters),
            ),
            ("weights (BLAKE3)".to_string(), run.card.weights.clone()),
            ("machine".to_string(), record.machine.clone()),
        ];
        if let Some(task) = &record.task {
            facts.push(("ledger".into(), task.ledger.to_string()));
            for file in &task.manifest.files {
                facts.push(("file".into(), format!("{}, BLAKE3 {}", file.path.display(), file.blake3)));
            }
        }
        blocks.push(Block::Facts(facts));
        if let Some(graft) = &run.graft {
            blocks.push(Block::Folded {
                summary: "Graft report".into(),
                blocks: vec![Block::Code { caption: escape(name), text: graft.to_string() }],
            });
        }
    }
    blocks
}

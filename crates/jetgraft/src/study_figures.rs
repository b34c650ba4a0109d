//! The figures of a study: what its cells and table mean as typed inputs of the report crate.

use jetgraft_report::figure::{
    self, DataEfficiency, EpochPoint, Loss, LossCurve, LundClass, LundPlane, LundRatio, MassCut,
    MassSculpting, Metric, MetricPanel, PlanCurve, Reference, Roc as RocFigure, RocCurve, RocPoint,
    ScorePlan, Scores as ScoreFigure, SizePoint,
};
use jetgraft_report::plot::scale::Scale;
use jetgraft_report::plot::text::escape;
use jetgraft_report::{Context, Estimate, Figure};
use jetgraft_stats::bootstrap::Bootstrap;
use jetgraft_stats::distance::jensen_shannon_subset;
use jetgraft_stats::histogram::{Axis, Histogram};
use jetgraft_stats::interval::Interval;
use jetgraft_stats::rejection::{Rejection, SeedRejection, SeedRejectionEstimate};
use jetgraft_stats::roc::{Roc, auc_over_seeds};
use jetgraft_stats::seeds::mean_interval;

use crate::analysis::Cell;
use crate::error::Result;
use crate::study_folder::{LundPlanes, Study};

/// Fewer background jets than this behind a point of a ROC curve, and it is drawn faded.
const FEW_BACKGROUND_JETS: f64 = 10.0;
/// Bins of the score histograms.
const SCORE_BINS: usize = 25;
/// Signal efficiency of the cut whose sculpting is shown.
const CUT_EFFICIENCY: f64 = 0.5;
/// Jet-mass axis, GeV.
const MASS_GEV: (usize, f64, f64) = (15, 0.0, 300.0);

/// All figures, the answer first.
///
/// # Errors
/// An incomplete study.
pub fn all(study: &Study) -> Result<StudyFigures> {
    let (smallest, largest) = (study.record.sizes[0], study.record.sizes[study.record.sizes.len() - 1]);
    let mut roc = vec![roc_figure(study, smallest)?];
    let mut loss = vec![loss_figure(study, smallest)?];
    if largest != smallest {
        roc.push(roc_figure(study, largest)?);
        loss.push(loss_figure(study, largest)?);
    }
    Ok(StudyFigures {
        data_efficiency: data_efficiency(study)?,
        roc,
        loss,
        scores: score_figure(study, largest)?,
        lund_plane: study.lund_plane.as_ref().map(|plane| lund_plane(study, plane)).transpose()?,
        mass_sculpting: mass_sculpting(study, largest)?,
    })
}

/// Figures of a study by kind.
#[derive(Debug, Clone)]
pub struct StudyFigures {
    /// Scores against target size.
    pub data_efficiency: Figure,
    /// 1/eps_B against eps_S, smallest and largest size.
    pub roc: Vec<Figure>,
    /// Losses against epoch, smallest and largest size.
    pub loss: Vec<Figure>,
    /// Score histograms at the largest size.
    pub scores: Figure,
    /// Lund-plane density per class, where the networks read trees of declusterings.
    pub lund_plane: Option<Figure>,
    /// Background mass before and after the cut at the largest size.
    pub mass_sculpting: Figure,
}

fn context(study: &Study) -> Context {
    let jets = &study.record.target.jets;
    let mut line = format!("{} \\it{{R}} = {:.1}", escape(&jets.algorithm), jets.radius);
    match (jets.pt_min_gev, jets.pt_max_gev) {
        (Some(low), None) => line += &format!(", \\it{{p}}_{{T}} > {low} GeV"),
        (None, Some(high)) => line += &format!(", \\it{{p}}_{{T}} < {high} GeV"),
        (Some(low), Some(high)) => line += &format!(", {low} < \\it{{p}}_{{T}} < {high} GeV"),
        (None, None) => {}
    }
    let selection = vec![line];
    Context { data: study.record.data_label.clone(), selection }
}

fn estimate(interval: &Interval) -> Estimate {
    Estimate::new(interval.value, interval.low, interval.high)
}

fn rejection(rejection: &SeedRejection) -> Estimate {
    match &rejection.estimate {
        SeedRejectionEstimate::Measured { parts } => estimate(&parts.total),
        SeedRejectionEstimate::LowerLimit { limit, .. } => Estimate::new(*limit, *limit, f64::INFINITY),
    }
}

fn over_seeds(study: &Study) -> String {
    format!("{} seeds and the test jets", study.record.seeds)
}

fn group<'a>(study: &'a Study, plan: &str, size: usize) -> Vec<&'a Cell> {
    let mut cells: Vec<&Cell> =
        study.cells.iter().filter(|cell| cell.plan == plan && cell.size == size).collect();
    cells.sort_by_key(|cell| cell.seed);
    cells
}

fn scores_of<'a>(cells: &[&'a Cell]) -> Vec<&'a [f64]> {
    cells.iter().map(|cell| cell.scores.as_slice()).collect()
}

fn data_efficiency(study: &Study) -> Result<Figure> {
    let level = study.record.statistics.band_level;
    let (mut auc, mut rejections) = (Vec::new(), Vec::new());
    for plan in &study.record.plans {
        let (mut auc_points, mut rejection_points) = (Vec::new(), Vec::new());
        for &size in &study.record.sizes {
            let cells = group(study, plan, size);
            let scores = scores_of(&cells);
            let target_size = size as f64;
            auc_points.push(SizePoint {
                target_size,
                score: estimate(&auc_over_seeds(&scores, &study.labels, level)?.total),
            });
            rejection_points.push(SizePoint {
                target_size,
                score: rejection(&SeedRejection::new(&scores, &study.labels, CUT_EFFICIENCY, level)?),
            });
        }
        auc.push(PlanCurve { plan: plan.clone(), points: auc_points, fit: Vec::new() });
        rejections.push(PlanCurve { plan: plan.clone(), points: rejection_points, fit: Vec::new() });
    }
    let (mut auc_reference, mut rejection_reference) = (None, None);
    if let Some(scores) = &study.source_scores {
        let roc = Roc::new(scores, &study.labels)?;
        let name = "source, untuned".to_string();
        auc_reference = Some(Reference { name: name.clone(), score: estimate(&roc.auc_interval(level)?) });
        let cut = Rejection::at(&roc, CUT_EFFICIENCY, level)?;
        rejection_reference =
            cut.estimate.interval().map(|interval| Reference { name, score: estimate(interval) });
    }
    let metric = Metric::Rejection { signal_efficiency: CUT_EFFICIENCY };
    let mut figure = figure::data_efficiency(&DataEfficiency {
        context: context(study),
        metrics: vec![
            MetricPanel { metric: Metric::Auc, plans: auc, reference: auc_reference },
            MetricPanel { metric, plans: rejections, reference: rejection_reference },
        ],
        level,
        over: over_seeds(study),
        n_test: study.labels.len() as u64,
        caption: None,
    })?;
    figure.title = "How many target jets does a score take?".into();
    Ok(figure)
}

fn roc_figure(study: &Study, size: usize) -> Result<Figure> {
    let level = study.record.statistics.band_level;
    let signal = study.labels.iter().filter(|signal| **signal).count() as u64;
    let mut curves = Vec::new();
    for plan in &study.record.plans {
        let cells = group(study, plan, size);
        let scores = scores_of(&cells);
        let mut points = Vec::new();
        // From 5 % on: below, the threshold itself hangs on a handful of signal jets.
        for step in 1..=48 {
            let signal_efficiency = 0.04 + 0.02 * f64::from(step);
            if signal_efficiency > 1.0 + 1e-9 {
                break;
            }
            let at = SeedRejection::new(&scores, &study.labels, signal_efficiency.min(1.0), level)?;
            let seeds = at.per_seed.len() as f64;
            points.push(RocPoint {
                signal_efficiency: signal_efficiency.min(1.0),
                rejection: rejection(&at),
                n_background: at.per_seed.iter().map(|one| one.background_count as f64).sum::<f64>() / seeds,
                ratio: None,
            });
        }
        curves.push(RocCurve {
            plan: plan.clone(),
            points,
            auc: Some(estimate(&auc_over_seeds(&scores, &study.labels, level)?.total)),
        });
    }
    let mut figure = figure::roc(&RocFigure {
        context: context(study),
        target_size: Some(size as u64),
        curves,
        reference: Some(study.record.scratch.clone()),
        level,
        over: over_seeds(study),
        n_signal: signal,
        n_background: study.labels.len() as u64 - signal,
        min_background: FEW_BACKGROUND_JETS,
        working_points: crate::analysis::SIGNAL_EFFICIENCIES.to_vec(),
        caption: None,
    })?;
    figure.id = format!("roc-n{size}");
    figure.title = format!("At {size} target jets");
    Ok(figure)
}

fn loss_figure(study: &Study, size: usize) -> Result<Figure> {
    let level = study.record.statistics.band_level;
    let mut curves = Vec::new();
    for plan in &study.record.plans {
        let histories: Vec<_> =
            study.histories.iter().filter(|h| h.plan == *plan && h.size == size).collect();
        let longest = histories.iter().map(|h| h.training.len()).max().unwrap_or(0);
        let mut curve = LossCurve {
            plan: plan.clone(),
            training: Vec::new(),
            validation: Vec::new(),
            chosen_epoch: None,
        };
        for evaluation in 0..longest {
            for (points, column) in [(&mut curve.training, true), (&mut curve.validation, false)] {
                let values: Vec<f64> = histories
                    .iter()
                    .filter_map(|h| {
                        if column { h.training.get(evaluation) } else { h.validation.get(evaluation) }
                            .copied()
                    })
                    .collect();
                // A mean over the seeds that are still training would jump when one stops: the curve ends instead.
                if values.len() < histories.len() {
                    continue;
                }
                let loss = match mean_interval(&values, level) {
                    Ok(interval) => estimate(&interval),
                    Err(_) => Estimate::new(values[0], values[0], values[0]),
                };
                // All cells of a size evaluate after the same number of steps.
                let epoch = histories.first().and_then(|h| h.epochs.get(evaluation)).copied().unwrap_or(0.0);
                points.push(EpochPoint { epoch, loss });
            }
        }
        let chosen: Vec<f64> = histories.iter().map(|h| h.chosen_epoch).collect();
        if !chosen.is_empty() {
            curve.chosen_epoch = Some(chosen.iter().sum::<f64>() / chosen.len() as f64);
        }
        curves.push(curve);
    }
    let mut figure = figure::loss(&Loss {
        context: context(study),
        curves,
        title: "cross-entropy".into(),
        scale: Scale::Linear,
        target_size: Some(size as u64),
        level,
        over: format!("{} seeds", study.record.seeds),
        caption: None,
    })?;
    figure.id = format!("loss-n{size}");
    figure.title = format!("At {size} target jets");
    Ok(figure)
}

fn score_figure(study: &Study, size: usize) -> Result<Figure> {
    let axis = Axis::regular(SCORE_BINS, 0.0, 1.0 + 1e-9)?;
    let mut plans = Vec::new();
    for plan in &study.record.plans {
        let cells = group(study, plan, size);
        let scores = scores_of(&cells);
        let histogram = |wanted: bool| {
            let mut histogram = Histogram::new(axis.clone());
            for scores in &scores {
                for (score, _) in scores.iter().zip(&study.labels).filter(|(_, signal)| **signal == wanted) {
                    // The mean of the seeds, so that the count is that of the jets.
                    histogram.fill(*score, 1.0 / scores_len(&cells));
                }
            }
            histogram.sums()
        };
        plans.push(ScorePlan {
            plan: plan.clone(),
            signal: histogram(true),
            background: histogram(false),
            auc: Some(estimate(
                &auc_over_seeds(&scores, &study.labels, study.record.statistics.band_level)?.total,
            )),
        });
    }
    let mut figure = figure::scores(&ScoreFigure {
        context: context(study),
        edges: (0..=SCORE_BINS).map(|bin| bin as f64 / SCORE_BINS as f64).collect(),
        plans,
        signal: study.record.target.classes[1].clone(),
        background: study.record.target.classes[0].clone(),
        scale: Scale::Log,
        caption: None,
    })?;
    figure.title = format!("At {size} target jets");
    Ok(figure)
}

fn scores_len(cells: &[&Cell]) -> f64 {
    cells.len().max(1) as f64
}

fn lund_plane(study: &Study, plane: &LundPlanes) -> Result<Figure> {
    let names = &study.record.target.classes;
    let mut figure = figure::lund_plane(&LundPlane {
        context: context(study),
        x_edges: plane.ln_inverse_delta_edges.clone(),
        y_edges: plane.ln_kt_edges.clone(),
        classes: plane
            .classes
            .iter()
            .map(|class| LundClass {
                name: class.name.clone(),
                emissions: class.emissions.clone(),
                jets: class.jets,
            })
            .collect(),
        ratio: Some(LundRatio {
            numerator: names[1].clone(),
            denominator: names[0].clone(),
            min_emissions: 10,
        }),
        emissions: "declusterings of all Lund planes of the jet".into(),
        caption: None,
    })?;
    figure.title = "Where the classes split".into();
    Ok(figure)
}

fn mass_sculpting(study: &Study, size: usize) -> Result<Figure> {
    let (bins, low, high) = MASS_GEV;
    let axis = Axis::regular(bins, low, high)?;
    let bootstrap = Bootstrap {
        replicates: study.record.statistics.replicates,
        seed: study.record.seed,
        level: study.record.statistics.level,
        ..Bootstrap::default()
    };
    let mut before = Histogram::new(axis.clone());
    for (mass, _) in study.jet_mass_gev.iter().zip(&study.labels).filter(|(_, signal)| !**signal) {
        before.fill(*mass, 1.0);
    }
    let mut cuts = Vec::new();
    for plan in &study.record.plans {
        // One network makes one cut: that of the first seed.
        let Some(cell) = group(study, plan, size).first().copied() else { continue };
        let threshold =
            Rejection::at(&Roc::new(&cell.scores, &study.labels)?, CUT_EFFICIENCY, bootstrap.level)?
                .threshold;
        let mut after = Histogram::new(axis.clone());
        for ((mass, signal), score) in study.jet_mass_gev.iter().zip(&study.labels).zip(&cell.scores) {
            if !signal && *score >= threshold {
                after.fill(*mass, 1.0);
            }
        }
        if after.total() <= 0.0 {
            continue;
        }
        let distance = jensen_shannon_subset(&before, &after, &bootstrap)?.distance;
        cuts.push(MassCut { plan: plan.clone(), after: after.sums(), js_distance: estimate(&distance) });
    }
    let mut figure = figure::mass_sculpting(&MassSculpting {
        context: context(study),
        edges: axis.edges().to_vec(),
        before: before.sums(),
        cuts,
        signal_efficiency: CUT_EFFICIENCY,
        background: study.record.target.classes[0].clone(),
        target_size: Some(size as u64),
        caption: None,
    })?;
    figure.title = "Background before and after the cut".into();
    Ok(figure)
}

//! Inputs that look like a study, drawn from closed formulas and a seeded generator: no physics, just shapes.

use jetgraft_report::figure::*;
use jetgraft_report::plot::scale::Scale;
use jetgraft_report::table::{Cell, Column};
use jetgraft_report::{Block, KeyNumber, Page, ReportError, Section, Table};

pub const PLANS: [&str; 3] = ["scratch", "fine-tune", "frozen"];
/// Separation of the classes for each plan.
const POWER: [f64; 3] = [3.9, 4.5, 4.15];

/// A small generator with normal deviates.
pub struct Toys(pub u64);

impl Toys {
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn logistic(&mut self) -> f64 {
        let u = self.uniform();
        (u / (1.0 - u)).ln()
    }
}

pub fn context() -> Context {
    Context {
        data: "simulation, 13 TeV".into(),
        selection: vec!["anti-\\it{k}_{t} \\it{R} = 1.0, \\it{p}_{T} > 500 GeV".into()],
    }
}

fn around(value: f64, width: f64) -> Estimate {
    Estimate::new(value, value - width, value + width)
}

pub fn data_efficiency_input() -> DataEfficiency {
    let sizes = [300.0, 1000.0, 3000.0, 10_000.0];
    let curves = |score: &dyn Fn(usize, f64) -> (f64, f64)| {
        let mut toys = Toys(5);
        PLANS
            .iter()
            .enumerate()
            .map(|(k, plan)| PlanCurve {
                plan: (*plan).into(),
                points: sizes
                    .iter()
                    .map(|n| {
                        let (value, width) = score(k, *n);
                        SizePoint {
                            target_size: *n,
                            score: around(value + 0.25 * width * toys.normal(), width),
                        }
                    })
                    .collect(),
                fit: (0..=60)
                    .map(|i| 300.0 * (10_000.0f64 / 300.0).powf(f64::from(i) / 60.0))
                    .map(|n| (n, score(k, n).0))
                    .collect(),
            })
            .collect::<Vec<_>>()
    };
    let auc = |k: usize, n: f64| {
        let (floor, a, b) = [(0.975, 3.2, 0.62), (0.978, 0.35, 0.45), (0.964, 0.10, 0.35)][k];
        (floor - a * f64::powf(n, -b), 0.25 * f64::powf(n, -0.55))
    };
    let rejection = |k: usize, n: f64| {
        let value = 0.9 / (1.0 - auc(k, n).0).powf(1.35);
        (value, value * 3.0 * f64::powf(n, -0.5))
    };
    let accuracy = |k: usize, n: f64| (auc(k, n).0 - 0.05, auc(k, n).1 * 1.1);
    DataEfficiency {
        context: context(),
        metrics: vec![
            MetricPanel {
                metric: Metric::Auc,
                plans: curves(&auc),
                reference: Some(Reference {
                    name: "source, untuned".into(),
                    score: Estimate::new(0.894, 0.891, 0.897),
                }),
            },
            MetricPanel {
                metric: Metric::Rejection { signal_efficiency: 0.5 },
                plans: curves(&rejection),
                reference: None,
            },
            MetricPanel { metric: Metric::Accuracy, plans: curves(&accuracy), reference: None },
        ],
        level: 0.68,
        over: "5 seeds".into(),
        n_test: 20_000,
        caption: None,
    }
}

pub fn roc_input() -> Roc {
    let n_background = 10_000.0;
    let curve = |k: usize| RocCurve {
        plan: PLANS[k].into(),
        points: (10..=99)
            .map(|i| {
                let eps = f64::from(i) / 100.0;
                let rejection = 1.0 + ((POWER[k] - (eps / (1.0 - eps)).ln()) * 1.05).exp();
                let n = n_background / rejection;
                let width = (1.0 / n + 0.03f64.powi(2)).sqrt();
                RocPoint {
                    signal_efficiency: eps,
                    rejection: Estimate::new(rejection, rejection * (-width).exp(), rejection * width.exp()),
                    n_background: n,
                    ratio: None,
                }
            })
            .collect(),
        auc: Some(around([0.941, 0.962, 0.951][k], 0.003)),
    };
    Roc {
        context: context(),
        target_size: Some(1000),
        curves: (0..3).map(curve).collect(),
        reference: Some("scratch".into()),
        level: 0.68,
        over: "5 seeds".into(),
        n_signal: 10_000,
        n_background: 10_000,
        min_background: 10.0,
        working_points: vec![0.3, 0.5],
        caption: None,
    }
}

pub fn loss_input() -> Loss {
    let mut toys = Toys(9);
    let curves = (0..3)
        .map(|k| {
            let (start, floor, rate, overfit, epochs) = [
                (0.62, 0.27, 0.22, 0.006, 30),
                (0.45, 0.235, 0.35, 0.005, 22),
                (0.48, 0.262, 0.4, 0.0006, 26),
            ][k];
            let mut points = |over: f64, width: f64| {
                (1..=epochs)
                    .map(|e| {
                        let e = f64::from(e);
                        let value = floor
                            + (start - floor) * (-rate * e).exp()
                            + over * (e - 8.0).max(0.0)
                            + 0.002 * toys.normal();
                        EpochPoint { epoch: e, loss: around(value, width) }
                    })
                    .collect::<Vec<_>>()
            };
            LossCurve {
                plan: PLANS[k].into(),
                validation: points(overfit, 0.008),
                training: points(-overfit * 0.7, 0.004),
                chosen_epoch: Some([12.4, 8.2, 20.0][k]),
            }
        })
        .collect();
    Loss {
        context: context(),
        curves,
        title: "cross-entropy".into(),
        scale: Scale::Linear,
        target_size: Some(1000),
        level: 0.68,
        over: "5 seeds".into(),
        caption: None,
    }
}

pub fn scores_input() -> Scores {
    let bins = 40;
    let edges: Vec<f64> = (0..=bins).map(|i| f64::from(i) / f64::from(bins)).collect();
    let mut toys = Toys(11);
    let mut fill = |shift: f64| {
        let mut counts = vec![0.0; bins as usize];
        for _ in 0..10_000 {
            let score = 1.0 / (1.0 + (-(toys.logistic() * 1.2 + shift)).exp());
            counts[((score * f64::from(bins)) as usize).min(bins as usize - 1)] += 1.0;
        }
        counts
    };
    let plans = (0..3)
        .map(|k| ScorePlan {
            plan: PLANS[k].into(),
            signal: fill(POWER[k] / 2.0),
            background: fill(-POWER[k] / 2.0),
            auc: Some(around([0.941, 0.962, 0.951][k], 0.003)),
        })
        .collect();
    Scores {
        context: context(),
        edges,
        plans,
        signal: "top".into(),
        background: "QCD".into(),
        scale: Scale::Log,
        caption: None,
    }
}

pub fn lund_input() -> LundPlane {
    let (n_x, n_y) = (36usize, 36usize);
    let (x_low, x_high, y_low, y_high) = (0.0, 5.0, -2.0, 6.0);
    let edge = |low: f64, high: f64, n: usize| {
        (0..=n).map(|i| low + (high - low) * i as f64 / n as f64).collect::<Vec<_>>()
    };
    let mut toys = Toys(21);
    let jets = 6000;
    let mut fill = |ridge: f64| {
        let mut cells = vec![0.0; n_x * n_y];
        let mut put = |x: f64, y: f64| {
            let (i, j) = ((x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low));
            if (0.0..1.0).contains(&i) && (0.0..1.0).contains(&j) && y < 5.6 - x {
                cells[(j * n_y as f64) as usize * n_x + (i * n_x as f64) as usize] += 1.0;
            }
        };
        for _ in 0..jets {
            for _ in 0..9 {
                let (x, y) = (toys.uniform() * 5.0, -2.0 + 8.0 * toys.uniform());
                // The coupling runs: denser towards low kt.
                if toys.uniform() < 1.0 / (1.0 + 0.25 * (y + 2.0)) {
                    put(x, y);
                }
            }
            if toys.uniform() < ridge {
                put(0.55 + 0.25 * toys.normal(), 4.1 + 0.35 * toys.normal());
                put(1.1 + 0.35 * toys.normal(), 3.4 + 0.45 * toys.normal());
            }
        }
        cells
    };
    LundPlane {
        context: context(),
        x_edges: edge(x_low, x_high, n_x),
        y_edges: edge(y_low, y_high, n_y),
        classes: vec![
            LundClass { name: "QCD".into(), emissions: fill(0.0), jets },
            LundClass { name: "top".into(), emissions: fill(0.85), jets },
        ],
        ratio: Some(LundRatio { numerator: "top".into(), denominator: "QCD".into(), min_emissions: 10 }),
        emissions: "primary declusterings".into(),
        caption: None,
    }
}

pub fn mass_input() -> MassSculpting {
    let edges: Vec<f64> = (0..=30).map(|i| 10.0 * f64::from(i)).collect();
    let mut toys = Toys(33);
    let mut before = vec![0.0; 30];
    let mut after = vec![vec![0.0; 30]; 3];
    for _ in 0..10_000 {
        let mass = 55.0 * (0.55 * toys.normal() + 0.35).exp();
        let bin = (mass / 10.0) as usize;
        if bin >= 30 {
            continue;
        }
        before[bin] += 1.0;
        for (k, cut) in after.iter_mut().enumerate() {
            let bump = (-0.5 * ((mass - 172.0) / 28.0f64).powi(2)).exp();
            if toys.uniform() < [0.03, 0.012, 0.02][k] + [0.22, 0.3, 0.25][k] * bump {
                cut[bin] += 1.0;
            }
        }
    }
    MassSculpting {
        context: context(),
        edges,
        before,
        cuts: (0..3)
            .map(|k| MassCut {
                plan: PLANS[k].into(),
                after: after[k].clone(),
                js_distance: around([0.412, 0.523, 0.466][k], 0.021),
            })
            .collect(),
        signal_efficiency: 0.5,
        background: "QCD".into(),
        target_size: Some(1000),
        caption: None,
    }
}

fn results_table() -> Table {
    let mut table = Table::new(
        "scores-table",
        "Scores on the same 20,000 test jets; intervals are 68 % over 5 seeds, \\it{n} is the mean number of background jets above the threshold.",
    );
    table.columns = vec![
        Column::text("plan"),
        Column::number("accuracy"),
        Column::number("AUC"),
        Column::number("1/\\epsilon_{B} at \\epsilon_{S} = 0.5"),
        Column::number("\\it{n}"),
        Column::number("1/\\epsilon_{B} at \\epsilon_{S} = 0.3"),
        Column::number("\\it{n}"),
    ];
    for (size, lift) in [(300u64, 0.0), (1000, 0.02), (10_000, 0.04)] {
        for (k, plan) in PLANS.iter().enumerate() {
            let auc = 0.90 + lift + [0.0, 0.018, 0.009][k];
            let rejection = 40.0 + 900.0 * lift + [0.0, 31.0, 14.0][k];
            let limit = size == 10_000 && k == 1;
            let high = if limit {
                Estimate::new(f64::INFINITY, 812.0, f64::INFINITY)
            } else {
                Estimate::new(rejection * 4.4, rejection * 3.9, rejection * 5.1)
            };
            table.push_in(
                format!("{} target jets", count(size)),
                vec![
                    Cell::text(*plan),
                    Cell::estimate(around(auc - 0.05, 0.004), 3),
                    Cell::estimate(around(auc, 0.003), 3),
                    Cell::estimate(around(rejection, 3.1), 1),
                    Cell::number(10_000.0 / rejection, 0),
                    Cell::estimate(high, 0),
                    Cell::number(if limit { 0.0 } else { 10_000.0 / high.value }, 0),
                ],
            );
            if let Some(row) = table.rows.last_mut() {
                row.strong = k == 1;
            }
        }
    }
    table.notes = vec!["> marks a one-sided limit at 68 %: no background jet passed.".into()];
    table
}

pub fn figures() -> Result<Vec<Figure>, ReportError> {
    Ok(vec![
        data_efficiency(&data_efficiency_input())?,
        roc(&roc_input())?,
        loss(&loss_input())?,
        scores(&scores_input())?,
        lund_plane(&lund_input())?,
        mass_sculpting(&mass_input())?,
    ])
}

pub fn page() -> Result<Page, ReportError> {
    let mut figures = figures()?.into_iter().map(Block::Figure).collect::<Vec<_>>();
    let rest = figures.split_off(1);
    let mut first = figures;
    first.push(Block::Table(results_table()));
    Ok(Page {
        title: "LundNet, from W jets to top jets".into(),
        subtitle: "Gallery of synthetic figures: shapes only, no physics".into(),
        answer: vec![
            "With 1,000 labelled target jets the grafted network reaches AUC \\bf{0.938} [0.935, 0.941], training from scratch 0.920 [0.917, 0.923].".into(),
            "Scratch training needs \\bf{3.1 times} [2.6, 3.8] as many labels for the same AUC; the paired error reduction is 22 % [18 %, 26 %].".into(),
        ],
        numbers: vec![
            KeyNumber { value: "3.1 ×".into(), label: "fewer labels for the scratch score".into(), note: "[2.6, 3.8], 68 % over seeds".into() },
            KeyNumber { value: "22 %".into(), label: "fewer errors at 1,000 jets".into(), note: "[18 %, 26 %], paired".into() },
            KeyNumber { value: "71.2".into(), label: "1/\\epsilon_{B} at \\epsilon_{S} = 0.5".into(), note: "scratch 58.0 [54.9, 61.1]".into() },
            KeyNumber { value: "48 s".into(), label: "to the scratch score".into(), note: "scratch 131 s, two cores".into() },
        ],
        sections: vec![
            Section::new("Result", first),
            Section::new("Figures", rest),
            Section::new(
                "Provenance",
                vec![
                    Block::Facts(vec![
                        ("data".into(), "samples/jets.parquet, 30,000 jets (QCD, W, top)".into()),
                        ("digest".into(), "blake3 9f2c1b7a6d5e4f30112233445566778899aabbccddeeff00112233445566aa77".into()),
                        ("jets".into(), "anti-kt R = 1.0, reclustered with Cambridge/Aachen".into()),
                        ("ledger".into(), "read 30,000 = used 29,412 + dropped 588 (no declustering above the cut: 588)".into()),
                        ("split".into(), "by hash of the event id: 60 % training, 20 % validation, 20 % test".into()),
                        ("seeds".into(), "5 for each plan and size, subsets disjoint between seeds".into()),
                    ]),
                    Block::Folded {
                        summary: "Recipe as resolved".into(),
                        blocks: vec![Block::Code {
                            caption: String::new(),
                            text: "[study]\nsizes = [300, 1000, 10000]\nplans = [\"scratch\", \"fine-tune\", \"frozen\"]\nseeds = 5\n".into(),
                        }],
                    },
                    Block::Code { caption: "Run it again:".into(), text: "jetgraft study recipe.toml --out runs/again".into() },
                ],
            ),
        ],
        footer: "Written by jetgraft 0.1.0. Figures: SVG and PNG beside this page.".into(),
    })
}

/// The same figures where they are hard to draw: many plans with long names, few jets, limits, one target size, one seed.
pub fn hard_page() -> Result<Page, ReportError> {
    const MANY: [&str; 7] = [
        "scratch",
        "fine-tune",
        "frozen",
        "partial, first 3 stages frozen",
        "linear probe",
        "layer-wise decay",
        "from <published> weights_{v2}",
    ];
    let limit = |low: f64| Estimate::new(f64::INFINITY, low, f64::INFINITY);
    let mut efficiency = data_efficiency_input();
    for metric in &mut efficiency.metrics {
        let curves = metric.plans.clone();
        metric.plans = MANY
            .iter()
            .enumerate()
            .map(|(k, plan)| {
                let mut curve = curves[k % 3].clone();
                curve.plan = (*plan).into();
                for point in &mut curve.points {
                    let e = &mut point.score;
                    let shift = 0.004 * k as f64 * e.value;
                    *e = Estimate::new(e.value - shift, e.low - shift, e.high - shift);
                }
                curve.fit.clear();
                curve
            })
            .collect();
    }
    efficiency.metrics[1].plans[1].points[3].score = limit(95.0);
    let one_size = |metric: &mut MetricPanel| metric.plans.iter_mut().for_each(|p| p.points.truncate(1));
    one_size(&mut efficiency.metrics[2]);
    let mut fourth = efficiency.metrics[1].clone();
    one_size(&mut fourth);
    fourth.plans[2].points[0].score = limit(30.0);
    efficiency.metrics.push(fourth);

    let mut small_roc = roc_input();
    small_roc.n_background = 300;
    for (curve, k) in small_roc.curves.iter_mut().zip(0..) {
        curve.points.iter_mut().for_each(|p| {
            p.n_background = (300.0 / p.rejection.value).floor();
            let n = p.n_background;
            p.rejection = if n < 1.0 {
                limit(163.0)
            } else {
                let (value, width) = (300.0 / n, 1.0 / n.sqrt());
                Estimate::new(value, value * (-width).exp(), value * width.exp())
            };
        });
        curve.plan = MANY[k + 3].into();
    }
    small_roc.reference = Some(MANY[3].into());
    let mut short = loss_input();
    short.scale = Scale::Log;
    for curve in &mut short.curves {
        curve.training.truncate(3);
        curve.validation.truncate(3);
        curve.chosen_epoch = Some(2.0);
    }
    let mut few = scores_input();
    for plan in &mut few.plans {
        plan.signal.iter_mut().chain(&mut plan.background).for_each(|n| *n = (*n / 90.0).floor());
    }
    few.plans.truncate(2);
    let mut mass = mass_input();
    mass.before.iter_mut().for_each(|n| *n = (*n / 40.0).floor());
    mass.cuts.iter_mut().flat_map(|c| &mut c.after).for_each(|n| *n = (*n / 20.0).floor());
    let mut lund = lund_input();
    lund.classes.iter_mut().flat_map(|c| &mut c.emissions).for_each(|n| *n = (*n / 8.0).floor());
    lund.ratio = None;
    let figures = [
        data_efficiency(&efficiency)?,
        roc(&small_roc)?,
        loss(&short)?,
        scores(&few)?,
        lund_plane(&lund)?,
        mass_sculpting(&mass)?,
    ];
    Ok(Page {
        title: "Awkward cases".into(),
        answer: vec!["Nothing here is well measured: no significant gain.".into()],
        sections: vec![Section::new("Figures", figures.into_iter().map(Block::Figure).collect())],
        ..Page::default()
    })
}

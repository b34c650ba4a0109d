//! The loop on a network of its own and on a small LundNet: golden losses, thread counts, frozen parts, caches,
//! early stopping, numbers that are not numbers.

#![allow(clippy::unwrap_used)] // Also in helpers, where the workspace's rule for tests does not reach.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Device;
use common::{Tiny, WIDTH, jets, job, plan_for, same_bits};
use jetgraft_data::{GraphSet, LastBatch};
use jetgraft_learn::LearnError;
use jetgraft_learn::evaluate::evaluate;
use jetgraft_learn::graft::{GraftAllow, graft};
use jetgraft_learn::observer::{Observer, Outline, Signal, Silent, StepEvent};
use jetgraft_learn::plan::Plan;
use jetgraft_learn::predict::logits;
use jetgraft_learn::record::{End, Record};
use jetgraft_learn::step::{Cause, Quantity};
use jetgraft_learn::trainer::{Choose, EarlyStopping, Job, Metric, Span, TrainOptions, Trained, train};
use jetgraft_nn::contract::Backbone;
use jetgraft_nn::models::lundnet::{LundNet, LundNetConfig};
use jetgraft_nn::state::{State, load_state, state};

fn options() -> TrainOptions {
    TrainOptions {
        batch_size: 16,
        evaluation_batch_size: 25,
        budget: Span::Epochs(2),
        learning_rate: 1e-2,
        ..TrainOptions::default()
    }
}

/// Collects what it is told.
#[derive(Default)]
struct Notes {
    losses: Vec<f64>,
    rates: Vec<f64>,
    records: Vec<Record>,
    phases: Vec<(String, usize)>,
    outline: Option<Outline>,
}

impl Observer for Notes {
    fn started(&mut self, outline: &Outline) {
        self.outline = Some(outline.clone());
    }
    fn phase(&mut self, name: &str, cached_stages: usize) {
        self.phases.push((name.to_owned(), cached_stages));
    }
    fn step(&mut self, event: &StepEvent<'_>) -> Signal {
        self.losses.push(event.loss);
        self.rates.push(event.learning_rate);
        Signal::Continue
    }
    fn evaluated(&mut self, record: &Record) {
        self.records.push(record.clone());
    }
}

fn lundnet(device: &Device) -> LundNet {
    let config = LundNetConfig {
        input_features: 3,
        widths: vec![8, 8, 16],
        fusion: 24,
        head_hidden: 16,
        ..LundNetConfig::lundnet_3()
    };
    LundNet::new(&config, 5, device).unwrap()
}

/// `options()` with entries of a recipe's table in JSON.
fn table(text: &str) -> TrainOptions {
    let mut table = serde_json::to_value(options()).unwrap();
    let entries: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
    table.as_object_mut().unwrap().extend(entries);
    serde_json::from_value(table).unwrap()
}

fn run<B: Backbone>(model: &B, plan: &str, options: &TrainOptions) -> (Trained<B>, Notes) {
    let device = Device::flex();
    let plan = plan_for(model, plan);
    let mut notes = Notes::default();
    (train(job(model, &plan, options, &device), &mut notes).unwrap(), notes)
}

const SCRATCH: &str = r#"{"kind": "scratch"}"#;

/// Ten steps. A change that is meant to leave results alone leaves these numbers alone; one that is meant to move
/// them says so in the changelog. The tolerance covers other instruction sets, whose products round differently.
#[test]
fn golden_losses() {
    let options = TrainOptions { budget: Span::Steps(10), ..options() };
    let check = |losses: &[f64], golden: [f64; 10]| {
        for (step, (found, expected)) in losses.iter().zip(golden).enumerate() {
            assert!(
                (found - expected).abs() < 2e-5,
                "step {step}: {found}, golden {expected}; all: {losses:?}"
            );
        }
        assert_eq!(losses.len(), 10);
    };
    check(&run(&Tiny::new(2, 3, &Device::flex()), SCRATCH, &options).1.losses, GOLDEN_TINY);
    check(&run(&lundnet(&Device::flex()), SCRATCH, &options).1.losses, GOLDEN_LUNDNET);
}

const GOLDEN_TINY: [f64; 10] = [
    0.7454181909561157,
    0.8249281644821167,
    0.6950604915618896,
    0.6938120126724243,
    0.730715811252594,
    0.6584188938140869,
    0.6972429156303406,
    0.687772274017334,
    0.5840250253677368,
    0.6110053062438965,
];
const GOLDEN_LUNDNET: [f64; 10] = [
    0.7175791263580322,
    0.6348520517349243,
    0.598386287689209,
    0.7015013098716736,
    0.560634970664978,
    0.7226529121398926,
    0.6452340483665466,
    0.5526025295257568,
    0.6181581020355225,
    0.5655573606491089,
];

#[test]
fn the_number_of_threads_changes_no_bit() {
    let train_with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let tiny = run(&Tiny::new(2, 3, &Device::flex()), SCRATCH, &options()).0;
            let lund = run(&lundnet(&Device::flex()), SCRATCH, &options()).0;
            // Wide enough that products are shared out.
            let wide = LundNet::new(&LundNetConfig::lundnet_3(), 5, &Device::flex()).unwrap();
            let options = TrainOptions { batch_size: 100, budget: Span::Steps(3), ..options() };
            let wide = run(&wide, SCRATCH, &options).0;
            [tiny.last, lund.last, wide.last]
        })
    };
    let one = train_with(1);
    for threads in [2, 4] {
        let more = train_with(threads);
        assert!(one.iter().zip(&more).all(|(a, b)| same_bits(a, b)), "{threads} threads");
    }
}

#[test]
fn training_learns_and_the_log_tells_it() {
    let options = TrainOptions { budget: Span::Epochs(25), learning_rate: 0.03, ..options() };
    let (trained, notes) = run(&Tiny::new(2, 3, &Device::flex()), SCRATCH, &options);
    assert_eq!((trained.end, trained.steps, trained.log.len()), (End::Budget, 25 * 7, 25));
    assert!(trained.log[24].training_loss < 0.95 * trained.log[0].training_loss);
    assert!(trained.chosen.validation.auc.unwrap() > 0.65, "{:?}", trained.chosen);
    // The chosen weights are those of the lowest loss, and they are what comes back.
    let best = trained.log.iter().map(|record| record.validation.loss).fold(f64::INFINITY, f64::min);
    assert_eq!(trained.chosen.validation.loss, best);
    let again = evaluate(&trained.model, &jets(60, 2, 2), None, 7, &Device::flex()).unwrap();
    assert!((again.loss - best).abs() < 1e-6);
    assert_eq!(notes.records, trained.log);
    assert_eq!(trained.log.iter().rfind(|record| record.best).unwrap().step, trained.chosen.step);
    let outline = notes.outline.unwrap();
    assert_eq!((outline.steps_per_epoch, outline.total_steps, outline.done_steps), (7, 175, 0));
    assert_eq!(outline.parameters, 6 + 32 + 16 + 2 * WIDTH + 2);
    let last = &trained.log[24];
    assert!(last.cost.seconds > 0.0 && last.cost.jets_per_second > 0.0 && last.gradient_norm > 0.0);
    assert!(last.gradient_norm_max >= last.gradient_norm && last.epoch == 25.0);
}

#[test]
fn a_budget_in_steps_evaluates_by_steps_and_at_the_end() {
    let options = TrainOptions {
        budget: Span::Steps(11),
        evaluate_every: Span::Steps(4),
        last_batch: LastBatch::Drop,
        schedule: serde_json::from_str(r#"{"kind": "one-cycle"}"#).unwrap(),
        ..options()
    };
    let (trained, notes) = run(&Tiny::new(2, 3, &Device::flex()), SCRATCH, &options);
    assert_eq!(trained.log.iter().map(|record| record.step).collect::<Vec<_>>(), [4, 8, 11]);
    assert_eq!(notes.outline.unwrap().steps_per_epoch, 6);
    assert!((notes.rates[0] - 1e-2 / 25.0).abs() < 1e-15);
    assert!((trained.log[2].epoch - 11.0 / 6.0).abs() < 1e-12);
}

#[test]
fn early_stopping_waits_for_its_patience() {
    let early = |min_delta| {
        let early = EarlyStopping { metric: Metric::Loss, patience: 2, min_delta };
        TrainOptions {
            budget: Span::Epochs(9),
            early_stopping: Some(early),
            choose: Choose::Last,
            ..options()
        }
    };
    let (trained, _) = run(&Tiny::new(2, 3, &Device::flex()), SCRATCH, &early(10.0));
    // The first evaluation sets the mark, two without progress end it.
    assert_eq!((trained.end, trained.log.len()), (End::EarlyStopping, 3));
    assert!(same_bits(&state(&trained.model), &trained.last));
    assert_eq!(trained.chosen.step, trained.steps);
}

/// A source network that has seen something, and its state.
fn source() -> State {
    run(&Tiny::new(3, 8, &Device::flex()), SCRATCH, &options()).0.last
}

/// The target network with what the plan keeps of the source.
fn grafted(plan: &str) -> (Tiny, Plan, State) {
    let target = Tiny::new(2, 4, &Device::flex());
    let plan = plan_for(&target, plan);
    let (start, _) = graft(&source(), &state(&target), &plan, &GraftAllow::default()).unwrap();
    (load_state(target, &start).unwrap(), plan, start)
}

#[test]
fn frozen_bytes_stay_and_the_cached_run_equals_the_uncached_one() {
    let device = Device::flex();
    for text in [
        r#"{"kind": "frozen"}"#,
        r#"{"kind": "frozen", "through": "input"}"#,
        r#"{"kind": "probe-then-fine-tune", "probe_epochs": 1, "probe_rate": 5}"#,
    ] {
        let (model, plan, start) = grafted(text);
        let options = options();
        let mut notes = Notes::default();
        let cached = train(job(&model, &plan, &options, &device), &mut notes).unwrap();
        let uncached =
            train(Job { cache_bytes: 0, ..job(&model, &plan, &options, &device) }, &mut Notes::default())
                .unwrap();
        assert!(same_bits(&cached.last, &uncached.last), "{text}");
        assert!(same_bits(&state(&cached.model), &state(&uncached.model)), "{text}");
        let losses =
            |trained: &Trained<Tiny>| trained.log.iter().map(|r| r.validation.loss).collect::<Vec<_>>();
        assert_eq!(losses(&cached), losses(&uncached));
        assert_eq!(notes.phases[0].1, plan.phases[0].fixed_prefix());
        if plan.phases.len() == 1 {
            for name in plan.phases[0].fixed_tensors() {
                assert_eq!(cached.last[name], start[name], "{name}");
            }
            assert_ne!(cached.last["head.weight"], start["head.weight"]);
        } else {
            assert_eq!(notes.phases, [("probe".to_owned(), 2), ("fine-tune".to_owned(), 0)]);
            assert_ne!(cached.last["node.dense.weight"], start["node.dense.weight"]);
        }
    }
}

#[test]
fn the_cached_run_of_lundnet_equals_the_uncached_one() {
    let device = Device::flex();
    let model = lundnet(&device);
    for text in [
        r#"{"kind": "frozen"}"#,
        r#"{"kind": "frozen", "through": "fusion"}"#,
        r#"{"kind": "partial", "stages": 2}"#,
    ] {
        let plan = plan_for(&model, text);
        let options = options();
        let cached = train(job(&model, &plan, &options, &device), &mut Silent).unwrap();
        let uncached =
            train(Job { cache_bytes: 0, ..job(&model, &plan, &options, &device) }, &mut Silent).unwrap();
        assert!(same_bits(&cached.last, &uncached.last), "{text}");
    }
}

#[test]
fn updating_norms_move_while_their_weights_stay() {
    let device = Device::flex();
    let (model, plan, start) = grafted(r#"{"kind": "frozen", "batch_norm": "update"}"#);
    let mut notes = Notes::default();
    let options = options();
    let trained = train(job(&model, &plan, &options, &device), &mut notes).unwrap();
    assert_eq!(notes.phases, [("train".to_owned(), 0)]);
    assert_eq!(trained.last["node.dense.weight"], start["node.dense.weight"]);
    assert_eq!(trained.last["input.weight"], start["input.weight"]);
    assert_ne!(trained.last["node.norm.running_mean"], start["node.norm.running_mean"]);
}

#[test]
fn rates_by_stage_reach_the_weights() {
    let device = Device::flex();
    let moved = |text: &str| {
        let (model, plan, start) = grafted(text);
        // One step of plain gradient descent moves by rate times gradient.
        let options = TrainOptions {
            budget: Span::Steps(1),
            optimiser: serde_json::from_str(r#"{"kind": "sgd", "momentum": 0}"#).unwrap(),
            ..options()
        };
        let last = train(job(&model, &plan, &options, &device), &mut Silent).unwrap().last;
        let distance = |name: &str| {
            let pairs = last[name].values.iter().zip(&start[name].values);
            pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        };
        BTreeMap::from(
            ["input.weight", "node.dense.weight", "head.weight"].map(|name| (name, distance(name))),
        )
    };
    let plain = moved(r#"{"kind": "fine-tune"}"#);
    let decayed = moved(r#"{"kind": "layer-wise-decay", "decay": 0.5}"#);
    let named = moved(r#"{"kind": "fine-tune", "rates": {"node": 3}}"#);
    for (name, factor) in [("input.weight", 0.25), ("node.dense.weight", 0.5), ("head.weight", 1.0)] {
        assert!((decayed[name] / plain[name] / factor - 1.0).abs() < 1e-3, "{name}");
    }
    assert!((named["node.dense.weight"] / plain["node.dense.weight"] - 3.0).abs() < 1e-2);
    assert!((named["head.weight"] / plain["head.weight"] - 1.0).abs() < 1e-6);
}

#[test]
fn a_bad_input_stops_the_run_and_is_named() {
    let device = Device::flex();
    let model = Tiny::new(2, 3, &device);
    let plan = plan_for(&model, SCRATCH);
    let options = options();
    let mut training = GraphSet::clone(&jets(100, 1, 2));
    let jet = (0..100).find(|&jet| training.nodes_of(jet) == 3).unwrap();
    training.features[3 * (training.node_offsets[jet] + 1) + 2] = f32::NAN;
    let event = training.event_id[jet];
    let job = Job { training: Arc::new(training), ..job(&model, &plan, &options, &device) };
    match train(job, &mut Silent) {
        Err(LearnError::Diverged(found)) => {
            assert_eq!(found.quantity, Quantity::Loss);
            match &found.cause {
                Cause::Input { feature, event_id, value } => {
                    assert_eq!((feature.as_str(), *event_id), ("c", event));
                    assert!(value.is_nan());
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(found.batch, found.step);
            assert!(found.weights.values().all(|tensor| tensor.values.iter().all(|value| value.is_finite())));
            // What is kept are the weights before the step, running statistics included.
            assert!(found.step > 0, "the bad jet came first: another seed would tell more");
            let before = TrainOptions { budget: Span::Steps(found.step), ..options.clone() };
            let clean = train(common::job(&model, &plan, &before, &device), &mut Silent).unwrap();
            assert!(same_bits(&clean.last, &found.weights));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rate_that_is_too_high_is_blamed() {
    let device = Device::flex();
    let model = Tiny::new(2, 3, &device);
    let plan = plan_for(&model, SCRATCH);
    let options = TrainOptions {
        learning_rate: 1e30,
        optimiser: serde_json::from_str(r#"{"kind": "sgd", "momentum": 0}"#).unwrap(),
        budget: Span::Epochs(4),
        ..options()
    };
    match train(job(&model, &plan, &options, &device), &mut Silent) {
        Err(error @ LearnError::Diverged(_)) => {
            let text = error.to_string();
            assert!(text.contains("not a finite number at step"), "{text}");
            assert!(error.hint().unwrap().contains("likely too high"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    // Weights that are not finite from the start are told from a high rate.
    let mut broken = state(&model);
    broken.get_mut("node.dense.bias").unwrap().values[2] = f32::INFINITY;
    let broken = load_state(model, &broken).unwrap();
    let options = TrainOptions { learning_rate: 1e-3, ..options };
    match train(job(&broken, &plan, &options, &device), &mut Silent) {
        Err(LearnError::Diverged(found)) => {
            assert_eq!(found.cause, Cause::Weight { name: "node.dense.bias".into() });
            assert_eq!(found.step, 0);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn jets_that_do_not_fit_are_refused_before_the_first_step() {
    let device = Device::flex();
    let model = Tiny::new(2, 3, &device);
    let plan = plan_for(&model, SCRATCH);
    let options = options();
    let with = |training: Arc<GraphSet>, options: &TrainOptions| {
        let job = Job { training, options, ..job(&model, &plan, options, &device) };
        train(job, &mut Silent).unwrap_err().to_string()
    };
    assert!(with(jets(0, 1, 2), &options).contains("training set: no jets"));
    assert!(with(jets(9, 1, 3), &options).contains("of class 2"));
    let drop = TrainOptions { last_batch: LastBatch::Drop, ..options.clone() };
    assert!(with(jets(9, 1, 2), &drop).contains("fewer than a batch"));
    let mut other = GraphSet::clone(&jets(9, 1, 2));
    other.feature_names.pop();
    assert!(with(Arc::new(other), &options).contains("2 features (a, b)"));
    for broken in [
        TrainOptions { batch_size: 0, ..options.clone() },
        TrainOptions { learning_rate: f64::NAN, ..options.clone() },
        TrainOptions { clip_norm: Some(0.0), ..options.clone() },
        TrainOptions { budget: Span::Steps(0), ..options.clone() },
        TrainOptions {
            early_stopping: Some(EarlyStopping { metric: Metric::Auc, patience: 0, min_delta: 0.0 }),
            ..options.clone()
        },
    ] {
        assert!(with(jets(9, 1, 2), &broken).contains("expected"));
    }
    for (text, option) in [
        (r#"{"accumulate": 0}"#, "`accumulate`"),
        (r#"{"ema": {"decay": 1.0}}"#, "`ema.decay`"),
        (r#"{"loss": {"kind": "focal", "alpha": [1, 2, 3]}}"#, "`loss.alpha`"),
        (r#"{"weight_decay_on": "matrices"}"#, "`weight_decay_on`"),
    ] {
        let error = with(jets(9, 1, 2), &table(text));
        assert!(error.contains(option) && error.contains("expected"), "{error}");
    }
    // A probe as long as the budget leaves nothing to fine-tune.
    let plan = plan_for(&model, r#"{"kind": "probe-then-fine-tune", "probe_epochs": 2}"#);
    let error = train(job(&model, &plan, &options, &device), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("`budget`"), "{error}");
    assert!(serde_json::from_str::<TrainOptions>(r#"{"batchsize": 3}"#).is_err());
}

#[test]
fn predictions_do_not_depend_on_batches_and_keep_their_order() {
    let device = Device::flex();
    let model = lundnet(&device);
    let set = jets(53, 9, 2);
    let all = logits(&model, &set, 100, &device).unwrap();
    assert_eq!((all.len(), all.classes), (53, 2));
    for batch in [1, 7, 53] {
        let other = logits(&model, &set, batch, &device).unwrap();
        for (a, b) in all.values.iter().zip(&other.values) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}");
        }
    }
    let one = logits(&model, &set.select(&[31]), 4, &device).unwrap();
    assert!((one.values[1] - all.values[63]).abs() < 1e-5);
    assert!(
        logits(
            &Tiny::new(2, 1, &device),
            &GraphSet { feature_names: vec![], ..GraphSet::clone(&set) },
            4,
            &device
        )
        .is_err()
    );
}

#[test]
fn clipping_and_class_weights_change_the_run() {
    let (plain, _) = run(&Tiny::new(2, 3, &Device::flex()), SCRATCH, &options());
    let clipped = TrainOptions {
        clip_norm: Some(1e-3),
        optimiser: serde_json::from_str(r#"{"kind": "sgd"}"#).unwrap(),
        ..options()
    };
    let (clipped, _) = run(&Tiny::new(2, 3, &Device::flex()), SCRATCH, &clipped);
    // 14 steps of at most rate * limit / (1 - momentum).
    let start = state(&Tiny::new(2, 3, &Device::flex()));
    let distance: f64 = clipped
        .last
        .iter()
        .filter(|(name, _)| !name.contains("running_"))
        .flat_map(|(name, tensor)| tensor.values.iter().zip(&start[name].values))
        .map(|(a, b)| f64::from(a - b).powi(2))
        .sum::<f64>()
        .sqrt();
    assert!(distance > 0.0 && distance < 14.0 * 1e-2 * 1e-3 * 10.0, "{distance}");
    let weighted = TrainOptions { class_weights: serde_json::from_str("[1, 20]").unwrap(), ..options() };
    let (weighted, _) = run(&Tiny::new(2, 3, &Device::flex()), SCRATCH, &weighted);
    assert!(!same_bits(&plain.last, &weighted.last));
    let device = Device::flex();
    let share = |model: &Tiny| {
        let found = logits(model, &jets(60, 2, 2), 60, &device).unwrap();
        found.scores(1).iter().filter(|&&score| score > 0.0).count()
    };
    assert!(share(&weighted.model) > share(&plain.model));
}

/// Largest difference of two states, in units of the larger one's largest element, over all tensors.
fn apart(a: &State, b: &State) -> f64 {
    let tensors = a.iter().map(|(name, tensor)| (tensor, &b[name]));
    let apart = tensors.map(|(a, b)| {
        let top = a.values.iter().chain(&b.values).fold(1e-3f32, |top, value| top.max(value.abs()));
        let pairs = a.values.iter().zip(&b.values);
        f64::from(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / top)
    });
    apart.fold(0.0, f64::max)
}

#[test]
fn steps_of_several_batches_equal_steps_of_one_large_batch() {
    let device = Device::flex();
    for (last, steps) in [("keep", 14), ("drop", 12)] {
        for rest in [
            r#""optimiser": {"kind": "sgd"}, "class_weights": [1, 3], "clip_norm": 0.2"#,
            r#""optimiser": {"kind": "ranger"}, "loss": {"kind": "focal"}, "class_weights": "balanced""#,
            r#""loss": {"kind": "cross-entropy", "label_smoothing": 0.1}"#,
        ] {
            let with = |sizes: &str| table(&format!(r#"{{{sizes}, "last_batch": "{last}", {rest}}}"#));
            let plain = Tiny::plain(2, 3, &device);
            let (large, _) = run(&plain, SCRATCH, &with(r#""batch_size": 16"#));
            for (size, number) in [(4, 4), (1, 16)] {
                let sizes = format!(r#""batch_size": {size}, "accumulate": {number}"#);
                let (small, notes) = run(&plain, SCRATCH, &with(&sizes));
                assert_eq!((small.steps, large.steps), (steps, steps));
                assert!(
                    apart(&large.last, &small.last) < 2e-6,
                    "{rest}: {}",
                    apart(&large.last, &small.last)
                );
                assert_eq!(notes.outline.unwrap().batch_size, 16);
                for (a, b) in large.log.iter().zip(&small.log) {
                    assert!((a.training_loss / b.training_loss - 1.0).abs() < 1e-6);
                    assert!((a.gradient_norm / b.gradient_norm - 1.0).abs() < 1e-5);
                }
            }
            // With norms and dropout each small batch has its own statistics and masks.
            let tiny = Tiny::new(2, 3, &device);
            let (large, _) = run(&tiny, SCRATCH, &with(r#""batch_size": 16"#));
            let (small, _) = run(&tiny, SCRATCH, &with(r#""batch_size": 4, "accumulate": 4"#));
            assert!(apart(&large.last, &small.last) > 1e-4);
        }
    }
}

#[test]
fn averaged_weights_are_evaluated_chosen_and_kept() {
    let device = Device::flex();
    let model = Tiny::new(2, 3, &device);
    let after = |steps: u64, more: &str| {
        let text = format!(r#"{{"budget": {{"steps": {steps}}}, "choose": "last"{more}}}"#);
        run(&model, SCRATCH, &table(&text)).0
    };
    // At a constant rate the first steps of a longer run are those of a shorter one.
    let each: Vec<State> = (1..=6).map(|steps| after(steps, "").last).collect();
    for (more, averaged) in [
        (r#", "ema": {"decay": 0.7}"#, false),
        (r#", "ema": {"decay": 0.7, "running_statistics": "average"}"#, true),
    ] {
        let trained = after(6, more);
        assert!(same_bits(&trained.last, &each[5]), "the run itself does not change");
        let found = state(&trained.model);
        for (name, tensor) in &found {
            let mut expected: Vec<f64> = each[0][name].values.iter().map(|&value| value.into()).collect();
            for later in &each[1..] {
                for (average, &value) in expected.iter_mut().zip(&later[name].values) {
                    *average = 0.7 * *average + 0.3 * f64::from(value);
                }
            }
            if name.contains("running_") && !averaged {
                assert_eq!(tensor, &each[5][name]);
                continue;
            }
            assert_ne!(tensor, &each[5][name], "{name}");
            for (&ours, expected) in tensor.values.iter().zip(expected) {
                assert!((f64::from(ours) - expected).abs() < 3e-7 * expected.abs().max(0.1), "{name}");
            }
        }
        let again = evaluate(&trained.model, &jets(60, 2, 2), None, 25, &device).unwrap();
        assert_eq!(trained.chosen.validation, again);
    }
    // Frozen tensors are not averaged, and a phase begins its own average.
    for text in [r#"{"kind": "frozen"}"#, r#"{"kind": "probe-then-fine-tune", "probe_epochs": 1}"#] {
        let (model, plan, start) = grafted(text);
        let options = table(r#"{"ema": {"decay": 0.9, "running_statistics": "average"}, "choose": "last"}"#);
        let trained = train(job(&model, &plan, &options, &device), &mut Silent).unwrap();
        let found = state(&trained.model);
        assert!(!same_bits(&found, &trained.last));
        if plan.phases.len() == 1 {
            for name in plan.phases[0].fixed_tensors() {
                assert_eq!(found[name], start[name], "{name}");
            }
        }
    }
}

#[test]
fn only_matrices_decay_if_asked_for() {
    let device = Device::flex();
    let after = |more: &str| {
        let text = format!(r#"{{"budget": {{"steps": 1}}, {more}}}"#);
        run(&Tiny::new(2, 3, &device), SCRATCH, &table(&text)).0.last
    };
    for kind in ["sgd", "adam", "adam-w", "radam", "ranger"] {
        let none = after(&format!(r#""optimiser": {{"kind": "{kind}", "weight_decay": 0}}"#));
        let optimiser = format!(r#""optimiser": {{"kind": "{kind}", "weight_decay": 0.5}}"#);
        let all = after(&optimiser);
        let matrices = after(&format!(r#"{optimiser}, "weight_decay_on": "matrices""#));
        for (name, tensor) in &matrices {
            let like = if tensor.shape.len() > 1 { &all } else { &none };
            assert_eq!(tensor, &like[name], "{kind} {name}");
        }
        for name in ["node.dense.weight", "node.dense.bias", "input.weight"] {
            assert_ne!(all[name], none[name], "{kind} {name}");
        }
    }
}

#[test]
fn a_schedule_may_reach_only_the_groups_with_a_factor() {
    let plan = r#"{"kind": "fine-tune", "rates": {"head": 50}}"#;
    let notes = |groups: &str, plan: &str| {
        let schedule = format!(r#"{{"kind": "flat-decay", "groups": "{groups}"}}"#);
        let text = format!(
            r#"{{"budget": {{"epochs": 4}}, "learning_rate": 1e-4, "schedule": {schedule},
                "optimiser": {{"kind": "sgd", "momentum": 0}}}}"#
        );
        run(&Tiny::new(2, 3, &Device::flex()), plan, &table(&text))
    };
    // 7 steps an epoch; the last of 4 epochs falls.
    let fallen =
        |rates: &[f64]| rates.iter().map(|&rate| (rate / 1e-4 * 100.0).round() as u64).collect::<Vec<_>>();
    let expected: Vec<u64> = [vec![100; 21], vec![1; 7]].concat();
    let (all, told) = notes("all", plan);
    assert_eq!(fallen(&told.rates), expected);
    // The rate that is told is the base rate: it stays, while the head's falls.
    let (weaver, told) = notes("weaver", plan);
    assert_eq!(fallen(&told.rates), [100; 28]);
    assert!(!same_bits(&all.last, &weaver.last));
    // Without a factor there is no difference.
    let (all, told) = notes("all", SCRATCH);
    let (weaver, _) = notes("weaver", SCRATCH);
    assert_eq!(fallen(&told.rates), expected);
    assert!(same_bits(&all.last, &weaver.last));
}

#[test]
fn losses_of_every_kind_learn_and_validation_stays_comparable() {
    let device = Device::flex();
    for loss in [
        r#"{"kind": "cross-entropy", "label_smoothing": 0.1}"#,
        r#"{"kind": "focal"}"#,
        r#"{"kind": "focal", "gamma": 1, "alpha": 0.25}"#,
    ] {
        let text = format!(
            r#"{{"budget": {{"epochs": 25}}, "learning_rate": 0.03, "loss": {loss}, "class_weights": [1, 2]}}"#
        );
        let (trained, _) = run(&Tiny::new(2, 3, &device), SCRATCH, &table(&text));
        assert!(trained.log[24].training_loss < 0.97 * trained.log[0].training_loss, "{loss}");
        assert!(trained.chosen.validation.auc.unwrap() > 0.65, "{loss}: {:?}", trained.chosen);
        let again = evaluate(&trained.model, &jets(60, 2, 2), Some(&[1.0, 2.0]), 7, &device).unwrap();
        assert!((again.loss - trained.chosen.validation.loss).abs() < 1e-6, "plain cross-entropy, weighted");
    }
}

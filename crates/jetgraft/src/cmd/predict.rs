//! `jetgraft predict`.

use jetgraft_data::jets::{ClassSpec, JetQuery, OnBad, load_jets};
use jetgraft_data::writer::write_scores;

use crate::args::PredictArgs;
use crate::error::{Error, Result};
use crate::network::{self, Network};
use crate::progress::Progress;
use crate::{device, run_dir, training};

/// Scores jets with a run's network.
///
/// # Errors
/// A folder that is no run; jets that cannot be read; more or fewer classes than the network has.
pub fn run(args: &PredictArgs, progress: &dyn Progress) -> Result<String> {
    let device = device::choose(&args.place)?;
    let run = run_dir::read(&args.run)?;
    let network = Network { card: run.card, weights: run.weights };
    let model = network::build(&network, &device)?;
    let classes = match (&args.background, &args.signal) {
        (Some(background), Some(signal)) => {
            let [first, second] = network.card.classes.as_slice() else {
                return Err(Error::new(format!("the network has {} classes", network.card.classes.len()))
                    .expected("2, for --background and --signal"));
            };
            vec![ClassSpec::new(first, background), ClassSpec::new(second, signal)]
        }
        _ => Vec::new(),
    };
    let input = &network.card.input;
    network::check_fit(&model, &input.spec)?;
    let query = JetQuery {
        selection: args.select.clone(),
        extras: input.spec.extras(),
        ..JetQuery::new(&args.data, classes)
    };
    let (jets, read, _) = load_jets(&query)?;
    let (graphs, made) = input.graphs(&jets, OnBad::Drop)?;
    let ledger = read.then(&made)?;
    progress.words(&format!("jets: {ledger}"));
    let began = std::time::Instant::now();
    let scores = training::score(&model, &graphs, &network.card.classes, &device)?;
    let rate = graphs.len() as f64 / began.elapsed().as_secs_f64().max(1e-9);
    let rows = write_scores(&args.output, &scores)?;
    progress.words(&format!("wrote {rows} scores to {} ({rate:.0} jets/s)", args.output.display()));
    Ok(String::new())
}

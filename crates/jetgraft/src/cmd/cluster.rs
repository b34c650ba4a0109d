//! `jetgraft cluster`.

use jetgraft_data::jets::{JetQuery, Jets, NO_LABEL, load_events};
use jetgraft_data::ledger::Ledger;
use jetgraft_data::writer::{Precision, write_jets};
use jetgraft_physics::FourMomentum;
use jetgraft_physics::cluster::{Algorithm, ClusterSequence, JetDefinition};
use rayon::prelude::*;

use crate::args::{AlgorithmArg, ClusterArgs};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// A jet of an event: its momentum and its constituents, hardest first.
type FoundJet = (FourMomentum, Vec<FourMomentum>);

/// Clusters the particles of each event and writes one row per jet.
///
/// # Errors
/// A particle file without px, py, pz, energy; a radius or cut that makes no sense; a file that cannot be written.
pub fn run(args: &ClusterArgs, progress: &dyn Progress) -> Result<String> {
    let algorithm = match args.algorithm {
        AlgorithmArg::Antikt => Algorithm::AntiKt,
        AlgorithmArg::Cambridge => Algorithm::CambridgeAachen,
        AlgorithmArg::Kt => Algorithm::Kt,
    };
    let definition = JetDefinition::new(algorithm, args.radius)?;
    if !(args.pt_min >= 0.0 && args.pt_min.is_finite()) {
        return Err(Error::new(format!("--pt-min {}", args.pt_min))
            .expected("a transverse momentum in GeV, 0 or more"));
    }
    let (events, read, _) = load_events(&JetQuery::new([&args.input], Vec::new()))?;
    progress.words(&format!("{}; {} events", definition.describe(), events.len()));
    let clustered: Vec<Result<Vec<FoundJet>, String>> = (0..events.len())
        .into_par_iter()
        .map(|event| jets_of(events.particles_of(event), &definition, args))
        .collect();
    let mut jets = Jets { offsets: vec![0], ..Jets::default() };
    let mut ledger = Ledger::default();
    for (event, found) in clustered.into_iter().enumerate() {
        let found = match found {
            Ok(found) => found,
            Err(reason) => {
                ledger.drop_row(&reason);
                continue;
            }
        };
        ledger.use_row();
        ledger.note("events without a jet", u64::from(found.is_empty()));
        for (rank, (momentum, constituents)) in found.into_iter().enumerate() {
            jets.event_id.push(events.event_id[event]);
            jets.jet_index.push(rank as u32);
            jets.label.push(NO_LABEL);
            jets.jet_pt_gev.push(momentum.pt());
            jets.jet_eta.push(momentum.pseudorapidity());
            jets.jet_phi.push(jetgraft_physics::delta_phi(momentum.phi(), 0.0));
            jets.jet_mass_gev.push(momentum.mass());
            jets.constituents.extend(constituents);
            jets.offsets.push(jets.constituents.len());
        }
    }
    let ledger = read.then(&ledger)?;
    let rows = write_jets(&args.output, &jets, Precision::Double)?;
    progress.words(&format!("events: {ledger}"));
    progress.words(&format!("wrote {rows} jets to {}", args.output.display()));
    Ok(String::new())
}

/// Jets of one event that pass the cuts, hardest first; a reason instead when the event cannot be clustered.
fn jets_of(
    particles: &[FourMomentum],
    definition: &JetDefinition,
    args: &ClusterArgs,
) -> Result<Vec<FoundJet>, String> {
    if particles.is_empty() {
        return Ok(Vec::new());
    }
    let sequence = ClusterSequence::new(particles, definition)
        .map_err(|_| "particles that cannot be clustered".to_string())?;
    let mut found = Vec::new();
    for jet in sequence.inclusive_jets(args.pt_min) {
        if args.abs_eta_max.is_some_and(|most| jet.momentum.pseudorapidity().abs() > most) {
            continue;
        }
        let indices = sequence.constituents(jet.node).map_err(|error| error.to_string())?;
        let mut constituents: Vec<FourMomentum> =
            indices.iter().map(|index| particles[*index as usize]).collect();
        constituents.sort_by(|a, b| b.pt2().total_cmp(&a.pt2()));
        found.push((jet.momentum, constituents));
    }
    found.truncate(args.jets_max.unwrap_or(usize::MAX));
    Ok(found)
}

//! `jetgraft export`.

use clap::ValueEnum;
use jetgraft_data::{InputSpec, JetReference, ParticleFeatures};
use jetgraft_nn::export::onnx::{Feature, JetAxis, OnnxOptions, Preprocessing, Quantity, describe, to_onnx};
use jetgraft_nn::state::{NamedTensor, Role, State};
use jetgraft_nn::weights::Metadata;

use crate::args::{ExportArgs, ExportFormat};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::run_dir::{self, Run};

/// Key of the card in a file's metadata.
const CARD: &str = "jetgraft_card";

/// Writes a run's network for other programs; the card goes into the file's metadata.
///
/// # Errors
/// A folder that is no run; a format that neither the ending nor the option names; preprocessing that the format or the
/// network cannot have; a file that cannot be written.
pub fn run(args: &ExportArgs, progress: &dyn Progress) -> Result<String> {
    let format = format(args)?;
    let run = run_dir::read(&args.run)?;
    let (bytes, words) = match format {
        ExportFormat::Safetensors => safetensors(&run)?,
        ExportFormat::Onnx => onnx(&run, args.preprocessing)?,
    };
    jetgraft_data::atomic::write_bytes(&args.output, &bytes)?;
    progress.words(&format!("wrote {words} to {}", args.output.display()));
    Ok(String::new())
}

fn format(args: &ExportArgs) -> Result<ExportFormat> {
    let ending = args.output.extension().map(|ending| ending.to_string_lossy().into_owned());
    let named = ending.as_deref().and_then(|ending| ExportFormat::from_str(ending, true).ok());
    let format = args.format.or(named).ok_or_else(|| {
        Error::new(format!("no format for {}", args.output.display()))
            .found(ending.map_or("no ending".into(), |ending| format!("the ending .{ending}")))
            .expected(".safetensors or .onnx")
            .hint("change the ending, or say --format safetensors or --format onnx")
    })?;
    if args.preprocessing && format != ExportFormat::Onnx {
        return Err(Error::new("--preprocessing, and a file of weights")
            .expected("an ONNX file: weights alone compute nothing")
            .hint("end the output in .onnx"));
    }
    Ok(format)
}

fn card(run: &Run) -> String {
    String::from_utf8_lossy(&run.card.to_json()).into_owned()
}

/// PyTorch's names and layout.
fn safetensors(run: &Run) -> Result<(Vec<u8>, String)> {
    let tensors = crate::network::card_config(&run.card)?.to_foreign(&run.weights)?;
    let mut metadata = Metadata::new();
    metadata.insert("format".into(), "pt".into());
    metadata.insert(CARD.into(), card(run));
    let state: State = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let role = Role::of(&name);
            (name, NamedTensor { shape: tensor.shape, values: tensor.values, role })
        })
        .collect();
    let bytes = jetgraft_nn::weights::to_bytes(&state, &metadata);
    Ok((bytes, format!("{} tensors", state.len())))
}

/// The whole network.
fn onnx(run: &Run, preprocessing: bool) -> Result<(Vec<u8>, String)> {
    let input = &run.card.input;
    let options = OnnxOptions {
        name: run.card.name.clone(),
        classes: run.card.classes.clone(),
        features: input
            .features
            .iter()
            .map(|feature| format!("{} ({})", feature.name, feature.unit))
            .collect(),
        // With preprocessing too: the features that it makes are those that were standardised.
        standardise: input.standardisation.as_ref().map(|known| (known.center.clone(), known.scale.clone())),
        preprocessing: preprocessing.then(|| from_four_vectors(&input.spec)).transpose()?,
        metadata: vec![(CARD.into(), card(run))],
    };
    let bytes = to_onnx(&crate::network::card_config(&run.card)?, &run.weights, &options)?;
    let file = describe(&bytes)?;
    let list = |tensors: &[jetgraft_nn::export::onnx::Tensor]| {
        let names = tensors.iter().map(|tensor| format!("{} [{}]", tensor.name, tensor.dims.join(", ")));
        names.collect::<Vec<_>>().join(", ")
    };
    Ok((bytes, format!("the network: {} to {},", list(&file.inputs), list(&file.outputs))))
}

/// What an input computes from the four-vectors of constituents, feature by feature.
fn from_four_vectors(input: &InputSpec) -> Result<Preprocessing> {
    let refused = |what: &str, why: &str, hint: &str| {
        Err(Error::new(format!("--preprocessing, and a network on {what}")).expected(why).hint(hint))
    };
    match input {
        InputSpec::Lund(_) => refused(
            "Lund trees",
            "a network on constituents: reclustering a jet cannot be written in ONNX",
            "export without --preprocessing and make the trees with `jetgraft lund`, or with the crate \
jetgraft-physics in your program",
        ),
        InputSpec::HighLevel(_) => refused(
            "variables of the whole jet",
            "a network on constituents: N-subjettiness and energy correlations cannot be written in ONNX",
            "export without --preprocessing and compute the variables in your program",
        ),
        InputSpec::Particles(particles) => Ok(Preprocessing {
            features: features(particles.features),
            axis: match particles.jet {
                JetReference::Stored => JetAxis::Given,
                JetReference::Sum => JetAxis::Sum,
            },
            limit: particles.limit(),
        }),
    }
}

/// The features of [`ParticleFeatures`], as ONNX computes them.
fn features(set: ParticleFeatures) -> Vec<Feature> {
    let feature = |name: &str, quantity, shift, scale, clip| Feature {
        name: name.into(),
        quantity,
        shift,
        scale,
        clip,
    };
    let bare = |name: &str, quantity| feature(name, quantity, 0.0, 1.0, None);
    let scaled =
        |name: &str, quantity, shift, scale| feature(name, quantity, shift, scale, Some((-5.0, 5.0)));
    let cut = |name: &str| feature(name, Quantity::Property, 0.0, 1.0, Some((0.0, 1.0)));
    let kinematics = || {
        vec![
            scaled("part_pt_log", Quantity::LogPt, 1.7, 0.7),
            scaled("part_e_log", Quantity::LogEnergy, 2.0, 0.7),
            scaled("part_logptrel", Quantity::LogPtShare, -4.7, 0.7),
            scaled("part_logerel", Quantity::LogEnergyShare, -4.7, 0.7),
            scaled("part_deltaR", Quantity::DeltaR, 0.2, 4.0),
        ]
    };
    let identity = || {
        ["charge", "isChargedHadron", "isNeutralHadron", "isPhoton", "isElectron", "isMuon"]
            .map(|name| bare(&format!("part_{name}"), Quantity::Property))
    };
    let displacement = || {
        [
            bare("part_d0val", Quantity::TanhProperty),
            cut("part_d0err"),
            bare("part_dzval", Quantity::TanhProperty),
            cut("part_dzerr"),
        ]
    };
    let place = || [bare("part_deta", Quantity::MirroredDeltaEta), bare("part_dphi", Quantity::DeltaPhi)];
    let directions = || [bare("rapidity", Quantity::DeltaRapidity), bare("phi", Quantity::DeltaPhi)];
    match set {
        ParticleFeatures::Kin => kinematics().into_iter().chain(place()).collect(),
        ParticleFeatures::KinPid => kinematics().into_iter().chain(identity()).chain(place()).collect(),
        ParticleFeatures::Full => {
            kinematics().into_iter().chain(identity()).chain(displacement()).chain(place()).collect()
        }
        ParticleFeatures::JetClr => vec![
            feature("pt", Quantity::Pt, 0.0, 1.0 / 600.0, None),
            bare("eta", Quantity::CentredEta),
            bare("phi", Quantity::CentredPhi),
        ],
        ParticleFeatures::Flow => {
            std::iter::once(bare("z", Quantity::PtFraction)).chain(directions()).collect()
        }
        ParticleFeatures::Directions => directions().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_its_features_in_order() {
        for set in ParticleFeatures::ALL {
            let names: Vec<String> = features(set).into_iter().map(|feature| feature.name).collect();
            // A property goes by the name of what the caller gives.
            let expected: Vec<String> = set
                .list()
                .iter()
                .map(|feature| match feature.name {
                    "part_d0" | "part_dz" => format!("{}val", feature.name),
                    name => name.into(),
                })
                .collect();
            assert_eq!(names, expected);
        }
    }
}

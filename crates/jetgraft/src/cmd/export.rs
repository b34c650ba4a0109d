//! `jetgraft export`.

use clap::ValueEnum;
use jetgraft_nn::export::onnx::{OnnxOptions, Preprocessing, describe, to_onnx};
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
        // Cards know Lund trees only, which have none: the export says what to do instead.
        preprocessing: preprocessing.then(Preprocessing::default),
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

//! `jetgraft export`.

use jetgraft_nn::state::{NamedTensor, Role, State};
use jetgraft_nn::weights::Metadata;

use crate::args::ExportArgs;
use crate::error::Result;
use crate::progress::Progress;
use crate::run_dir;

/// Writes a run's weights as safetensors under PyTorch's names and layout; the card goes into the file's metadata.
///
/// # Errors
/// A folder that is no run; a file that cannot be written.
pub fn run(args: &ExportArgs, progress: &dyn Progress) -> Result<String> {
    let run = run_dir::read(&args.run)?;
    let tensors = crate::network::card_config(&run.card)?.to_foreign(&run.weights)?;
    let mut metadata = Metadata::new();
    metadata.insert("format".into(), "pt".into());
    metadata.insert("jetgraft_card".into(), String::from_utf8_lossy(&run.card.to_json()).into_owned());
    let state: State = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let role = Role::of(&name);
            (name, NamedTensor { shape: tensor.shape, values: tensor.values, role })
        })
        .collect();
    let bytes = jetgraft_nn::weights::to_bytes(&state, &metadata);
    jetgraft_data::atomic::write_bytes(&args.output, &bytes)?;
    progress.words(&format!("wrote {} tensors to {}", state.len(), args.output.display()));
    Ok(String::new())
}

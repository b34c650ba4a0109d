//! `jetgraft lund`.

use jetgraft_data::jets::{JetQuery, load_jets};
use jetgraft_data::writer::write_lund;
use jetgraft_physics::lund::{LundCuts, PsiForm};

use crate::args::LundArgs;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Reclusters each jet and writes its Lund tree.
///
/// # Errors
/// A jet file that cannot be read, cuts that make no sense, a file that cannot be written.
pub fn run(args: &LundArgs, progress: &dyn Progress) -> Result<String> {
    let psi = match args.psi.as_str() {
        "lundnet" => PsiForm::LundNet,
        "atan2" => PsiForm::Atan2,
        other => return Err(Error::new(format!("--psi {other}")).expected("`lundnet` or `atan2`")),
    };
    let cuts = LundCuts { ln_kt_min: args.ln_kt_min, ln_delta_min: args.ln_delta_min };
    let query = JetQuery { selection: args.select.clone(), ..JetQuery::new([&args.input], Vec::new()) };
    let (jets, read, _) = load_jets(&query)?;
    progress.words(&format!("{}; {}", cuts.describe(), psi.describe()));
    let made = write_lund(&args.output, &jets, &cuts, psi)?;
    let ledger = read.then(&made)?;
    progress.words(&format!("jets: {ledger}"));
    progress.words(&format!("wrote {} trees to {}", ledger.used, args.output.display()));
    Ok(String::new())
}

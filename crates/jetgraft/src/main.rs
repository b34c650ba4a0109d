//! The command line of jetgraft: parses, runs, prints, sets the exit status. All else is in the library.

mod printer;

use std::process::ExitCode;

use clap::Parser;
use jetgraft::args::Cli;

// Burn's CPU backend allocates each result anew, and glibc returns large blocks to the system each time, so that most
// of a step would be page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Number of mimalloc's `mi_option_purge_delay` in its versions 2 and 3; the bindings do not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Makes the allocator keep freed memory for a minute: the next training step wants it back, and pages that went to the
/// system come back zeroed, which is a twentieth of a step. `MIMALLOC_PURGE_DELAY` in the environment overrides it.
fn keep_freed_memory() {
    // SAFETY: sets a number in the allocator's table of options, before any other thread exists.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 60_000) };
}

fn main() -> ExitCode {
    keep_freed_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors.
            let status = u8::from(error.use_stderr());
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    start_log(cli.verbose, cli.quiet);
    let progress = printer::Stderr::new(cli.quiet);
    let outcome = jetgraft::cmd::run(&cli.command, &progress).and_then(|text| Ok(printer::data(&text)?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer::error(&error);
            ExitCode::from(error.exit_status())
        }
    }
}

fn start_log(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    // Words of other people's crates mean nothing to a physicist; RUST_LOG brings them back.
    let ours =
        ["jetgraft", "jetgraft_physics", "jetgraft_data", "jetgraft_nn", "jetgraft_learn", "jetgraft_report"];
    let directives: String = ours.iter().map(|name| format!(",{name}={level}")).collect();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("error{directives}")));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .without_time()
        .init();
}

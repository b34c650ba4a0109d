//! What can be typed. Each command's help ends with an example that works in the repository.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Transfer learning for collider physics.
///
/// Reads jets as they are, trains or imports a source network, grafts it onto a target task, measures how much
/// data and time that saved, and writes a report.
#[derive(Parser, Debug)]
#[command(name = "jetgraft", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Example:\n  jetgraft quickstart\n\nData go to stdout, words and progress to stderr. \
Exit status: 0 done, 1 you can mend it, 2 our fault."
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// More words on stderr (-v, -vv); RUST_LOG is honoured too.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No words and no progress on stderr, errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// Every command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// The main job on the data in the repository: a W tagger grafted onto top tagging.
    #[command(
        after_help = "Example:\n  jetgraft quickstart --out runs/quickstart\n\nIt is nothing but the shipped \
recipe `quickstart`: `jetgraft study quickstart` does the same."
    )]
    Quickstart(QuickstartArgs),
    /// What is in a file: columns, types, units, counts, ragged lengths, NaN share; proposes a recipe.
    #[command(after_help = "Example:\n  jetgraft inspect samples/jets_r10_pt500.parquet")]
    Inspect(InspectArgs),
    /// Particles to jets: generalised-kt clustering, one output row per jet.
    #[command(after_help = "Example:\n  jetgraft cluster samples/particles.parquet -o runs/jets.parquet \
--algorithm antikt --radius 0.4 --pt-min 20\n\nInput: one row per event with list columns px, py, pz, energy (GeV).")]
    Cluster(ClusterArgs),
    /// Jets to Lund trees: Cambridge/Aachen declusterings, one output row per jet.
    #[command(
        after_help = "Example:\n  jetgraft lund samples/jets_r10_pt500.parquet -o runs/lund.parquet --ln-kt-min 0"
    )]
    Lund(LundArgs),
    /// Train one network from a recipe of kind `train`.
    #[command(
        after_help = "Example:\n  jetgraft train lundnet5-w --out runs/w --set train.budget.epochs=2\n\nRECIPE is a \
file or the name of a shipped recipe (`jetgraft recipe list`)."
    )]
    Train(RunArgs),
    /// Run a study from a recipe of kind `study`: plans x target sizes x seeds, then its report.
    #[command(
        after_help = "Example:\n  jetgraft study quickstart --out runs/quickstart --set study.seeds=5\n\nRECIPE \
is a file or the name of a shipped recipe (`jetgraft recipe list`)."
    )]
    Study(RunArgs),
    /// Foreign weights to a run folder: PyTorch files (never executed) and safetensors; prints the graft report.
    #[command(
        after_help = "Example:\n  jetgraft import W_QCD_500GeV_LundNet5_state.pt -o runs/published-w --as lundnet-5"
    )]
    Import(ImportArgs),
    /// A run's network for other programs: ONNX (the whole network) or safetensors (weights under PyTorch's names).
    #[command(
        after_help = "Example:\n  jetgraft export runs/w -o runs/w.onnx\n\ndocs/formats/onnx.md says what goes in and \
comes out."
    )]
    Export(ExportArgs),
    /// Scores of a run's network for jets: event_id, label, logit_<class>, score_<class>, in input order.
    #[command(
        after_help = "Example:\n  jetgraft predict runs/w samples/jets_r10_pt500.parquet -o runs/scores.parquet \
--signal 'process == 1' --background 'process == 0'"
    )]
    Predict(PredictArgs),
    /// Accuracy, AUC and background rejection of score files, each with its interval.
    #[command(after_help = "Example:\n  jetgraft evaluate runs/scores.parquet")]
    Evaluate(EvaluateArgs),
    /// The report of run or study folders: figures (SVG, PNG), tables and one page.
    #[command(after_help = "Example:\n  jetgraft report runs/quickstart -o runs/quickstart")]
    Report(ReportArgs),
    /// Two runs on the same jets, paired: differences of accuracy and AUC, error reduction.
    #[command(after_help = "Example:\n  jetgraft compare runs/quickstart/cells/scratch_n700_s0 \
runs/quickstart/cells/fine-tune_n700_s0")]
    Compare(CompareArgs),
    /// Shipped recipes: list, show, copy; check a recipe without running it.
    #[command(subcommand, after_help = "Example:\n  jetgraft recipe list")]
    Recipe(RecipeCommand),
    /// Devices this build can compute on.
    #[command(after_help = "Example:\n  jetgraft devices")]
    Devices(DevicesArgs),
}

/// Place, not science: where a run computes and writes.
#[derive(Args, Debug, Clone)]
pub struct PlaceArgs {
    /// Device: `cpu`, or `wgpu:0`, `cuda:0` in a build with that feature (`jetgraft devices`).
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Threads of the CPU (default: all that this process may use). Results do not depend on it.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// `quickstart`.
#[derive(Args, Debug)]
pub struct QuickstartArgs {
    /// Folder of the run.
    #[arg(long, default_value = "runs/quickstart")]
    pub out: PathBuf,
    /// Seed of everything random, instead of the recipe's.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Print the result as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Go on with an interrupted run in the same folder.
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
}

/// `train` and `study`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Recipe: a TOML file, or the name of a shipped one.
    pub recipe: String,
    /// Folder of the run (default: runs/<recipe name>).
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Change a key of the recipe, such as `train.budget.epochs=5`; repeatable. It is written into the resolved recipe.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seed of everything random, instead of the recipe's.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Go on with an interrupted run in the same folder.
    #[arg(long)]
    pub resume: bool,
    /// Print the result as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
}

/// `inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Files to look into.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Clustering algorithms.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlgorithmArg {
    /// Anti-kt.
    Antikt,
    /// Cambridge/Aachen.
    Cambridge,
    /// kt.
    Kt,
}

/// `cluster`.
#[derive(Args, Debug)]
pub struct ClusterArgs {
    /// Particle file: one row per event, list columns px, py, pz, energy (GeV).
    pub input: PathBuf,
    /// Jet file to write (parquet).
    #[arg(short, long)]
    pub output: PathBuf,
    /// Algorithm.
    #[arg(long, value_enum)]
    pub algorithm: AlgorithmArg,
    /// Jet radius R.
    #[arg(long)]
    pub radius: f64,
    /// Smallest transverse momentum of a jet, GeV.
    #[arg(long, default_value_t = 0.0)]
    pub pt_min: f64,
    /// Largest |pseudorapidity| of a jet.
    #[arg(long)]
    pub abs_eta_max: Option<f64>,
    /// At most this many jets of an event, hardest first.
    #[arg(long)]
    pub jets_max: Option<usize>,
}

/// `lund`.
#[derive(Args, Debug)]
pub struct LundArgs {
    /// Jet file.
    pub input: PathBuf,
    /// File of trees to write (parquet).
    #[arg(short, long)]
    pub output: PathBuf,
    /// Smallest ln(kt / GeV) of a declustering.
    #[arg(long, allow_negative_numbers = true)]
    pub ln_kt_min: Option<f64>,
    /// Smallest ln(Delta) of a declustering.
    #[arg(long, allow_negative_numbers = true)]
    pub ln_delta_min: Option<f64>,
    /// Form of the azimuth psi: `lundnet` (arctan of the ratio, azimuth not wrapped) or `atan2` (wrapped).
    #[arg(long, default_value = "lundnet")]
    pub psi: String,
    /// Only jets for which this holds, such as 'jet_pt > 500 and process == 0'.
    #[arg(long)]
    pub select: Option<String>,
}

/// `import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// Weight file: PyTorch (zip or older layout) or safetensors.
    pub weights: PathBuf,
    /// Run folder to write.
    #[arg(short, long)]
    pub output: PathBuf,
    /// Network: `lundnet-3`, `lundnet-5`, `particlenet`, `particle-transformer`, `jetclr`, and others that an unknown
    /// name lists.
    #[arg(long = "as")]
    pub network: String,
    /// Names of the classes in the order of the outputs; without them a network of ten outputs has those of JetClass.
    #[arg(long, value_delimiter = ',', default_value = "background,signal")]
    pub classes: Vec<String>,
    /// Print the graft report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Run folder.
    pub run: PathBuf,
    /// File to write; its ending names the format: .safetensors or .onnx.
    #[arg(short, long)]
    pub output: PathBuf,
    /// Format, where the ending does not name it.
    #[arg(long)]
    pub format: Option<ExportFormat>,
    /// ONNX on four-vectors: the features are computed inside the graph.
    #[arg(long)]
    pub preprocessing: bool,
}

/// Formats of `export`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Weights under PyTorch's names and layout.
    Safetensors,
    /// The whole network, for ONNX Runtime.
    Onnx,
}

/// `predict`.
#[derive(Args, Debug)]
pub struct PredictArgs {
    /// Run folder with a network.
    pub run: PathBuf,
    /// Jet files.
    #[arg(required = true)]
    pub data: Vec<PathBuf>,
    /// Score file to write (parquet).
    #[arg(short, long)]
    pub output: PathBuf,
    /// Jets of the signal class, such as 'process == 2'; with --background it gives the label column.
    #[arg(long, requires = "background")]
    pub signal: Option<String>,
    /// Jets of the background class, such as 'process == 0'.
    #[arg(long, requires = "signal")]
    pub background: Option<String>,
    /// Only jets for which this holds.
    #[arg(long)]
    pub select: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
}

/// `evaluate`.
#[derive(Args, Debug)]
pub struct EvaluateArgs {
    /// Score files with a label column.
    #[arg(required = true)]
    pub scores: Vec<PathBuf>,
    /// Run that made the scores: for published weights, what their authors state is printed beside.
    #[arg(long)]
    pub run: Option<PathBuf>,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// `report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Run or study folders.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Folder of the page and figures (default: the run folder).
    #[arg(short, long)]
    pub output: Option<PathBuf>,
}

/// `compare`.
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// The reference run.
    pub reference: PathBuf,
    /// The run compared with it.
    pub run: PathBuf,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// `recipe`.
#[derive(Subcommand, Debug)]
pub enum RecipeCommand {
    /// Names and purposes of the shipped recipes.
    #[command(after_help = "Example:\n  jetgraft recipe list")]
    List,
    /// A shipped recipe's text.
    #[command(after_help = "Example:\n  jetgraft recipe show quickstart")]
    Show {
        /// Name of a shipped recipe.
        name: String,
    },
    /// A shipped recipe to a file of your own.
    #[command(after_help = "Example:\n  jetgraft recipe copy quickstart runs/mine.toml")]
    Copy {
        /// Name of a shipped recipe.
        name: String,
        /// File to write; it must not exist.
        to: PathBuf,
    },
    /// Read a recipe and say all that is wrong with it, or print it resolved.
    #[command(after_help = "Example:\n  jetgraft recipe check quickstart")]
    Check {
        /// Recipe: a TOML file, or the name of a shipped one.
        recipe: String,
        /// Change a key, as `train` and `study` do.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
}

/// `devices`.
#[derive(Args, Debug)]
pub struct DevicesArgs {
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

//! What a recipe can say. Every key is documented here; unknown keys are refused.

use std::path::PathBuf;

use jetgraft_data::columns::JetColumns;
use jetgraft_data::jets::OnBad;
use jetgraft_data::lund_graphs::{FeatureSet, LundInput, PsiForm};
use jetgraft_data::{HighLevelInput, InputSpec, JetReference, ParticleFeatures, ParticleInput, Variable};
use jetgraft_learn::card::JetCard;
use jetgraft_learn::plan::PlanOptions;
use jetgraft_learn::trainer::TrainOptions;
use jetgraft_nn::registry::BackboneConfig;
use jetgraft_physics::lund::LundCuts;
use serde::{Deserialize, Serialize};

/// Version of the recipe format that this build reads and writes.
pub const FORMAT: &str = "jetgraft-recipe/1";

/// A recipe, by its `kind`.
#[derive(Debug, Clone, PartialEq)]
pub enum Recipe {
    /// Train one network, from scratch or grafted.
    Train(Box<TrainRecipe>),
    /// A source network, and plans x target sizes x seeds on a target task.
    Study(Box<StudyRecipe>),
}

/// Recipe of kind `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct TrainRecipe {
    /// `jetgraft-recipe/1`.
    pub format: String,
    /// `train`.
    pub kind: String,
    /// Short name: the default run folder is `runs/<name>`.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// Seed of everything random.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// What the data are, shown on figures, such as `simulation, 13 TeV`.
    #[serde(default = "default_label")]
    pub data_label: String,
    /// Network.
    pub model: ModelRecipe,
    /// What the network sees of a jet.
    pub input: InputRecipe,
    /// The classes and where their jets are.
    pub task: TaskRecipe,
    /// Where the network comes from; absent: from scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<NetworkFile>,
    /// How the source is grafted; needed with `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanOptions>,
    /// How it is trained.
    pub train: TrainOptions,
    /// How sure the intervals are.
    #[serde(default)]
    pub statistics: StatisticsRecipe,
}

/// Recipe of kind `study`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct StudyRecipe {
    /// `jetgraft-recipe/1`.
    pub format: String,
    /// `study`.
    pub kind: String,
    /// Short name: the default run folder is `runs/<name>`.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// Seed of everything random.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// What the data are, shown on figures, such as `simulation, 13 TeV`.
    #[serde(default = "default_label")]
    pub data_label: String,
    /// Network.
    pub model: ModelRecipe,
    /// What the network sees of a jet.
    pub input: InputRecipe,
    /// The source network: trained here, or from a file; absent in a study of networks from scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceRecipe>,
    /// The target task.
    pub target: TaskRecipe,
    /// How every network of the study is trained on the target.
    pub train: TrainOptions,
    /// The matrix.
    pub study: MatrixRecipe,
    /// How sure the intervals are.
    #[serde(default)]
    pub statistics: StatisticsRecipe,
}

/// `[model]`: a backbone by the name of its sizes, such as `particlenet-lite`, and any of its sizes that differ.
///
/// Widths, neighbours, dropout and whatever else the network's configuration has are keys here, with the published
/// sizes as defaults. The numbers of input features and of classes follow from the rest of the recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRecipe(BackboneConfig);

/// Fields of a configuration that `[input]` and the classes decide.
const ENDS: [&str; 2] = ["input_features", "classes"];

impl ModelRecipe {
    /// The network's sizes for an input and a number of classes.
    pub fn config(&self, input_features: usize, classes: usize) -> BackboneConfig {
        self.0.clone().with_ends(input_features, classes)
    }
}

impl<'de> Deserialize<'de> for ModelRecipe {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut given = serde_json::Map::deserialize(deserializer)?;
        let names = || BackboneConfig::PRESETS.join(", ");
        let kind = match given.remove("kind") {
            Some(serde_json::Value::String(kind)) => kind,
            Some(other) => {
                return Err(D::Error::custom(format!("`kind` is {other}, expected one of {}", names())));
            }
            None => return Err(D::Error::missing_field("kind")),
        };
        let Some(preset) = BackboneConfig::preset(&kind) else {
            return Err(D::Error::custom(format!("no network `{kind}`, expected one of {}", names())));
        };
        if let Some(end) = ENDS.iter().find(|end| given.contains_key(**end)) {
            return Err(D::Error::custom(format!(
                "`{end}` follows from `[input]` and the classes: leave it out"
            )));
        }
        let mut sizes = serde_json::to_value(preset).map_err(D::Error::custom)?;
        if let Some(sizes) = sizes.as_object_mut() {
            sizes.extend(given);
        }
        serde_json::from_value(sizes).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for ModelRecipe {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sizes = serde_json::to_value(&self.0).map_err(serde::ser::Error::custom)?;
        if let Some(sizes) = sizes.as_object_mut() {
            // What is absent is absent in TOML too.
            sizes.retain(|name, value| !ENDS.contains(&name.as_str()) && !value.is_null());
        }
        sizes.serialize(serializer)
    }
}

impl ModelRecipe {
    /// Kinds of `[input]` that the network can read.
    pub fn inputs(&self) -> &'static [&'static str] {
        match self.0 {
            BackboneConfig::LundNet(_) => &["lund"],
            BackboneConfig::Mlp(_) => &["high-level"],
            BackboneConfig::ParticleNet(_)
            | BackboneConfig::ParticleTransformer(_)
            | BackboneConfig::JetClr(_)
            | BackboneConfig::DeepSets(_)
            | BackboneConfig::EventGnn(_)
            | BackboneConfig::EventGat(_) => &["particles"],
        }
    }

    /// The network with its input in a few words, such as `LundNet-5`.
    pub fn title(&self, input: &InputSpec) -> String {
        let features = input.features().len();
        match &self.0 {
            BackboneConfig::LundNet(_) => format!("LundNet-{features}"),
            other => format!("{} of {features} features", other.title()),
        }
    }
}

/// `[input]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum InputRecipe {
    /// Lund tree of the jet, reclustered with Cambridge/Aachen.
    Lund {
        /// `lundnet-2`, `-3`, `-4` or `-5`: quantities per declustering.
        features: FeatureSet,
        /// Declusterings with a smaller ln(kt / GeV) are left out; absent: all are kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ln_kt_min: Option<f64>,
        /// Declustering stops below this ln(Delta); absent: never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ln_delta_min: Option<f64>,
        /// Form of psi: `lundnet` (as the published weights know it) or `atan2` (wrapped).
        #[serde(default)]
        psi: PsiForm,
    },
    /// Constituents of the jet, falling in pt.
    Particles {
        /// `kin` (7 features), `kinpid` (13: with charge and kind), `full` (17: with impact parameters), `jetclr` or `flow` (3), `directions` (2).
        features: ParticleFeatures,
        /// Constituents kept, those of largest pt; absent: 128 for `kin`, `kinpid` and `full`, 50 for `jetclr`, all for the others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_constituents: Option<usize>,
        /// The jet that features are relative to: `stored` (that of the file, where it has one) or `sum` (of the constituents).
        #[serde(default)]
        jet: JetReference,
    },
    /// Variables of the whole jet, standardised on the training jets.
    HighLevel {
        /// Of `pt`, `mass`, `soft_drop_mass`, `tau21`, `tau32`, `multiplicity`, `c2`, `d2`, `width`.
        #[serde(default = "default_variables")]
        variables: Vec<Variable>,
    },
}

impl InputRecipe {
    /// As the data crate takes it.
    pub fn spec(&self) -> InputSpec {
        match self {
            &Self::Lund { features, ln_kt_min, ln_delta_min, psi } => {
                InputSpec::Lund(LundInput { features, cuts: LundCuts { ln_kt_min, ln_delta_min }, psi })
            }
            &Self::Particles { features, max_constituents, jet } => {
                InputSpec::Particles(ParticleInput { features, max_constituents, jet })
            }
            Self::HighLevel { variables } => {
                InputSpec::HighLevel(HighLevelInput { variables: variables.clone() })
            }
        }
    }

    /// Its `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Lund { .. } => "lund",
            Self::Particles { .. } => "particles",
            Self::HighLevel { .. } => "high-level",
        }
    }

    /// Writes out the default that depends on other keys.
    pub(super) fn resolve(&mut self) {
        if let Self::Particles { features, max_constituents, .. } = self {
            *max_constituents = max_constituents.or(features.usual_constituents());
        }
    }
}

/// A class of jets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassRecipe {
    /// Name in tables, figures and column names.
    pub name: String,
    /// Selection that says which jets are of this class, such as `process == 1`; absent: all of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Files of this class, for sets that have a file per class; they need not stand in the task's `files` too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// Part of the class's events that this task may use, as an interval of the event hash in [0, 1). Two tasks that
    /// share a class (QCD) take intervals that do not overlap, so that they share no event.
    #[serde(default = "default_share")]
    pub share: [f64; 2],
}

/// `[source.task]`, `[target]` or `[task]`: classes and where their jets are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRecipe {
    /// Jet files; a relative path is sought from the current folder, then beside the recipe, then in the checkout.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// Only jets for which this holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<String>,
    /// Names of the columns, where they differ from the defaults.
    #[serde(default)]
    pub columns: JetColumns,
    /// Rows with NaN, infinities or no constituents: `drop` (counted in the ledger) or `error`.
    #[serde(default)]
    pub on_bad: OnBad,
    /// Definition of the jets, for the card and the figures.
    pub jets: JetsRecipe,
    /// The background class (label 0).
    pub background: ClassRecipe,
    /// The signal class (label 1).
    pub signal: ClassRecipe,
    /// How events are split.
    pub split: SplitRecipe,
}

/// How the jets in the files were made. Nothing is cut by it (that is `select`); it goes onto the card and the figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JetsRecipe {
    /// Such as `anti-kt`.
    pub algorithm: String,
    /// R.
    pub radius: f64,
    /// Smallest transverse momentum, GeV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pt_min_gev: Option<f64>,
    /// Largest transverse momentum, GeV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pt_max_gev: Option<f64>,
    /// Anything else, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl JetsRecipe {
    /// For the card.
    pub fn card(&self) -> JetCard {
        JetCard {
            algorithm: self.algorithm.clone(),
            radius: self.radius,
            pt_min_gev: self.pt_min_gev,
            pt_max_gev: self.pt_max_gev,
            note: self.note.clone(),
        }
    }
}

/// Parts of the events, by hash of the event id. Their sum is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRecipe {
    /// For training.
    pub train: f64,
    /// For early stopping and the choice of weights.
    pub validation: f64,
    /// Touched once, by the chosen weights.
    pub test: f64,
}

/// `[source]` of a study: exactly one of `train` (with `task`), `run` and `weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecipe {
    /// The source task, to train the source on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRecipe>,
    /// How the source is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainOptions>,
    /// A run folder of jetgraft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<PathBuf>,
    /// A foreign weight file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsRecipe>,
}

/// A foreign weight file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsRecipe {
    /// PyTorch (either layout) or safetensors. A shipped recipe leaves it empty and asks for it.
    pub file: PathBuf,
    /// Network: `lundnet-3`, `lundnet-5`, `particlenet`, `particle-transformer`, `jetclr` and others.
    #[serde(rename = "as")]
    pub network: String,
}

/// `[source]` of a train recipe: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    /// A run folder of jetgraft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<PathBuf>,
    /// A foreign weight file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsRecipe>,
}

/// `[study]`: the matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixRecipe {
    /// Target training sizes in jets, both classes together, rising.
    pub sizes: Vec<usize>,
    /// Number of seeds; each has its own subsets and initial weights. Two or more, since every number gets an interval over seeds.
    pub seeds: usize,
    /// Plans; the one of kind `scratch` is the reference.
    pub plans: Vec<NamedPlan>,
}

/// A plan with its name in tables and figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedPlan {
    /// Name.
    pub name: String,
    /// What is kept, frozen, and at which rate the rest learns.
    #[serde(flatten)]
    pub plan: PlanOptions,
    /// Another network than the study's, from scratch: to compare backbones on the same jets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRecipe>,
    /// What that network reads; absent: the study's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputRecipe>,
    /// Learning rate of this plan's runs; absent: that of `[train]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
}

impl StudyRecipe {
    /// Network of a plan.
    pub fn model_of<'a>(&'a self, plan: &'a NamedPlan) -> &'a ModelRecipe {
        plan.model.as_ref().unwrap_or(&self.model)
    }

    /// Input of a plan's network.
    pub fn input_of<'a>(&'a self, plan: &'a NamedPlan) -> &'a InputRecipe {
        plan.input.as_ref().unwrap_or(&self.input)
    }

    /// The plan that the others are compared with: the first from scratch.
    pub fn reference(&self) -> Option<&NamedPlan> {
        self.study.plans.iter().find(|named| !named.plan.needs_source())
    }

    /// How the runs of a plan train.
    pub fn train_of(&self, plan: &NamedPlan) -> TrainOptions {
        let mut train = self.train.clone();
        train.learning_rate = plan.learning_rate.unwrap_or(train.learning_rate);
        train
    }
}

/// `[statistics]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatisticsRecipe {
    /// Level of the intervals in tables.
    #[serde(default = "default_level")]
    pub level: f64,
    /// Level of the bands in figures.
    #[serde(default = "default_band_level")]
    pub band_level: f64,
    /// Bootstrap replicates.
    #[serde(default = "default_replicates")]
    pub replicates: usize,
}

impl Default for StatisticsRecipe {
    fn default() -> Self {
        Self { level: default_level(), band_level: default_band_level(), replicates: default_replicates() }
    }
}

fn default_seed() -> u64 {
    1
}
fn default_label() -> String {
    "simulation".into()
}
fn default_variables() -> Vec<Variable> {
    HighLevelInput::default().variables
}
fn default_share() -> [f64; 2] {
    [0.0, 1.0]
}
fn default_level() -> f64 {
    0.95
}
fn default_band_level() -> f64 {
    0.68
}
fn default_replicates() -> usize {
    1000
}

//! Networks of the product: from a recipe, from a run, from a foreign file; with the card that says what they expect.

use std::path::Path;

use burn::tensor::Device;
use jetgraft_data::InputSpec;
use jetgraft_data::high_level::HighLevelInput;
use jetgraft_data::lund_graphs::{FeatureSet, LundInput};
use jetgraft_data::particles::{ParticleFeatures, ParticleInput};
use jetgraft_learn::card::{BackboneCard, Card, DataCard, InputCard, JetCard, Provenance, VERSION};
use jetgraft_learn::graft::{GraftAllow, GraftReport, graft};
use jetgraft_learn::plan::{Plan, PlanOptions};
use jetgraft_nn::contract::Backbone;
use jetgraft_nn::registry::{AnyBackbone, BackboneConfig};
use jetgraft_nn::state::{State, load_state, state};

use crate::error::{Error, Result};
use crate::published;
use crate::recipe::schema::{JetsRecipe, ModelRecipe};
use crate::run_dir;

/// A network as numbers, with its card.
#[derive(Debug, Clone)]
pub struct Network {
    /// What it is and expects.
    pub card: Card,
    /// Its tensors.
    pub weights: State,
}

/// Sizes of a recipe's network.
pub fn config(model: &ModelRecipe, input: &InputSpec) -> BackboneConfig {
    model.config(input.features().len(), 2)
}

/// Refuses an input whose graphs lack what a network reads beside the features.
///
/// # Errors
/// Says what is missing.
pub fn check_fit(model: &AnyBackbone, input: &InputSpec) -> Result<()> {
    let needs = model.needs();
    let fault = |what: &str, kind: &str| {
        Err(Error::new(format!("the network {} reads {what}", model.kind()))
            .found(input.describe())
            .expected(format!("[input] kind = \"{kind}\"")))
    };
    if needs.edges && !input.has_edges() {
        return fault("trees of declusterings", "lund");
    }
    if needs.kinematics && !input.has_kinematics() {
        return fault("constituents with their momenta", "particles");
    }
    Ok(())
}

/// Sizes of a card's network.
///
/// # Errors
/// A backbone that this build does not know.
pub fn card_config(card: &Card) -> Result<BackboneConfig> {
    if !BackboneConfig::KINDS.contains(&card.backbone.kind.as_str()) {
        return Err(Error::new(format!("the network `{}` is a {}", card.name, card.backbone.kind))
            .expected(BackboneConfig::KINDS.join(", "))
            .hint("it was made by a newer version of jetgraft"));
    }
    let mut config = card.backbone.config.clone();
    if let Some(fields) = config.as_object_mut() {
        fields.insert("kind".into(), card.backbone.kind.clone().into());
    }
    serde_json::from_value(config)
        .map_err(|error| Error::new(format!("the card of `{}`: {error}", card.name)))
}

/// The network of a card with its weights.
///
/// # Errors
/// A backbone that this build does not know; weights of other names or shapes.
pub fn build(network: &Network, device: &Device) -> Result<AnyBackbone> {
    Ok(load_state(card_config(&network.card)?.build(0, device)?, &network.weights)?)
}

/// The card of a network that is trained from scratch.
///
/// # Errors
/// Ours, if the configuration cannot be written.
pub fn new_card(
    model: &AnyBackbone,
    name: &str,
    input: &InputCard,
    jets: &JetsRecipe,
    classes: &[String; 2],
    data: Vec<DataCard>,
    seed: u64,
) -> Result<Card> {
    Ok(Card {
        version: VERSION,
        name: name.into(),
        backbone: backbone_card(&model.config())?,
        input: input.clone(),
        jets: jets.card(),
        classes: classes.to_vec(),
        data,
        seed,
        provenance: Provenance { made_by: run_dir::version(), plan: "scratch".into(), sources: Vec::new() },
        weights: String::new(),
    })
}

fn backbone_card(config: &BackboneConfig) -> Result<BackboneCard> {
    let mut sizes = serde_json::to_value(config).map_err(|error| Error::ours(error.to_string()))?;
    if let Some(fields) = sizes.as_object_mut() {
        // It has a field of its own on the card.
        fields.remove("kind");
    }
    Ok(BackboneCard { kind: config.kind().into(), config: sizes })
}

/// A source from a run folder.
///
/// # Errors
/// As [`run_dir::read`].
pub fn from_run(path: &Path) -> Result<Network> {
    let run = run_dir::read(path)?;
    Ok(Network { card: run.card, weights: run.weights })
}

/// What came out of a foreign file.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network.
    pub network: Network,
    /// Kept, fresh, missing, unused, mis-shaped tensors.
    pub report: GraftReport,
    /// Layout of the file.
    pub layout: &'static str,
    /// Entries of the file that say nothing about the function, such as counters.
    pub ignored: Vec<String>,
}

/// Networks as `import --as` and recipes name them.
pub const IMPORTS: &[&str] = &[
    "lundnet-2",
    "lundnet-3",
    "lundnet-4",
    "lundnet-5",
    "particlenet",
    "particle-transformer",
    "jetclr",
    "pfn",
    "efn",
    "mlp",
    "event-gnn",
    "event-gat",
];

/// Classes of JetClass in the order of the networks trained on it (facts of arXiv:2202.03772).
const JETCLASS: [&str; 10] = ["QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl"];

/// What a network of a foreign file reads: the input of its kind with as many features.
fn imported_input(network: &str, config: &BackboneConfig) -> Result<InputSpec> {
    let count = config.input_features();
    let known: Vec<InputSpec> = match config {
        BackboneConfig::LundNet(_) => {
            [FeatureSet::LundNet2, FeatureSet::LundNet3, FeatureSet::LundNet4, FeatureSet::LundNet5]
                .map(|features| InputSpec::Lund(LundInput { features, ..LundInput::default() }))
                .into()
        }
        BackboneConfig::Mlp(_) => vec![InputSpec::HighLevel(HighLevelInput::default())],
        BackboneConfig::JetClr(_) => vec![particles(ParticleFeatures::JetClr)],
        BackboneConfig::DeepSets(_) => {
            [ParticleFeatures::Flow, ParticleFeatures::Directions].map(particles).into()
        }
        _ => [ParticleFeatures::Kin, ParticleFeatures::KinPid, ParticleFeatures::Full].map(particles).into(),
    };
    known.iter().find(|spec| spec.features().len() == count).cloned().ok_or_else(|| {
        let sizes: Vec<String> = known.iter().map(|spec| spec.features().len().to_string()).collect();
        Error::new(format!("a {network} that reads {count} features a node"))
            .expected(format!("one of the known inputs of that network: {} features", sizes.join(", ")))
    })
}

fn particles(features: ParticleFeatures) -> InputSpec {
    InputSpec::Particles(ParticleInput { features, ..ParticleInput::default() })
}

/// A source from a foreign weight file; nothing in it is executed.
///
/// # Errors
/// A file that is no weight file, or not of the network named; zero matches or an unexplained shape.
pub fn import(path: &Path, network: &str, classes: &[String]) -> Result<Imported> {
    let kind = match network {
        _ if !IMPORTS.contains(&network) => {
            return Err(Error::new(format!("no network `{network}`")).expected(IMPORTS.join(", ")));
        }
        "pfn" | "efn" => "deep-sets",
        _ if network.starts_with("lundnet-") => "lundnet",
        other => other,
    };
    let foreign = jetgraft_nn::import::read_file(path)?;
    let imported =
        BackboneConfig::from_foreign(kind, &foreign.tensors).map_err(|error| error.in_file(path))?;
    let config = imported.config;
    let spec = imported_input(network, &config)?;
    if let Some(wanted) =
        network.strip_prefix("lundnet-").filter(|wanted| *wanted != config.input_features().to_string())
    {
        return Err(Error::new(format!(
            "{}: a network of {} features",
            path.display(),
            config.input_features()
        ))
        .expected(format!("{wanted} for {network}"))
        .hint(format!("import it with --as lundnet-{}", config.input_features())));
    }
    // The usual names stand for those of JetClass where a network has as many outputs.
    let unnamed = classes == ["background", "signal"];
    let classes: Vec<String> = if unnamed && config.classes() == JETCLASS.len() {
        JETCLASS.map(String::from).into()
    } else {
        classes.to_vec()
    };
    if config.classes() != classes.len() {
        return Err(Error::new(format!("{}: a head of {} classes", path.display(), config.classes()))
            .found(format!("{} names: {}", classes.len(), classes.join(", ")))
            .hint("name them with --classes"));
    }
    let device = Device::flex();
    let fresh = config.build(0, &device)?;
    let plan =
        plan_for(&fresh, &PlanOptions::FineTune { rates: Default::default(), head: Default::default() })?;
    let (weights, report) = graft(&imported.state, &state(&fresh), &plan, &GraftAllow::default())?;
    let digest = jetgraft_data::manifest::digest(path)?.to_hex().to_string();
    let known = published::find(&digest);
    let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let card = Card {
        version: VERSION,
        name: known.map_or_else(|| file_name.clone(), |known| known.name.to_string()),
        backbone: backbone_card(&fresh.config())?,
        // The published taggers normalise their inputs themselves, by a first BatchNorm or by fixed shifts and scales
        // in their features; those of LundNet know no cut (their INFO files say so), and psi as their code makes it.
        input: InputCard::new(spec, None),
        jets: JetCard {
            algorithm: known.map_or("unknown", |_| "anti-kt").into(),
            radius: known.map_or(0.0, |_| 1.0),
            pt_min_gev: known.map(|_| 500.0),
            pt_max_gev: None,
            note: known
                .map_or("imported; its file says nothing of its jets".into(), |known| known.test_set.into()),
        },
        classes: match known {
            Some(known) if unnamed => vec!["QCD".into(), known.signal.into()],
            _ => classes,
        },
        data: Vec::new(),
        seed: 0,
        provenance: Provenance {
            made_by: match known {
                Some(known) => format!("{} (BLAKE3 {digest})", known.source),
                None => format!("imported from {file_name} (BLAKE3 {digest})"),
            },
            plan: "import".into(),
            sources: Vec::new(),
        },
        weights: String::new(),
    };
    let layout = match foreign.format {
        jetgraft_nn::import::Format::PytorchZip => "PyTorch, zip layout",
        jetgraft_nn::import::Format::PytorchLegacy => "PyTorch, layout before 1.6",
        jetgraft_nn::import::Format::Safetensors => "safetensors",
    };
    Ok(Imported { network: Network { card, weights }, report, layout, ignored: imported.ignored })
}

/// The published file that an imported network came from.
pub fn published_of(card: &Card) -> Option<&'static published::Published> {
    published::ALL.iter().find(|known| card.provenance.made_by.contains(known.blake3))
}

/// A plan for a network.
///
/// # Errors
/// A stage that the network does not have, a rate that makes no sense.
pub fn plan_for<B: Backbone>(model: &B, options: &PlanOptions) -> Result<Plan> {
    let names = jetgraft_learn::names::names_of(&state(model));
    Ok(Plan::new(&model.stages(), &names, options)?)
}

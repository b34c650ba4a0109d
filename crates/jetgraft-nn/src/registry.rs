//! Every backbone by name: its configuration, and one type that holds any of them.
//!
//! What trains, grafts, stores and predicts knows [`AnyBackbone`] and the [contract](crate::contract) only. A new
//! backbone is a file in `models/` and one line in the list below.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::{Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::contract::{Backbone, Mode, Needs, RaggedGraph, Rows, Stage};
use crate::error::NnError;
use crate::import::ForeignTensor;
use crate::import::keys::Imported;
use crate::models::deep_sets::{self, DeepSets, DeepSetsConfig};
use crate::models::event_gat::{self, EventGat, EventGatConfig};
use crate::models::event_gnn::{self, EventGnn, EventGnnConfig};
use crate::models::jetclr::{self, JetClr, JetClrConfig};
use crate::models::lundnet::{self, LundNet, LundNetConfig};
use crate::models::mlp::{self, Mlp, MlpConfig};
use crate::models::particle_transformer::{self, ParticleTransformer, ParticleTransformerConfig};
use crate::models::particlenet::{self, ParticleNet, ParticleNetConfig};
use crate::state::State;

impl BackboneConfig {
    /// Names of the sizes that [`BackboneConfig::preset`] knows.
    pub const PRESETS: &[&str] = &[
        "lundnet",
        "particlenet",
        "particlenet-lite",
        "jetclr",
        "pfn",
        "efn",
        "mlp",
        "particle-transformer",
        "event-gnn",
        "event-gat",
    ];

    /// What people call it.
    pub fn title(&self) -> &'static str {
        match self {
            Self::LundNet(_) => "LundNet",
            Self::ParticleNet(_) => "ParticleNet",
            Self::ParticleTransformer(_) => "Particle Transformer",
            Self::JetClr(_) => "JetCLR encoder",
            Self::DeepSets(config) => match config.flow {
                deep_sets::Flow::Particle => "particle flow network",
                deep_sets::Flow::Energy => "energy flow network",
            },
            Self::Mlp(_) => "multi-layer perceptron",
            Self::EventGnn(_) => "event GNN",
            Self::EventGat(_) => "event GATv2",
        }
    }

    /// Published sizes by name, for the published input; see [`BackboneConfig::with_ends`].
    pub fn preset(name: &str) -> Option<Self> {
        Some(match name {
            "lundnet" => Self::LundNet(LundNetConfig::default()),
            "particlenet" => Self::ParticleNet(ParticleNetConfig::particlenet()),
            "particlenet-lite" => Self::ParticleNet(ParticleNetConfig::particlenet_lite()),
            "jetclr" => Self::JetClr(JetClrConfig::jetclr()),
            // Under its registry name in resolved recipes and on cards.
            "pfn" | "deep-sets" => Self::DeepSets(DeepSetsConfig::particle_flow()),
            "efn" => Self::DeepSets(DeepSetsConfig::energy_flow()),
            "particle-transformer" => Self::ParticleTransformer(ParticleTransformerConfig::default()),
            "event-gnn" => Self::EventGnn(EventGnnConfig::default()),
            "event-gat" => Self::EventGat(EventGatConfig::default()),
            "mlp" => Self::Mlp(MlpConfig::default()),
            _ => return None,
        })
    }
}

/// Writes everything that is the same for each backbone, by delegation.
macro_rules! backbones {
    ($($(#[$doc:meta])* $variant:ident($module:ident, $model:ty, $config:ty) = $name:literal;)+) => {
        /// Sizes of a backbone; serialised with the registry name as `kind`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        pub enum BackboneConfig {
            $($(#[$doc])* #[serde(rename = $name)] $variant($config),)+
        }

        impl BackboneConfig {
            /// Registry names of all backbones.
            pub const KINDS: &[&str] = &[$($module::KIND),+];

            /// Registry name.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $module::KIND,)+ }
            }

            /// A network with its usual start, drawn from `seed` and the parameters' names, on `device`.
            ///
            /// # Errors
            /// [`NnError::Config`].
            pub fn build(&self, seed: u64, device: &Device) -> Result<AnyBackbone, NnError> {
                Ok(match self {
                    $(Self::$variant(config) => AnyBackbone::$variant(<$model>::new(config, seed, device)?),)+
                })
            }

            /// Reads the tensors of a peer's weight file: names and layouts become ours, sizes come from the shapes.
            ///
            /// # Errors
            /// [`NnError::Config`] for a name that is not in the registry; [`NnError::Weights`], [`NnError::Names`] or
            /// [`NnError::Shape`] when the tensors do not make one whole network of that kind.
            pub fn from_foreign(
                kind: &str,
                tensors: &BTreeMap<String, ForeignTensor>,
            ) -> Result<Imported<Self>, NnError> {
                match kind {
                    $($module::KIND => {
                        let Imported { config, state, ignored } = $module::from_foreign(tensors)?;
                        Ok(Imported { config: Self::$variant(config), state, ignored })
                    })+
                    other => Err(NnError::Config {
                        network: "registry",
                        field: "kind",
                        found: other.to_owned(),
                        expected: Self::KINDS.join(", "),
                    }),
                }
            }

            /// A state under the peer's names and in its layout.
            ///
            /// # Errors
            /// [`NnError::Weights`] for a name that this network does not have.
            pub fn to_foreign(&self, state: &State) -> Result<BTreeMap<String, ForeignTensor>, NnError> {
                match self { $(Self::$variant(config) => $module::to_foreign(config, state),)+ }
            }

            /// Number of input features of a node.
            pub fn input_features(&self) -> usize {
                match self { $(Self::$variant(config) => config.input_features,)+ }
            }

            /// Number of classes of the head.
            pub fn classes(&self) -> usize {
                match self { $(Self::$variant(config) => config.classes,)+ }
            }

            /// The same sizes for other classes and inputs.
            #[must_use]
            pub fn with_ends(self, input_features: usize, classes: usize) -> Self {
                match self {
                    $(Self::$variant(config) => {
                        Self::$variant(config.with_ends(input_features, classes))
                    })+
                }
            }
        }

        /// Any backbone. Names of its parameters are those of the network inside.
        #[derive(Clone, Debug)]
        pub enum AnyBackbone {
            $($(#[$doc])* $variant($model),)+
        }

        impl AnyBackbone {
            /// The sizes it was built with (the classes are those of the present head).
            pub fn config(&self) -> BackboneConfig {
                match self { $(Self::$variant(model) => BackboneConfig::$variant(model.config().clone()),)+ }
            }
        }

        impl Module for AnyBackbone {
            fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
                match self { $(Self::$variant(model) => model.collect_devices(devices),)+ }
            }
            fn fork(self, device: &Device) -> Self {
                match self { $(Self::$variant(model) => Self::$variant(model.fork(device)),)+ }
            }
            fn to_device(self, device: &Device) -> Self {
                match self { $(Self::$variant(model) => Self::$variant(model.to_device(device)),)+ }
            }
            fn train(self) -> Self {
                match self { $(Self::$variant(model) => Self::$variant(model.train()),)+ }
            }
            fn valid(&self) -> Self {
                match self { $(Self::$variant(model) => Self::$variant(model.valid()),)+ }
            }
            fn materialize(self) -> Self {
                match self { $(Self::$variant(model) => Self::$variant(model.materialize()),)+ }
            }
            fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
                match self { $(Self::$variant(model) => model.visit(visitor),)+ }
            }
            fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
                match self { $(Self::$variant(model) => Self::$variant(model.map(mapper)),)+ }
            }
        }

        impl Backbone for AnyBackbone {
            fn kind(&self) -> &'static str {
                match self { $(Self::$variant(model) => model.kind(),)+ }
            }
            fn stages(&self) -> Vec<Stage> {
                match self { $(Self::$variant(model) => model.stages(),)+ }
            }
            fn classes(&self) -> usize {
                match self { $(Self::$variant(model) => model.classes(),)+ }
            }
            fn input_features(&self) -> usize {
                match self { $(Self::$variant(model) => model.input_features(),)+ }
            }
            fn needs(&self) -> Needs {
                match self { $(Self::$variant(model) => model.needs(),)+ }
            }
            fn rows_at(&self, cut: usize) -> Rows {
                match self { $(Self::$variant(model) => model.rows_at(cut),)+ }
            }
            fn width_at(&self, cut: usize) -> usize {
                match self { $(Self::$variant(model) => model.width_at(cut),)+ }
            }
            fn forward_stages(
                &self,
                stages: Range<usize>,
                activation: Tensor<2>,
                graph: &RaggedGraph,
                mode: &Mode,
            ) -> Tensor<2> {
                match self { $(Self::$variant(model) => model.forward_stages(stages, activation, graph, mode),)+ }
            }
            fn replace_head(self, classes: usize, seed: u64) -> Self {
                match self { $(Self::$variant(model) => Self::$variant(model.replace_head(classes, seed)),)+ }
            }
        }
    };
}

backbones! {
    /// LundNet: EdgeConv on the tree of a jet's declusterings.
    LundNet(lundnet, LundNet, LundNetConfig) = "lundnet";
    /// ParticleNet: EdgeConv on the nearest neighbours of a jet's particles.
    ParticleNet(particlenet, ParticleNet, ParticleNetConfig) = "particlenet";
    /// Particle or energy flow network: a deep set.
    DeepSets(deep_sets, DeepSets, DeepSetsConfig) = "deep-sets";
    /// JetCLR: transformer encoder for contrastive learning.
    JetClr(jetclr, JetClr, JetClrConfig) = "jetclr";
    /// Small network on high-level variables.
    Mlp(mlp, Mlp, MlpConfig) = "mlp";
    /// Particle Transformer: attention between all particles of a jet, told of each pair.
    ParticleTransformer(particle_transformer, ParticleTransformer, ParticleTransformerConfig) = "particle-transformer";
    /// Mean messages among all objects of an event.
    EventGnn(event_gnn, EventGnn, EventGnnConfig) = "event-gnn";
    /// Graph attention among all objects of an event.
    EventGat(event_gat, EventGat, EventGatConfig) = "event-gat";
}

impl ModuleDisplayDefault for AnyBackbone {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&self.kind()).optional()
    }
}

impl ModuleDisplay for AnyBackbone {}

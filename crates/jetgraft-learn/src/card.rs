//! What a network is and what it expects: the card that lies beside its weights and travels with them.

use jetgraft_data::{
    DataError, GraphSet, HighLevelInput, InputSpec, Jets, Ledger, LundInput, OnBad, ParticleInput,
    Standardisation,
};
use serde::{Deserialize, Serialize};

use crate::error::LearnError;

/// Version of the card's format.
pub const VERSION: u32 = 1;

/// A backbone and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneCard {
    /// Registry name, such as `lundnet`.
    pub kind: String,
    /// Its configuration, as the backbone writes it.
    pub config: serde_json::Value,
}

/// One input feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureCard {
    /// Its name, such as `ln_kt`.
    pub name: String,
    /// Its unit, such as `ln GeV`.
    pub unit: String,
}

/// What the network reads of a jet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "InputFields", into = "InputFields")]
pub struct InputCard {
    /// Trees, constituents or variables; written under a name of its own: `lund`, `particles`, `high_level`.
    pub spec: InputSpec,
    /// The features in order, with units.
    pub features: Vec<FeatureCard>,
    /// Centre and scale of the features; `None`: they go in as they are.
    pub standardisation: Option<Standardisation>,
}

impl InputCard {
    /// An input with the features that follow from it.
    pub fn new(spec: InputSpec, standardisation: Option<Standardisation>) -> Self {
        let features = spec.features();
        let card = |feature: &jetgraft_data::Feature| FeatureCard {
            name: feature.name.into(),
            unit: feature.unit.into(),
        };
        Self { features: features.iter().map(card).collect(), spec, standardisation }
    }

    /// Jets as the network reads them: every way from jets to a network goes through here, or through the same two
    /// steps where the standardisation is still to be learnt.
    ///
    /// # Errors
    /// As [`InputSpec::graphs_with`] and [`Standardisation::apply`].
    pub fn graphs(&self, jets: &Jets, on_bad: OnBad) -> Result<(GraphSet, Ledger), DataError> {
        let (mut graphs, ledger) = self.spec.graphs_with(jets, on_bad)?;
        if let Some(standardisation) = &self.standardisation {
            standardisation.apply(&mut graphs)?;
        }
        Ok((graphs, ledger))
    }
}

/// [`InputCard`] as it is written: exactly one of the inputs.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lund: Option<LundInput>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    particles: Option<ParticleInput>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high_level: Option<HighLevelInput>,
    features: Vec<FeatureCard>,
    standardisation: Option<Standardisation>,
}

impl From<InputCard> for InputFields {
    fn from(card: InputCard) -> Self {
        let InputCard { spec, features, standardisation } = card;
        let (mut lund, mut particles, mut high_level) = (None, None, None);
        match spec {
            InputSpec::Lund(input) => lund = Some(input),
            InputSpec::Particles(input) => particles = Some(input),
            InputSpec::HighLevel(input) => high_level = Some(input),
        }
        Self { lund, particles, high_level, features, standardisation }
    }
}

impl TryFrom<InputFields> for InputCard {
    type Error = &'static str;

    fn try_from(fields: InputFields) -> Result<Self, Self::Error> {
        let spec = match (fields.lund, fields.particles, fields.high_level) {
            (Some(input), None, None) => InputSpec::Lund(input),
            (None, Some(input), None) => InputSpec::Particles(input),
            (None, None, Some(input)) => InputSpec::HighLevel(input),
            _ => return Err("an input without exactly one of `lund`, `particles` and `high_level`"),
        };
        Ok(Self { spec, features: fields.features, standardisation: fields.standardisation })
    }
}

/// How the jets were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JetCard {
    /// Such as `anti-kt`.
    pub algorithm: String,
    /// R.
    pub radius: f64,
    /// Smallest transverse momentum, GeV.
    pub pt_min_gev: Option<f64>,
    /// Largest transverse momentum, GeV.
    pub pt_max_gev: Option<f64>,
    /// Anything else, in words: level of simulation, selection.
    pub note: String,
}

/// One file that the network has learnt from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataCard {
    /// File name, without folders.
    pub name: String,
    /// BLAKE3 of its content.
    pub digest: String,
    /// Jets used of it.
    pub jets: u64,
}

/// How the network came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version, or the paper and repository of published weights.
    pub made_by: String,
    /// Kind of the plan; `scratch` for a first training.
    pub plan: String,
    /// The networks it was grafted on, nearest first.
    pub sources: Vec<SourceCard>,
}

/// A network that another one was grafted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCard {
    /// Its name.
    pub name: String,
    /// Classes of its head.
    pub classes: Vec<String>,
    /// BLAKE3 of its weight file.
    pub weights: String,
    /// What it had learnt from.
    pub data: Vec<DataCard>,
}

/// The card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Version of this format.
    pub version: u32,
    /// Name of the network, for people.
    pub name: String,
    /// What is computed.
    pub backbone: BackboneCard,
    /// What goes in.
    pub input: InputCard,
    /// What the jets are.
    pub jets: JetCard,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// What it has learnt from.
    pub data: Vec<DataCard>,
    /// Seed of its training.
    pub seed: u64,
    /// How it came to be.
    pub provenance: Provenance,
    /// BLAKE3 of its weight file.
    pub weights: String,
}

/// BLAKE3 of the bytes of a weight file, as it stands on a card.
pub fn weights_digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

impl Card {
    /// Reads a card.
    ///
    /// # Errors
    /// [`LearnError::Card`] for text that is not a card or a card of another version.
    pub fn from_json(text: &[u8]) -> Result<Self, LearnError> {
        let fault = |what: &str, found: String, expected: String| LearnError::Card {
            what: what.to_owned(),
            found,
            expected,
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let text_fault =
            |error: serde_json::Error| fault("its card", error.to_string(), "a card in JSON".into());
        let Version { version } = serde_json::from_slice(text).map_err(text_fault)?;
        if version != VERSION {
            return Err(fault("the version of its card", version.to_string(), VERSION.to_string()));
        }
        serde_json::from_slice(text).map_err(text_fault)
    }

    /// Writes it as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        crate::snapshot::json(self)
    }

    /// Checks that weights are those of the card.
    ///
    /// # Errors
    /// [`LearnError::Card`].
    pub fn check_weights(&self, bytes: &[u8]) -> Result<(), LearnError> {
        let found = weights_digest(bytes);
        if found == self.weights {
            return Ok(());
        }
        Err(LearnError::Card {
            what: "the digest of its weights".into(),
            found,
            expected: self.weights.clone(),
        })
    }

    /// Checks that jets prepared as `input` says are what this network reads. The standardisation is not compared:
    /// it travels with the source, see [`Card::grafted`].
    ///
    /// # Errors
    /// [`LearnError::Card`] with the first difference.
    pub fn check_input(&self, input: &InputSpec) -> Result<(), LearnError> {
        match input.difference(&self.input.spec) {
            None => Ok(()),
            Some((what, found, expected)) => Err(LearnError::Card { what: what.to_owned(), found, expected }),
        }
    }

    /// The card of a network grafted on this one: input, standardisation and jet definition stay; classes, data
    /// and seed are new; this network becomes its nearest source. The weights' digest is still to be set.
    pub fn grafted(
        &self,
        name: &str,
        plan: &str,
        classes: Vec<String>,
        data: Vec<DataCard>,
        seed: u64,
    ) -> Self {
        let source = SourceCard {
            name: self.name.clone(),
            classes: self.classes.clone(),
            weights: self.weights.clone(),
            data: self.data.clone(),
        };
        let sources = std::iter::once(source).chain(self.provenance.sources.iter().cloned()).collect();
        let made_by = format!("jetgraft {}", env!("CARGO_PKG_VERSION"));
        Self {
            version: VERSION,
            name: name.to_owned(),
            backbone: self.backbone.clone(),
            input: self.input.clone(),
            jets: self.jets.clone(),
            classes,
            data,
            seed,
            provenance: Provenance { made_by, plan: plan.to_owned(), sources },
            weights: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jetgraft_data::PsiForm;

    fn card() -> Card {
        Card {
            version: VERSION,
            name: "W against QCD".into(),
            backbone: BackboneCard { kind: "lundnet".into(), config: serde_json::json!({ "classes": 2 }) },
            input: InputCard {
                spec: InputSpec::Lund(LundInput::default()),
                features: vec![FeatureCard { name: "ln_kt".into(), unit: "ln GeV".into() }],
                standardisation: Some(Standardisation {
                    names: vec!["ln_kt".into()],
                    center: vec![0.1],
                    scale: vec![1.7],
                    nodes: 1234,
                }),
            },
            jets: JetCard {
                algorithm: "anti-kt".into(),
                radius: 1.0,
                pt_min_gev: Some(500.0),
                pt_max_gev: None,
                note: String::new(),
            },
            classes: vec!["qcd".into(), "w".into()],
            data: vec![DataCard { name: "jets.parquet".into(), digest: "abc".into(), jets: 10 }],
            seed: 7,
            provenance: Provenance { made_by: "a test".into(), plan: "scratch".into(), sources: vec![] },
            weights: weights_digest(b"weights"),
        }
    }

    #[test]
    fn cards_come_back_and_others_are_refused() {
        let card = card();
        assert_eq!(Card::from_json(&card.to_json()).unwrap(), card);
        card.check_weights(b"weights").unwrap();
        assert!(card.check_weights(b"weightz").is_err());
        let mut other = card.clone();
        other.version = 9;
        match Card::from_json(&other.to_json()) {
            Err(LearnError::Card { what, found, .. }) => {
                assert_eq!((what.as_str(), found.as_str()), ("the version of its card", "9"));
            }
            other => panic!("{other:?}"),
        }
        assert!(Card::from_json(b"{}").is_err());
    }

    /// A card as the first release wrote it is read, and written again with the same bytes.
    #[test]
    fn inputs_have_names_of_their_own() {
        let lund = r#"{"lund":{"features":"lundnet-3","cuts":{"ln_kt_min":0.5},"psi":"atan2"},"features":[{"name":"ln_kt","unit":"ln GeV"}],"standardisation":null}"#;
        let card: InputCard = serde_json::from_str(lund).unwrap();
        assert!(matches!(card.spec, InputSpec::Lund(LundInput { psi: PsiForm::Atan2, .. })));
        assert_eq!(serde_json::to_string(&card).unwrap(), lund);

        let input = ParticleInput { max_constituents: Some(64), ..ParticleInput::default() };
        let card = InputCard::new(InputSpec::Particles(input), None);
        let text = serde_json::to_string(&card).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"particles":{"features":"kin","max_constituents":64,"jet":"stored"},"features":["#,
                r#"{"name":"part_pt_log","unit":"0.7 (ln GeV - 1.7), cut at 5"},"#,
                r#"{"name":"part_e_log","unit":"0.7 (ln GeV - 2), cut at 5"},"#,
                r#"{"name":"part_logptrel","unit":"0.7 (ln 1 + 4.7), cut at 5"},"#,
                r#"{"name":"part_logerel","unit":"0.7 (ln 1 + 4.7), cut at 5"},"#,
                r#"{"name":"part_deltaR","unit":"4 (rad - 0.2), cut at 5"},"#,
                r#"{"name":"part_deta","unit":"1"},{"name":"part_dphi","unit":"rad"}],"standardisation":null}"#
            )
        );
        assert_eq!(serde_json::from_str::<InputCard>(&text).unwrap(), card);

        let variables = vec![jetgraft_data::Variable::Mass, jetgraft_data::Variable::Tau21];
        let card = InputCard::new(InputSpec::HighLevel(HighLevelInput { variables }), None);
        let text = serde_json::to_string(&card).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"high_level":{"variables":["mass","tau21"]},"features":["#,
                r#"{"name":"mass","unit":"GeV"},{"name":"tau21","unit":"1"}],"standardisation":null}"#
            )
        );
        assert_eq!(serde_json::from_str::<InputCard>(&text).unwrap(), card);

        for bad in [
            r#"{"features":[],"standardisation":null}"#,
            r#"{"lund":{},"particles":{},"features":[],"standardisation":null}"#,
            r#"{"pixels":{},"features":[],"standardisation":null}"#,
        ] {
            assert!(serde_json::from_str::<InputCard>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_input_travels_and_is_compared() {
        let card = card();
        card.check_input(&InputSpec::Lund(LundInput::default())).unwrap();
        let default = LundInput::default();
        let other = [PsiForm::LundNet, PsiForm::Atan2].into_iter().find(|form| *form != default.psi).unwrap();
        assert!(card.check_input(&InputSpec::Lund(LundInput { psi: other, ..default })).is_err());
        let particles = InputSpec::Particles(ParticleInput::default());
        match card.check_input(&particles) {
            Err(LearnError::Card { what, .. }) => assert_eq!(what, "the kind of input"),
            other => panic!("{other:?}"),
        }
        let grafted = card.grafted("top", "frozen", vec!["qcd".into(), "top".into()], vec![], 3);
        assert_eq!((&grafted.input, &grafted.jets), (&card.input, &card.jets));
        assert_eq!(grafted.provenance.sources[0].weights, card.weights);
        let again = grafted.grafted("top, other detector", "fine-tune", grafted.classes.clone(), vec![], 4);
        assert_eq!(again.provenance.sources.len(), 2);
        assert_eq!(again.provenance.sources[1].name, "W against QCD");
    }
}

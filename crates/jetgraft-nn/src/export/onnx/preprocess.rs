//! From four-vectors of constituents to the features of a network, inside the graph.
//!
//! Everything is computed in double precision and rounded once. With `p = (px, py, pz)`, `pt^2 = px^2 + py^2`, and the
//! jet's four-vector (given, or the sum over constituents): `eta = sign(pz) ln((|p| + |pz|) / pt)`,
//! `rapidity = sign(pz) ln((E + |pz|) / mt)`, `mt^2 = m^2 + pt^2`, `m^2 = max(E^2 - |p|^2, 0)`. Azimuths are taken
//! relative to the jet from the sine and cosine of the difference, so nothing wraps and nothing cancels.

use super::builder::{Bool, Builder, Dim, F32, F64, Var};
use super::pieces::{Constituents, Slots, azimuth, mask};

/// What a feature is, before it is shifted, scaled and clipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// `ln(pt / GeV)`.
    LogPt,
    /// `ln(E / GeV)`.
    LogEnergy,
    /// `ln(pt / pt of the jet)`.
    LogPtShare,
    /// `ln(E / E of the jet)`.
    LogEnergyShare,
    /// `hypot(delta eta, delta phi)` to the jet.
    DeltaR,
    /// Pseudorapidity minus that of the jet, times -1 where the jet's is negative.
    DeltaEta,
    /// Rapidity minus that of the jet.
    DeltaRapidity,
    /// Azimuth minus that of the jet, in `(-pi, pi]`.
    DeltaPhi,
    /// A column of the input `properties`, as it is.
    Property,
    /// The hyperbolic tangent of a column of the input `properties`.
    TanhProperty,
}

impl Quantity {
    /// Whether a caller must give it.
    pub fn is_property(self) -> bool {
        matches!(self, Self::Property | Self::TanhProperty)
    }
}

/// One feature: `clip((x - shift) scale, low, high)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name, or that of the property it is made of.
    pub name: String,
    /// What it is made of.
    pub quantity: Quantity,
    /// Subtracted first.
    pub shift: f64,
    /// Multiplied then.
    pub scale: f64,
    /// Bounds at last, if any.
    pub clip: Option<(f64, f64)>,
}

/// The jet that features are relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JetAxis {
    /// The sum of the constituents given.
    #[default]
    Sum,
    /// A four-vector given beside them, for jets with more constituents than are given.
    Given,
}

/// Features computed inside the graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preprocessing {
    /// In the order of the network's inputs.
    pub features: Vec<Feature>,
    /// What they are relative to.
    pub axis: JetAxis,
}

impl Preprocessing {
    /// Names of the properties that a caller gives, in order.
    pub fn properties(&self) -> Vec<&str> {
        let given = self.features.iter().filter(|feature| feature.quantity.is_property());
        given.map(|feature| feature.name.as_str()).collect()
    }
}

struct Momenta {
    px: Var<F64>,
    py: Var<F64>,
    pz: Var<F64>,
    energy: Var<F64>,
    pt: Var<F64>,
    pt2: Var<F64>,
    p2: Var<F64>,
}

fn momenta(g: &Builder, vectors: &Var<F64>) -> Momenta {
    let [px, py, pz, energy] = [0, 1, 2, 3].map(|column| g.slice(vectors, -1, column, column + 1));
    let pt2 = g.add(&g.mul(&px, &px), &g.mul(&py, &py));
    let p2 = g.add(&pt2, &g.mul(&pz, &pz));
    Momenta { pt: g.sqrt(&pt2), px, py, pz, energy, pt2, p2 }
}

fn signed(g: &Builder, sign: &Var<F64>, x: &Var<F64>) -> Var<F64> {
    g.choose(&g.less(sign, &g.scalar(0.0)), &g.neg(x), x)
}

fn eta(g: &Builder, m: &Momenta) -> Var<F64> {
    let ratio = g.div(&g.add(&g.sqrt(&m.p2), &g.abs(&m.pz)), &m.pt);
    signed(g, &m.pz, &g.log(&ratio))
}

fn mass2(g: &Builder, m: &Momenta) -> Var<F64> {
    g.max(&g.sub(&g.mul(&m.energy, &m.energy), &m.p2), &g.scalar(0.0))
}

fn rapidity(g: &Builder, m: &Momenta) -> Var<F64> {
    let mt = g.sqrt(&g.add(&mass2(g, m), &m.pt2));
    signed(g, &m.pz, &g.log(&g.div(&g.add(&m.energy, &g.abs(&m.pz)), &mt)))
}

/// The inputs of a network with its preprocessing: `four_vectors`, `mask`, `jet` and `properties` where they are used.
pub fn constituents(
    g: &Builder,
    preprocessing: &Preprocessing,
    kinematics: bool,
) -> Constituents {
    let batch = Dim::Any("batch");
    let slots = Dim::Any("constituents");
    let words = "px, py, pz, energy of each constituent, GeV";
    let raw = g.input::<F64>("four_vectors", &[batch, slots, Dim::Is(4)], words);
    let Slots { given, real, mask, count } = mask(g, "constituents");
    let given = g.unsqueeze(&given, &[2]);
    let vectors = g.choose(&given, &raw, &g.scalar(0.0));
    let jet = match preprocessing.axis {
        JetAxis::Sum => g.reduce_sum(&vectors, &[1]),
        JetAxis::Given => {
            let words = "px, py, pz, energy of the jet, GeV";
            g.unsqueeze(&g.input::<F64>("jet", &[batch, Dim::Is(4)], words), &[1])
        }
    };
    let names = preprocessing.properties();
    let properties = (!names.is_empty()).then(|| {
        let dims = [batch, slots, Dim::Is(names.len())];
        g.cast::<_, F64>(&g.input::<F32>("properties", &dims, &format!("in order: {}", names.join(", "))))
    });

    g.scope("preprocessing");
    let (m, jet) = (momenta(g, &vectors), momenta(g, &jet));
    // Turned into the frame of the jet: the cosine and sine of the difference of azimuths, times both momenta.
    let along = g.add(&g.mul(&m.px, &jet.px), &g.mul(&m.py, &jet.py));
    let across = g.sub(&g.mul(&m.py, &jet.px), &g.mul(&m.px, &jet.py));
    let delta_phi = azimuth(g, &along, &across);
    let jet_eta = eta(g, &jet);
    let delta_eta = signed(g, &jet_eta, &g.sub(&eta(g, &m), &jet_eta));
    let mut column = 0;
    let columns: Vec<Var<F64>> = preprocessing
        .features
        .iter()
        .map(|feature| {
            let property = || match &properties {
                Some(properties) => g.slice(properties, -1, column, column + 1),
                None => unreachable!("a property has a column"),
            };
            let x = match feature.quantity {
                Quantity::LogPt => g.log(&m.pt),
                Quantity::LogEnergy => g.log(&m.energy),
                Quantity::LogPtShare => g.log(&g.div(&m.pt, &jet.pt)),
                Quantity::LogEnergyShare => g.log(&g.div(&m.energy, &jet.energy)),
                Quantity::DeltaR => {
                    let square = g.add(&g.mul(&delta_eta, &delta_eta), &g.mul(&delta_phi, &delta_phi));
                    g.sqrt(&square)
                }
                Quantity::DeltaEta => delta_eta.clone(),
                Quantity::DeltaRapidity => g.sub(&rapidity(g, &m), &rapidity(g, &jet)),
                Quantity::DeltaPhi => delta_phi.clone(),
                Quantity::Property => property(),
                Quantity::TanhProperty => g.tanh(&property()),
            };
            column += i64::from(feature.quantity.is_property());
            ended(g, &x, feature)
        })
        .collect();
    let features = g.concat(&columns.iter().collect::<Vec<_>>(), -1);
    let features = kept(g, &given, &features);
    let kinematics = kinematics.then(|| {
        let relative = g.sub(&rapidity(g, &m), &rapidity(g, &jet));
        kept(g, &given, &g.concat(&[&m.pt, &relative, &delta_phi, &g.sqrt(&mass2(g, &m))], -1))
    });
    Constituents { features, real, mask, count, kinematics }
}

fn ended(g: &Builder, x: &Var<F64>, feature: &Feature) -> Var<F64> {
    let mut x = x.clone();
    if feature.shift != 0.0 {
        x = g.sub(&x, &g.scalar(feature.shift));
    }
    if feature.scale != 1.0 {
        x = g.mul(&x, &g.scalar(feature.scale));
    }
    if let Some((low, high)) = feature.clip {
        x = g.min(&g.max(&x, &g.scalar(low)), &g.scalar(high));
    }
    x
}

/// Rounded, and 0 where there is no constituent: what logarithms make of padding is never seen.
fn kept(g: &Builder, given: &Var<Bool>, x: &Var<F64>) -> Var<F32> {
    g.choose(given, &g.cast::<_, F32>(x), &g.scalar(0.0))
}

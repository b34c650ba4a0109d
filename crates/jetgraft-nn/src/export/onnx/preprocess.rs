//! From four-vectors of constituents to the features of a network, inside the graph.
//!
//! Everything is computed in double precision and rounded once. With `p = (px, py, pz)`, `pt^2 = px^2 + py^2`, and the
//! jet's four-vector (given, or the sum over constituents): `eta = sign(pz) ln((|p| + |pz|) / pt)`,
//! `rapidity = sign(pz) ln((E + |pz|) / mt)`, `mt^2 = m^2 + pt^2`, `m^2 = max(E^2 - |p|^2, 0)`. Azimuths are taken
//! relative to the jet from the sine and cosine of the difference, so nothing wraps and nothing cancels. A constituent
//! without transverse momentum has no direction and is left out; it still counts in the sum.

use super::OnnxOptions;
use super::builder::{Bool, Builder, Dim, F32, F64, Var};
use super::pieces::{Constituents, Slots, azimuth, mask_input, rows, slots_of, standardised};

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
    MirroredDeltaEta,
    /// `pt` of the constituent, GeV.
    Pt,
    /// `pt` over the sum of the `pt` of the constituents kept.
    PtFraction,
    /// Pseudorapidity minus the mean over the constituents kept, weighted by `pt`.
    CentredEta,
    /// Azimuth minus the same mean; both are taken relative to the jet first.
    CentredPhi,
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
    /// Only so many constituents are kept, those of largest `pt`; the others still count in the sum.
    pub limit: Option<usize>,
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
    options: &OnnxOptions,
) -> Constituents {
    let batch = Dim::Any("batch");
    let slots = Dim::Any("constituents");
    let words = "px, py, pz, energy of each constituent, GeV";
    let raw = g.input::<F64>("four_vectors", &[batch, slots, Dim::Is(4)], words);
    let marks = mask_input(g, "constituents");
    let names = preprocessing.properties();
    let properties = (!names.is_empty()).then(|| {
        let dims = [batch, slots, Dim::Is(names.len())];
        g.input::<F32>("properties", &dims, &format!("in order: {}", names.join(", ")))
    });
    g.scope("preprocessing");
    let raw = g.choose(&g.unsqueeze(&marks, &[2]), &raw, &g.scalar(0.0));
    let jet = match preprocessing.axis {
        JetAxis::Sum => g.reduce_sum(&raw, &[1]),
        JetAxis::Given => {
            let words = "px, py, pz, energy of the jet, GeV";
            g.unsqueeze(&g.input::<F64>("jet", &[batch, Dim::Is(4)], words), &[1])
        }
    };
    let jet = momenta(g, &jet);
    let (vectors, properties) = match preprocessing.limit {
        None => (raw, properties),
        Some(limit) => {
            let pt = g.squeeze(&momenta(g, &raw).pt, &[2]);
            let count = g.min(&g.size(&pt, 1), &g.list(&[limit as i64]));
            let (_, hardest) = g.smallest(&g.neg(&pt), &count);
            let kept = properties.map(|values| rows(g, &values, &hardest, names.len(), 2));
            (rows(g, &raw, &hardest, 4, 2), kept)
        }
    };
    let m = momenta(g, &vectors);
    // What is kept has a direction; padding is zero by now, so it has none.
    let present = g.greater(&m.pt, &g.scalar(0.0));
    let Slots { given, real, mask, count } = slots_of(g, &g.squeeze(&present, &[2]));
    let given = g.unsqueeze(&given, &[2]);
    let properties = properties.map(|values| g.cast::<_, F64>(&values));

    // Turned into the frame of the jet: the cosine and sine of the difference of azimuths, times both momenta.
    let along = g.add(&g.mul(&m.px, &jet.px), &g.mul(&m.py, &jet.py));
    let across = g.sub(&g.mul(&m.py, &jet.px), &g.mul(&m.px, &jet.py));
    let delta_phi = azimuth(g, &along, &across);
    let jet_eta = eta(g, &jet);
    let delta_eta = g.sub(&eta(g, &m), &jet_eta);
    let delta_rapidity = g.sub(&rapidity(g, &m), &rapidity(g, &jet));
    let total_pt = || g.reduce_sum(&m.pt, &[1]);
    let centred = |x: &Var<F64>| {
        let x = g.choose(&given, x, &g.scalar(0.0));
        let centre = g.div(&g.reduce_sum(&g.mul(&m.pt, &x), &[1]), &total_pt());
        g.sub(&x, &centre)
    };
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
                Quantity::MirroredDeltaEta => signed(g, &jet_eta, &delta_eta),
                Quantity::Pt => m.pt.clone(),
                Quantity::PtFraction => g.div(&m.pt, &total_pt()),
                Quantity::CentredEta => centred(&delta_eta),
                Quantity::CentredPhi => centred(&delta_phi),
                Quantity::DeltaRapidity => delta_rapidity.clone(),
                Quantity::DeltaPhi => delta_phi.clone(),
                Quantity::Property => property(),
                Quantity::TanhProperty => g.tanh(&property()),
            };
            column += i64::from(feature.quantity.is_property());
            ended(g, &x, feature)
        })
        .collect();
    let features = g.concat(&columns.iter().collect::<Vec<_>>(), -1);
    let features = kept(g, &given, &standardised(g, &g.cast(&features), options));
    let kinematics = kinematics.then(|| {
        let columns = g.concat(&[&m.pt, &delta_rapidity, &delta_phi, &g.sqrt(&mass2(g, &m))], -1);
        kept(g, &given, &g.cast(&columns))
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

/// 0 where there is no constituent: what logarithms make of padding is never seen.
fn kept(g: &Builder, given: &Var<Bool>, x: &Var<F32>) -> Var<F32> {
    g.choose(given, x, &g.scalar(0.0))
}

//! What the exporters are made of: weights from a state, norms folded, masked constituents.

use super::OnnxOptions;
use super::builder::{Bool, Builder, Dim, Element, F32, F64, I64, Var};
use crate::error::NnError;
use crate::layers::NORM_EPSILON;
use crate::state::{NamedTensor, State};

/// Logit of what must not be attended to; its exponential is 0 beside any real one, and no infinity meets another.
pub const NEVER: f64 = -1e30;

/// A graph while it is made, with the weights it is made from.
pub struct Net<'a> {
    /// The graph.
    pub g: &'a Builder,
    /// The weights.
    pub state: &'a State,
}

/// A map of single columns, `x scale + shift`, in double precision until it is written.
pub struct Affine {
    /// Factor of each column.
    pub scale: Vec<f64>,
    /// Added to each column.
    pub shift: Vec<f64>,
}

/// A matrix in double precision, `[rows, columns]`.
pub struct Matrix {
    /// Number of inputs.
    pub rows: usize,
    /// Number of outputs.
    pub columns: usize,
    /// Row by row.
    pub values: Vec<f64>,
}

impl Matrix {
    /// Columns times factors: a map and the factors of a norm behind it.
    #[must_use]
    pub fn scaled(mut self, scale: &[f64]) -> Self {
        for row in self.values.chunks_exact_mut(self.columns.max(1)) {
            row.iter_mut().zip(scale).for_each(|(value, scale)| *value *= scale);
        }
        self
    }

    /// Difference of two maps of the same sizes.
    #[must_use]
    pub fn minus(mut self, other: &Self) -> Self {
        self.values.iter_mut().zip(&other.values).for_each(|(value, other)| *value -= other);
        self
    }

    /// Rows `from..to`.
    #[must_use]
    pub fn rows(&self, from: usize, to: usize) -> Self {
        let values = self.values[from * self.columns..to * self.columns].to_vec();
        Self { rows: to - from, columns: self.columns, values }
    }

    /// Columns `from..to`.
    #[must_use]
    pub fn columns(&self, from: usize, to: usize) -> Self {
        let values =
            self.values.chunks_exact(self.columns).flat_map(|row| row[from..to].iter().copied()).collect();
        Self { rows: self.rows, columns: to - from, values }
    }
}

fn rounded(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

impl Net<'_> {
    /// Whether the network has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.state.contains_key(name)
    }

    /// A tensor of the network.
    ///
    /// # Errors
    /// [`NnError::Names`].
    pub fn tensor(&self, name: &str) -> Result<&NamedTensor, NnError> {
        let missing = || NnError::Names { missing: vec![name.to_owned()], unexpected: Vec::new() };
        self.state.get(name).ok_or_else(missing)
    }

    /// Values of a tensor in double precision.
    ///
    /// # Errors
    /// [`NnError::Names`].
    pub fn values(&self, name: &str) -> Result<Vec<f64>, NnError> {
        Ok(self.tensor(name)?.values.iter().map(|&value| f64::from(value)).collect())
    }

    /// A tensor as it is, under its own name.
    ///
    /// # Errors
    /// [`NnError::Names`].
    pub fn weight(&self, name: &str) -> Result<Var<F32>, NnError> {
        let tensor = self.tensor(name)?;
        Ok(self.g.weight(name, &tensor.shape, &tensor.values))
    }

    /// A matrix of the network.
    ///
    /// # Errors
    /// [`NnError::Names`]; [`NnError::Shape`] for what is no matrix.
    pub fn matrix(&self, name: &str) -> Result<Matrix, NnError> {
        let tensor = self.tensor(name)?;
        let &[rows, columns] = &tensor.shape[..] else {
            return Err(NnError::Shape {
                name: name.to_owned(),
                found: tensor.shape.clone(),
                expected: vec![0, 0],
            });
        };
        Ok(Matrix { rows, columns, values: self.values(name)? })
    }

    /// A BatchNorm in evaluation.
    ///
    /// # Errors
    /// [`NnError::Names`].
    pub fn norm(&self, name: &str) -> Result<Affine, NnError> {
        let [weight, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|leaf| self.values(&format!("{name}.{leaf}")));
        let (weight, bias, mean, variance) = (weight?, bias?, mean?, variance?);
        let scale: Vec<f64> = weight
            .iter()
            .zip(&variance)
            .map(|(weight, variance)| weight / (variance + NORM_EPSILON).sqrt())
            .collect();
        let shift =
            bias.iter().zip(&mean).zip(&scale).map(|((bias, mean), scale)| bias - mean * scale).collect();
        Ok(Affine { scale, shift })
    }

    /// `x scale + shift` of the last dimension.
    pub fn affine(&self, name: &str, x: &Var<F32>, affine: &Affine) -> Var<F32> {
        let size = [affine.scale.len()];
        let scale = self.g.weight(&format!("{name}.folded_scale"), &size, &rounded(&affine.scale));
        let shift = self.g.weight(&format!("{name}.folded_shift"), &size, &rounded(&affine.shift));
        self.g.add(&self.g.mul(x, &scale), &shift)
    }

    /// `x W` of the last dimension.
    pub fn product(&self, name: &str, x: &Var<F32>, matrix: &Matrix) -> Var<F32> {
        let weight = self.g.weight(name, &[matrix.rows, matrix.columns], &rounded(&matrix.values));
        self.g.matmul(x, &weight)
    }

    /// `x + b` of the last dimension.
    pub fn shifted(&self, name: &str, x: &Var<F32>, shift: &[f64]) -> Var<F32> {
        self.g.add(x, &self.g.weight(name, &[shift.len()], &rounded(shift)))
    }

    /// A linear layer, with its bias where it has one.
    ///
    /// # Errors
    /// [`NnError::Names`], [`NnError::Shape`].
    pub fn dense(&self, name: &str, x: &Var<F32>) -> Result<Var<F32>, NnError> {
        let y = self.product(&format!("{name}.weight"), x, &self.matrix(&format!("{name}.weight"))?);
        let bias = format!("{name}.bias");
        if !self.has(&bias) {
            return Ok(y);
        }
        Ok(self.g.add(&y, &self.weight(&bias)?))
    }

    /// A linear layer and the BatchNorm behind it, as one.
    ///
    /// # Errors
    /// [`NnError::Names`], [`NnError::Shape`].
    pub fn dense_norm(&self, dense: &str, norm: &str, x: &Var<F32>) -> Result<Var<F32>, NnError> {
        let Affine { scale, mut shift } = self.norm(norm)?;
        let bias = format!("{dense}.bias");
        if self.has(&bias) {
            let bias = self.values(&bias)?;
            shift.iter_mut().zip(&scale).zip(&bias).for_each(|((shift, scale), bias)| *shift += scale * bias);
        }
        let matrix = self.matrix(&format!("{dense}.weight"))?.scaled(&scale);
        let y = self.product(&format!("{dense}.folded_weight"), x, &matrix);
        Ok(self.shifted(&format!("{dense}.folded_bias"), &y, &shift))
    }

    /// Values per column.
    pub fn vector(&self, name: &str, values: &[f64]) -> Var<F32> {
        self.g.weight(name, &[values.len()], &rounded(values))
    }

    /// A LayerNorm of the last dimension.
    ///
    /// # Errors
    /// [`NnError::Names`].
    pub fn layer_norm(&self, name: &str, x: &Var<F32>) -> Result<Var<F32>, NnError> {
        let (scale, shift) = (self.weight(&format!("{name}.weight"))?, self.weight(&format!("{name}.bias"))?);
        Ok(self.g.layer_norm(x, &scale, &shift, NORM_EPSILON as f32))
    }

    /// `x Phi(x)`, with the Gauss error function.
    pub fn gelu(&self, x: &Var<F32>) -> Var<F32> {
        let g = self.g;
        let below = g.add(&g.erf(&g.mul(x, &g.scalar(std::f64::consts::FRAC_1_SQRT_2))), &g.scalar(1.0));
        g.mul(&g.mul(x, &below), &g.scalar(0.5))
    }

    /// `[B, P, H W]` to `[B, H, P, W]`.
    pub fn heads(&self, x: &Var<F32>, heads: usize, width: usize) -> Var<F32> {
        let apart = self.g.reshape_to(x, &[0, 0, heads as i64, width as i64]);
        self.g.transpose(&apart, &[0, 2, 1, 3])
    }

    /// `[B, H, P, W]` to `[B, P, H W]`.
    pub fn joined(&self, x: &Var<F32>, columns: usize) -> Var<F32> {
        self.g.reshape_to(&self.g.transpose(x, &[0, 2, 1, 3]), &[0, 0, columns as i64])
    }

    /// Softmax of logits `[B, H, queries, keys]` over the keys that are real, `[B, keys]`.
    pub fn attention_weights(&self, logits: &Var<F32>, real: &Var<Bool>) -> Var<F32> {
        let g = self.g;
        g.softmax(&g.choose(&g.unsqueeze(real, &[1, 2]), logits, &g.scalar(NEVER)))
    }

    /// Attention with queries, keys and values from one map `name`, `[D, 3 D]`, to `[B, P, D]` before the output's map;
    /// `weights` makes weights of logits `[B, H, P, P]`.
    ///
    /// # Errors
    /// [`NnError::Names`], [`NnError::Shape`].
    pub fn self_attention(
        &self,
        name: &str,
        x: &Var<F32>,
        width: usize,
        heads: usize,
        weights: impl Fn(&Var<F32>) -> Var<F32>,
    ) -> Result<Var<F32>, NnError> {
        let g = self.g;
        let each = width / heads;
        // The scale of the logits is part of the queries' map.
        let mut scale = vec![1.0; 3 * width];
        scale[..width].fill(1.0 / (each as f64).sqrt());
        let matrix = self.matrix(&format!("{name}.weight"))?.scaled(&scale);
        let bias = self.values(&format!("{name}.bias"))?;
        let bias: Vec<f64> = bias.iter().zip(&scale).map(|(bias, scale)| bias * scale).collect();
        let joined = self.product(&format!("{name}.folded_weight"), x, &matrix);
        let joined = self.shifted(&format!("{name}.folded_bias"), &joined, &bias);
        let part = |part: usize| {
            let (from, to) = ((part * width) as i64, ((part + 1) * width) as i64);
            self.heads(&g.slice(&joined, -1, from, to), heads, each)
        };
        let logits = g.matmul(&part(0), &g.transpose(&part(1), &[0, 1, 3, 2]));
        Ok(self.joined(&g.matmul(&weights(&logits), &part(2)), width))
    }

    /// Mean over the real constituents of each jet, `[B, P, C]` to `[B, C]`.
    pub fn mean(&self, x: &Var<F32>, jets: &Constituents) -> Var<F32> {
        self.g.div(&self.sum(x, jets), &jets.count)
    }

    /// Sum over the real constituents of each jet, `[B, P, C]` to `[B, C]`.
    pub fn sum(&self, x: &Var<F32>, jets: &Constituents) -> Var<F32> {
        let row = self.g.unsqueeze(&jets.mask, &[1]);
        self.g.squeeze(&self.g.matmul(&row, x), &[1])
    }
}

/// Rows of `[B, P, C]` by numbers within their jet: `[B, .., K]`, of `rank` dimensions, gives `[B, .., K, C]`.
pub fn rows<T: Element>(g: &Builder, x: &Var<T>, numbers: &Var<I64>, columns: usize, rank: usize) -> Var<T> {
    let first = g.mul(&g.range(&g.size(x, 0)), &g.size(x, 1));
    let mut shape = vec![1; rank];
    shape[0] = -1;
    let numbers = g.add(numbers, &g.reshape_to(&first, &shape));
    g.gather(&g.reshape_to(x, &[-1, columns as i64]), &numbers, 0)
}

/// What a caller gives of each jet, padding made harmless.
pub struct Constituents {
    /// `[B, P, F]`, 0 in padded slots.
    pub features: Var<F32>,
    /// `[B, P]`: not padding. Every jet has one or more: an empty one keeps its first slot, with features 0.
    pub real: Var<Bool>,
    /// `[B, P]`: the same as 1 and 0.
    pub mask: Var<F32>,
    /// `[B, 1]`: number of real slots.
    pub count: Var<F32>,
    /// `[B, P, 4]`: transverse momentum (GeV), rapidity, azimuth, mass (GeV), 0 in padded slots.
    pub kinematics: Option<Var<F32>>,
}

/// Which slots hold a constituent, and in which jets there is none.
pub struct Slots {
    /// `[B, P]`.
    pub given: Var<Bool>,
    /// `[B, P]`: with the first slot of an empty jet.
    pub real: Var<Bool>,
    /// `[B, P]`: `real` as 1 and 0.
    pub mask: Var<F32>,
    /// `[B, 1]`.
    pub count: Var<F32>,
}

/// The input `mask`, `[B, P]`: what the caller says is there.
pub fn mask_input(g: &Builder, slots: &'static str) -> Var<Bool> {
    let words = "1 for a real entry, 0 for padding; padding may stand anywhere and hold anything";
    let mask = g.input::<F32>("mask", &[Dim::Any("batch"), Dim::Any(slots)], words);
    g.scope("input");
    g.greater(&mask, &g.scalar(0.5))
}

/// The slots of jets by what is there, `[B, P]`.
pub fn slots_of(g: &Builder, given: &Var<Bool>) -> Slots {
    let counted = g.reduce_sum(&g.cast::<_, F32>(given), &[1]);
    let empty = g.less(&counted, &g.scalar(0.5));
    let first = g.equal(&g.range(&g.size(given, 1)), &g.whole(0));
    let real = g.or(given, &g.and(&empty, &g.unsqueeze(&first, &[0])));
    let mask = g.cast::<_, F32>(&real);
    Slots { given: given.clone(), mask, real, count: g.max(&counted, &g.scalar(1.0)) }
}

/// The inputs of a network on computed features: `features`, `mask`, and `kinematics` where it compares pairs.
pub fn given(
    g: &Builder,
    slots: &'static str,
    features: usize,
    kinematics: bool,
    options: &OnnxOptions,
) -> Constituents {
    let words = match &options.features[..] {
        [] => "the features of the network's card, in order".to_owned(),
        names => format!("in order: {}", names.join(", ")),
    };
    let dims = [Dim::Any("batch"), Dim::Any(slots)];
    let raw = g.input::<F32>("features", &[dims[0], dims[1], Dim::Is(features)], &words);
    let given = mask_input(g, slots);
    let Slots { given, real, mask, count } = slots_of(g, &given);
    let raw = standardised(g, &raw, options);
    let wide = g.unsqueeze(&given, &[2]);
    let features = g.choose(&wide, &raw, &g.scalar(0.0));
    let kinematics = kinematics.then(|| {
        let words = "transverse momentum (GeV), rapidity, azimuth (rad), mass (GeV); rapidity and azimuth may be relative to the jet";
        let raw = g.input::<F32>("kinematics", &[dims[0], dims[1], Dim::Is(4)], words);
        g.choose(&wide, &raw, &g.scalar(0.0))
    });
    Constituents { features, real, mask, count, kinematics }
}

/// `(x - centre) / scale`, where the card says so.
pub fn standardised(g: &Builder, x: &Var<F32>, options: &OnnxOptions) -> Var<F32> {
    match &options.standardise {
        None => x.clone(),
        Some((centre, scale)) => {
            let centre = g.weight("standardise.centre", &[centre.len()], centre);
            let scale = g.weight("standardise.scale", &[scale.len()], scale);
            g.div(&g.sub(x, &centre), &scale)
        }
    }
}

/// The azimuth of `(x, y)` in `(-pi, pi]`, to the precision of 32-bit floats; 0 at the origin.
///
/// ONNX has no arc tangent of two arguments, and ONNX Runtime's own is 32-bit: the ratio is made in double precision
/// by the half-angle formula, so that small angles keep all their digits.
pub fn azimuth(g: &Builder, x: &Var<F64>, y: &Var<F64>) -> Var<F64> {
    let r = g.sqrt(&g.add(&g.mul(x, x), &g.mul(y, y)));
    let tiny = g.scalar(1e-300);
    let ahead = g.div(y, &g.max(&g.add(&r, x), &tiny));
    let behind = g.div(&g.sub(&r, x), y);
    let half = g.choose(&g.less(x, &g.scalar(0.0)), &behind, &ahead);
    g.mul(&g.cast::<_, F64>(&g.atan(&g.cast::<_, F32>(&half))), &g.scalar(2.0))
}

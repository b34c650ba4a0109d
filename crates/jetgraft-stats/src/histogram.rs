//! How many entries fall into each bin, and how sure is that?

use crate::error::{Result, StatsError, all_finite, at_least, same_length};
use serde::{Deserialize, Serialize};

/// Bin edges, rising. Bin i holds `edges[i] <= x < edges[i + 1]`; the upper edge of the last bin is overflow, as in
/// ROOT (NumPy counts it in).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct Axis {
    edges: Vec<f64>,
    /// Set for equal bins, which are found without a search.
    regular: bool,
}

/// Where a value falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bin {
    /// In bin i.
    In(usize),
    /// Below the first edge.
    Under,
    /// At or above the last edge.
    Over,
    /// NaN.
    Nan,
}

impl Axis {
    /// `bins` equal bins from `low` to `high`.
    ///
    /// # Errors
    /// No bins, ends that are not finite or not rising.
    pub fn regular(bins: usize, low: f64, high: f64) -> Result<Self> {
        at_least("bins", bins, 1)?;
        all_finite("axis end", &[low, high])?;
        let width = (high - low) / bins as f64;
        let edges = (0..=bins).map(|i| if i == bins { high } else { low + i as f64 * width }).collect();
        Ok(Self { regular: true, ..Self::variable(edges)? })
    }

    /// Bins between given edges.
    ///
    /// # Errors
    /// Fewer than two edges, edges that are not finite or do not rise.
    pub fn variable(edges: Vec<f64>) -> Result<Self> {
        at_least("bin edges", edges.len(), 2)?;
        all_finite("bin edge", &edges)?;
        if let Some(i) = (1..edges.len()).find(|&i| edges[i] <= edges[i - 1]) {
            return Err(StatsError::BadEdges { index: i, left: edges[i - 1], right: edges[i] });
        }
        Ok(Self { edges, regular: false })
    }

    /// Number of bins.
    pub fn bins(&self) -> usize {
        self.edges.len() - 1
    }

    /// All edges, one more than bins.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// Width of a bin; none when there is no such bin.
    pub fn width(&self, bin: usize) -> Option<f64> {
        Some(self.edges.get(bin + 1)? - self.edges[bin])
    }

    /// Middle of each bin.
    pub fn centres(&self) -> Vec<f64> {
        self.edges.windows(2).map(|e| 0.5 * (e[0] + e[1])).collect()
    }

    /// The bin of a value.
    pub fn find(&self, x: f64) -> Bin {
        if x.is_nan() {
            return Bin::Nan;
        }
        let (low, high) = (self.edges[0], self.edges[self.bins()]);
        if x < low {
            return Bin::Under;
        }
        if x >= high {
            return Bin::Over;
        }
        if self.regular {
            let mut bin = ((x - low) / (high - low) * self.bins() as f64) as usize;
            // Rounding may miss by one; the edges decide.
            bin = bin.min(self.bins() - 1);
            if x < self.edges[bin] {
                bin -= 1;
            } else if x >= self.edges[bin + 1] {
                bin += 1;
            }
            return Bin::In(bin);
        }
        Bin::In(self.edges.partition_point(|&e| e <= x) - 1)
    }
}

/// Axes are equal when their edges are, however they were made.
impl PartialEq for Axis {
    fn eq(&self, other: &Self) -> bool {
        self.edges == other.edges
    }
}

impl TryFrom<Vec<f64>> for Axis {
    type Error = StatsError;

    fn try_from(edges: Vec<f64>) -> Result<Self> {
        Self::variable(edges)
    }
}

impl From<Axis> for Vec<f64> {
    fn from(axis: Axis) -> Self {
        axis.edges
    }
}

/// Sum of weights, of squared weights, and number of entries of one bin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Entries.
    pub entries: u64,
    /// Sum of weights; entries when all weights are one.
    pub sum: f64,
    /// Sum of squared weights; its root is the error of `sum`.
    pub squares: f64,
}

impl Content {
    fn add(&mut self, weight: f64) {
        self.entries += 1;
        self.sum += weight;
        self.squares += weight * weight;
    }

    fn join(&mut self, other: &Self) {
        self.entries += other.entries;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// Standard error of the sum.
    pub fn error(&self) -> f64 {
        self.squares.sqrt()
    }
}

/// One-dimensional histogram. Nothing is lost: underflow, overflow and NaN are counted apart.
///
/// ```
/// use jetgraft_stats::histogram::{Axis, Histogram};
/// let mut mass_gev = Histogram::new(Axis::regular(4, 0.0, 200.0)?);
/// mass_gev.fill_all(&[80.4, 91.2, 172.5, 250.0, f64::NAN]);
/// assert_eq!(mass_gev.sums(), [0.0, 2.0, 0.0, 1.0]);
/// assert_eq!((mass_gev.over().entries, mass_gev.nan().entries), (1, 1));
/// # Ok::<(), jetgraft_stats::StatsError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "HistogramFields")]
pub struct Histogram {
    axis: Axis,
    bins: Vec<Content>,
    under: Content,
    over: Content,
    nan: Content,
}

/// A histogram as it stands in a file, before its bins are compared with its axis.
#[derive(Deserialize)]
struct HistogramFields {
    axis: Axis,
    bins: Vec<Content>,
    under: Content,
    over: Content,
    nan: Content,
}

impl TryFrom<HistogramFields> for Histogram {
    type Error = StatsError;

    fn try_from(fields: HistogramFields) -> Result<Self> {
        let HistogramFields { axis, bins, under, over, nan } = fields;
        same_length("bins", bins.len(), "the axis", axis.bins())?;
        Ok(Self { axis, bins, under, over, nan })
    }
}

impl Histogram {
    /// Empty.
    pub fn new(axis: Axis) -> Self {
        let bins = vec![Content::default(); axis.bins()];
        let empty = Content::default();
        Self { axis, bins, under: empty, over: empty, nan: empty }
    }

    /// Adds one entry.
    pub fn fill(&mut self, x: f64, weight: f64) {
        match self.axis.find(x) {
            Bin::In(bin) => self.bins[bin].add(weight),
            Bin::Under => self.under.add(weight),
            Bin::Over => self.over.add(weight),
            Bin::Nan => self.nan.add(weight),
        }
    }

    /// Adds entries of weight one.
    pub fn fill_all(&mut self, values: &[f64]) {
        values.iter().for_each(|&x| self.fill(x, 1.0));
    }

    /// Adds entries with their weights.
    ///
    /// # Errors
    /// Different lengths, a weight that is not finite; nothing is filled then.
    pub fn fill_weighted(&mut self, values: &[f64], weights: &[f64]) -> Result<()> {
        same_length("values", values.len(), "weights", weights.len())?;
        all_finite("weight", weights)?;
        values.iter().zip(weights).for_each(|(&x, &w)| self.fill(x, w));
        Ok(())
    }

    /// Adds the content of another histogram with the same edges.
    ///
    /// # Errors
    /// Different edges.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        same_binning(self, other)?;
        self.bins.iter_mut().zip(&other.bins).for_each(|(a, b)| a.join(b));
        self.under.join(&other.under);
        self.over.join(&other.over);
        self.nan.join(&other.nan);
        Ok(())
    }

    /// The binning.
    pub fn axis(&self) -> &Axis {
        &self.axis
    }

    /// Content of every bin.
    pub fn bins(&self) -> &[Content] {
        &self.bins
    }

    /// Entries below the first edge.
    pub fn under(&self) -> &Content {
        &self.under
    }

    /// Entries at or above the last edge.
    pub fn over(&self) -> &Content {
        &self.over
    }

    /// Entries that are NaN.
    pub fn nan(&self) -> &Content {
        &self.nan
    }

    /// Sum of weights of every bin.
    pub fn sums(&self) -> Vec<f64> {
        self.bins.iter().map(|b| b.sum).collect()
    }

    /// Sum of weights inside the edges.
    pub fn total(&self) -> f64 {
        self.bins.iter().map(|b| b.sum).sum()
    }

    /// Density of every bin and its error: sum / (total inside the edges x width). Zeros for an empty histogram.
    pub fn density(&self) -> Vec<(f64, f64)> {
        let total = self.total();
        let widths = self.axis.edges.windows(2).map(|e| e[1] - e[0]);
        let scale = |w: f64| if total == 0.0 { 0.0 } else { 1.0 / (total * w) };
        self.bins.iter().zip(widths).map(|(b, w)| (b.sum * scale(w), b.error() * scale(w).abs())).collect()
    }
}

pub(crate) fn same_binning(left: &Histogram, right: &Histogram) -> Result<()> {
    if left.axis.edges == right.axis.edges {
        return Ok(());
    }
    Err(StatsError::BinningMismatch { left: left.bins.len(), right: right.bins.len() })
}

/// Two-dimensional histogram, for Lund planes. Row-major: bin (x, y) lies at `x * y_bins + y`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Histogram2Fields")]
pub struct Histogram2 {
    x: Axis,
    y: Axis,
    bins: Vec<Content>,
    outside: Content,
    nan: Content,
}

/// As [`HistogramFields`].
#[derive(Deserialize)]
struct Histogram2Fields {
    x: Axis,
    y: Axis,
    bins: Vec<Content>,
    outside: Content,
    nan: Content,
}

impl TryFrom<Histogram2Fields> for Histogram2 {
    type Error = StatsError;

    fn try_from(fields: Histogram2Fields) -> Result<Self> {
        let Histogram2Fields { x, y, bins, outside, nan } = fields;
        same_length("bins", bins.len(), "the plane", x.bins() * y.bins())?;
        Ok(Self { x, y, bins, outside, nan })
    }
}

impl Histogram2 {
    /// Empty.
    pub fn new(x: Axis, y: Axis) -> Self {
        let bins = vec![Content::default(); x.bins() * y.bins()];
        Self { x, y, bins, outside: Content::default(), nan: Content::default() }
    }

    /// Adds one entry. An entry outside either axis is counted apart, one with a NaN coordinate too.
    pub fn fill(&mut self, x: f64, y: f64, weight: f64) {
        match (self.x.find(x), self.y.find(y)) {
            (Bin::Nan, _) | (_, Bin::Nan) => self.nan.add(weight),
            (Bin::In(i), Bin::In(j)) => {
                let row = self.y.bins();
                self.bins[i * row + j].add(weight);
            }
            _ => self.outside.add(weight),
        }
    }

    /// Adds the content of another histogram with the same edges.
    ///
    /// # Errors
    /// Different edges on either axis.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.x.edges != other.x.edges || self.y.edges != other.y.edges {
            return Err(StatsError::BinningMismatch { left: self.bins.len(), right: other.bins.len() });
        }
        self.bins.iter_mut().zip(&other.bins).for_each(|(a, b)| a.join(b));
        self.outside.join(&other.outside);
        self.nan.join(&other.nan);
        Ok(())
    }

    /// First axis.
    pub fn x(&self) -> &Axis {
        &self.x
    }

    /// Second axis.
    pub fn y(&self) -> &Axis {
        &self.y
    }

    /// Content of bin (x, y); none when there is no such bin.
    pub fn bin(&self, x: usize, y: usize) -> Option<&Content> {
        if y >= self.y.bins() {
            return None;
        }
        self.bins.get(x * self.y.bins() + y)
    }

    /// Entries outside the edges.
    pub fn outside(&self) -> &Content {
        &self.outside
    }

    /// Entries with a NaN coordinate.
    pub fn nan(&self) -> &Content {
        &self.nan
    }

    /// Sum of weights per unit area and per `jets` (or any other number to divide by), row-major: the Lund plane
    /// density of one class.
    ///
    /// # Errors
    /// A divisor that is not above zero.
    pub fn density(&self, jets: f64) -> Result<Vec<f64>> {
        if !(jets.is_finite() && jets > 0.0) {
            return Err(StatsError::NotPositive { what: "divisor of the density", index: 0, value: jets });
        }
        let y_widths: Vec<f64> = self.y.edges.windows(2).map(|e| e[1] - e[0]).collect();
        let mut density = Vec::with_capacity(self.bins.len());
        for (row, x) in self.bins.chunks(self.y.bins()).zip(self.x.edges.windows(2)) {
            density.extend(row.iter().zip(&y_widths).map(|(b, dy)| b.sum / (jets * (x[1] - x[0]) * dy)));
        }
        Ok(density)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_belong_to_the_bin_above() {
        let axis = Axis::regular(10, 0.0, 1.0).expect("valid");
        for (i, &edge) in axis.edges()[..10].iter().enumerate() {
            assert_eq!(axis.find(edge), Bin::In(i), "{edge}");
            assert_eq!(axis.find(edge.next_up()), Bin::In(i));
        }
        assert_eq!(axis.find(1.0), Bin::Over);
        assert_eq!(axis.find(1.0_f64.next_down()), Bin::In(9));
        assert_eq!(axis.find(-0.0), Bin::In(0));
        assert_eq!(axis.find(f64::NEG_INFINITY), Bin::Under);
        assert_eq!(axis.find(f64::INFINITY), Bin::Over);
        assert_eq!(axis.find(f64::NAN), Bin::Nan);
        let variable = Axis::variable(axis.edges().to_vec()).expect("valid");
        for i in 0..2000 {
            let x = f64::from(i) / 1000.0 - 0.5;
            assert_eq!(axis.find(x), variable.find(x));
        }
    }

    #[test]
    fn weights_and_errors() {
        let mut h = Histogram::new(Axis::variable(vec![0.0, 1.0, 4.0]).expect("valid"));
        h.fill_weighted(&[0.5, 2.0, 3.0, 9.0, -1.0], &[2.0, 3.0, 4.0, 1.0, 1.0]).expect("valid");
        assert_eq!(h.sums(), [2.0, 7.0]);
        assert_eq!(h.bins()[1].error(), 5.0);
        let density = h.density();
        assert!((density[0].0 * 1.0 + density[1].0 * 3.0 - 1.0).abs() < 1e-12);
        let copy = h.clone();
        h.merge(&copy).expect("same edges");
        assert_eq!((h.total(), h.over().entries, h.under().entries), (18.0, 2, 2));
        assert!(matches!(h.fill_weighted(&[1.0], &[]), Err(StatsError::LengthMismatch { .. })));
        let other = Histogram::new(Axis::regular(2, 0.0, 4.0).expect("valid"));
        assert!(matches!(h.merge(&other), Err(StatsError::BinningMismatch { .. })));
        let json = serde_json::to_string(&h).expect("finite");
        assert_eq!(serde_json::from_str::<Histogram>(&json).expect("reads back"), h);
        let other = serde_json::to_string(&other).expect("finite");
        assert_eq!(serde_json::from_str::<Histogram>(&other).expect("reads back").axis().bins(), 2);
        // A file that does not fit together is refused when it is read.
        assert!(serde_json::from_str::<Histogram>(&other.replace("[0.0,2.0,4.0]", "[0.0,4.0]")).is_err());
        assert!(serde_json::from_str::<Axis>("[1.0, 1.0]").is_err());
    }

    #[test]
    fn a_plane() {
        let axis = || Axis::regular(2, 0.0, 4.0).expect("valid");
        let mut plane = Histogram2::new(axis(), axis());
        plane.fill(1.0, 3.0, 1.0);
        plane.fill(3.0, 9.0, 1.0);
        plane.fill(f64::NAN, 1.0, 1.0);
        assert_eq!(plane.bin(0, 1).map(|b| b.entries), Some(1));
        assert_eq!(plane.bin(0, 2), None);
        assert_eq!((plane.outside().entries, plane.nan().entries), (1, 1));
        assert_eq!(plane.density(2.0).expect("valid"), [0.0, 0.125, 0.0, 0.0]);
        assert!(plane.density(0.0).is_err());
        let json = serde_json::to_string(&plane).expect("finite");
        assert_eq!(serde_json::from_str::<Histogram2>(&json).expect("reads back"), plane);
        assert!(serde_json::from_str::<Histogram2>(&json.replacen("[0.0,2.0,4.0]", "[0.0,4.0]", 1)).is_err());
    }

    #[test]
    fn bad_edges_are_named() {
        assert!(matches!(Axis::regular(0, 0.0, 1.0), Err(StatsError::TooFew { .. })));
        assert!(matches!(Axis::regular(3, 1.0, 1.0), Err(StatsError::BadEdges { index: 1, .. })));
        assert!(matches!(Axis::variable(vec![0.0, f64::NAN]), Err(StatsError::NotFinite { index: 1, .. })));
        assert!(matches!(Axis::variable(vec![0.0, 2.0, 1.0]), Err(StatsError::BadEdges { index: 2, .. })));
    }
}

//! Centre and scale of every feature, learnt on training rows only.

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::graph_set::GraphSet;

/// `x' = (x - center) / scale` with the median as centre and half the central 68 % as scale.
///
/// Quantiles are used instead of moments because Lund coordinates have tails and floors. Jets without a declustering
/// have no features and take no part; the zero node that packing makes of them stays zero, which is then the centre.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standardisation {
    /// Features in order.
    pub names: Vec<String>,
    /// Medians, in the feature's unit.
    pub center: Vec<f32>,
    /// Half of (84 % quantile - 16 % quantile), in the feature's unit; 1 for a feature that does not vary.
    pub scale: Vec<f32>,
    /// Nodes it was learnt from.
    pub nodes: u64,
}

impl Standardisation {
    /// Learns centre and scale from the given rows.
    ///
    /// # Errors
    /// [`DataError::Empty`] when the rows have no node at all.
    ///
    /// # Panics
    /// When a row is not below `graphs.len()`.
    pub fn fit(graphs: &GraphSet, rows: &[usize]) -> Result<Self, DataError> {
        let width = graphs.n_features();
        let (mut center, mut scale) = (Vec::new(), Vec::new());
        let nodes: usize = rows.iter().map(|row| graphs.nodes_of(*row)).sum();
        if nodes == 0 {
            return Err(DataError::Empty {
                what: "nodes to learn the standardisation from".into(),
                detail: format!("{} training jets without any", rows.len()),
            });
        }
        let mut values = Vec::with_capacity(nodes);
        for feature in 0..width {
            values.clear();
            for row in rows {
                let range = graphs.node_offsets[*row]..graphs.node_offsets[row + 1];
                values.extend(range.map(|node| graphs.features[node * width + feature]));
            }
            values.sort_unstable_by(f32::total_cmp);
            let half = (quantile(&values, 0.84) - quantile(&values, 0.16)) / 2.0;
            center.push(quantile(&values, 0.5) as f32);
            // A constant, or a difference that rounding makes of one, carries nothing to scale.
            scale.push(if half > f64::from(f32::MIN_POSITIVE) { half as f32 } else { 1.0 });
        }
        Ok(Self { names: graphs.feature_names.clone(), center, scale, nodes: nodes as u64 })
    }

    /// Standardises all features in place.
    ///
    /// # Errors
    /// [`DataError::Option`] when the features are not those it was learnt on.
    pub fn apply(&self, graphs: &mut GraphSet) -> Result<(), DataError> {
        self.check(&graphs.feature_names)?;
        for node in graphs.features.chunks_exact_mut(self.names.len().max(1)) {
            for ((value, center), scale) in node.iter_mut().zip(&self.center).zip(&self.scale) {
                *value = (*value - center) / scale;
            }
        }
        Ok(())
    }

    /// Checks that it is whole, and made for these features.
    ///
    /// # Errors
    /// [`DataError::Option`].
    pub fn check(&self, features: &[String]) -> Result<(), DataError> {
        let sound = self.center.len() == self.names.len()
            && self.scale.len() == self.names.len()
            && self.center.iter().all(|value| value.is_finite())
            && self.scale.iter().all(|value| value.is_finite() && *value > 0.0);
        if !sound {
            return Err(DataError::option(
                "standardisation",
                format!("{} names, centres {:?}, scales {:?}", self.names.len(), self.center, self.scale),
                "one finite centre and one positive scale a feature",
            ));
        }
        if self.names != features {
            return Err(DataError::option(
                "standardisation",
                format!("made for {}", self.names.join(", ")),
                format!("made for {}", features.join(", ")),
            ));
        }
        Ok(())
    }
}

/// Quantile of sorted values, linear between neighbours (Hyndman and Fan's type 7, as numpy's default).
fn quantile(sorted: &[f32], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    let (low_value, high_value) = (f64::from(sorted[low]), f64::from(sorted[high]));
    low_value + (high_value - low_value) * (at - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graphs() -> GraphSet {
        GraphSet {
            feature_names: vec!["a".into(), "b".into()],
            features: (0..101).flat_map(|i| [i as f32, 7.0]).collect(),
            node_offsets: vec![0, 101, 101],
            parents: Some((-1..100).collect()),
            kinematics: None,
            event_id: vec![0, 1],
            label: vec![0, 0],
            jet_pt_gev: vec![1.0, 1.0],
            jet_mass_gev: vec![1.0, 1.0],
        }
    }

    #[test]
    fn median_and_central_interval() {
        let mut graphs = graphs();
        let standard = Standardisation::fit(&graphs, &[0, 1]).unwrap();
        assert_eq!(standard.center, [50.0, 7.0]);
        assert_eq!(standard.scale, [34.0, 1.0]);
        assert_eq!(standard.nodes, 101);
        standard.apply(&mut graphs).unwrap();
        assert_eq!(graphs.features[..2], [-50.0 / 34.0, 0.0]);
        let text = serde_json::to_string(&standard).unwrap();
        assert_eq!(serde_json::from_str::<Standardisation>(&text).unwrap(), standard);
    }

    #[test]
    fn wrong_features_are_refused() {
        let mut graphs = graphs();
        let mut standard = Standardisation::fit(&graphs, &[0]).unwrap();
        assert!(Standardisation::fit(&graphs, &[1]).is_err());
        graphs.feature_names[0] = "c".into();
        assert!(standard.apply(&mut graphs).is_err());
        graphs.feature_names[0] = "a".into();
        standard.scale[1] = 0.0;
        assert!(standard.apply(&mut graphs).is_err());
    }
}

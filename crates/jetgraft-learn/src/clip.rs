//! Clipping gradients by their global norm.

/// Factor for all gradients so that their global norm is at most `limit`: `min(1, limit / (norm + 1e-6))`, as
/// `torch.nn.utils.clip_grad_norm_`. `None` when nothing is to be changed.
pub fn clip_factor(norm: f64, limit: f64) -> Option<f64> {
    let factor = limit / (norm + 1e-6);
    (factor < 1.0).then_some(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_gradients_stay_and_large_ones_shrink_to_the_limit() {
        assert_eq!(clip_factor(0.0, 1.0), None);
        assert_eq!(clip_factor(0.5, 1.0), None);
        let factor = clip_factor(5.0, 1.0).unwrap();
        assert!((factor * 5.0 - 1.0).abs() < 1e-6);
    }
}

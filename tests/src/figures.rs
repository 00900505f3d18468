//! Statistics of measured figures.

/// The value below which this share of the measured values lies; the share is between 0 and 1.
///
/// # Panics
/// When nothing was measured.
pub fn quantile<T: Copy + PartialOrd>(measured: &[T], share: f64) -> T {
    let mut sorted = measured.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("what is measured is a number"));
    let at = (share * (sorted.len() - 1) as f64).round() as usize;
    sorted[at]
}

/// The exponent `e` of the growth `cost = c * size^e` that fits best, by least squares over the
/// logarithms: 0 does not grow, 1 doubles with twice the size. `None` unless a positive cost was
/// measured at two sizes.
pub fn growth(measured: &[(f64, f64)]) -> Option<f64> {
    let logs = measured.iter().filter(|(size, cost)| *size > 0.0 && *cost > 0.0);
    let logs: Vec<_> = logs.map(|(size, cost)| (size.ln(), cost.ln())).collect();
    let count = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|log| log.0), mean(|log| log.1));
    let spread: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let shared: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (spread > 0.0).then(|| shared / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_exponent_and_needs_two_sizes() {
        let sizes = [10.0, 32.0, 100.0, 300.0];
        let of = |cost: fn(f64) -> f64| growth(&sizes.map(|size| (size, cost(size)))).unwrap();
        assert!(of(|_| 7.0).abs() < 1e-9);
        assert!((of(|size| 3.0 * size) - 1.0).abs() < 1e-9);
        assert!((0.1..0.4).contains(&of(f64::ln)));
        assert_eq!(growth(&[(10.0, 1.0), (10.0, 2.0)]), None);
        assert_eq!(growth(&[(10.0, 1.0), (20.0, 0.0)]), None);
    }

    #[test]
    fn a_quantile_is_one_of_the_measured() {
        assert_eq!(quantile(&[5, 1, 9], 0.5), 5);
        assert_eq!(quantile(&[5, 1, 9], 1.0), 9);
    }
}

//! What is said of raw values.

use crate::telemetry::LatencySummary;

/// Percentiles of raw values by the nearest rank: the smallest value that at least so large a share does not exceed. With fewer
/// than a thousand values the 99.9th is the largest. `None` without any.
pub fn percentiles(values: &[f64]) -> Option<LatencySummary> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let max = *sorted.last()?;
    let at = |share: f64| quantile(&sorted, share).unwrap_or(max);
    Some(LatencySummary {
        count: sorted.len() as u64,
        mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max,
    })
}

/// The nearest-rank quantile of values in ascending order; `None` without any.
pub(super) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    // A hair less, so that 0.95 * 20, which is 19 but for rounding, stays rank 19.
    let rank = (share * sorted.len() as f64 - 1e-9).ceil().max(1.0) as usize;
    sorted.get(rank.min(sorted.len()).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_definition() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let p = percentiles(&hundred).unwrap();
        assert_eq!((p.p50, p.p90, p.p95, p.p99, p.p999, p.max), (50.0, 90.0, 95.0, 99.0, 100.0, 100.0));
        assert_eq!((p.count, p.mean), (100, 50.5));
        let thousand: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(percentiles(&thousand).unwrap().p999, 999.0);
        let one = percentiles(&[7.0]).unwrap();
        assert_eq!((one.p50, one.p999, one.max), (7.0, 7.0, 7.0));
        assert_eq!(percentiles(&[]), None);
    }
}

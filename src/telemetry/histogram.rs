//! Latency distributions and what a report shows of them.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Three significant digits: p99.9 of 33 ms is known to 0.03 ms.
const DIGITS: u8 = 3;
/// Longest time kept apart; longer ones count as this.
const MAX_NANOS: u64 = 600_000_000_000;

/// A distribution of durations.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

/// What a report says of a distribution; all in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LatencySummary {
    /// Number of samples.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

impl LatencySummary {
    /// Names with values, in order.
    pub fn all(&self) -> [(&'static str, f64); 7] {
        [
            ("mean", self.mean),
            ("p50", self.p50),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
            ("p99.9", self.p999),
            ("max", self.max),
        ]
    }
}

impl Default for Latency {
    fn default() -> Self {
        // The constants satisfy the constructor's only conditions (1 <= low, 2 * low <= high, digits <= 5).
        Self(Histogram::new_with_bounds(1, MAX_NANOS, DIGITS).expect("constant bounds are valid"))
    }
}

impl Latency {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.record_nanos(duration.as_nanos().min(u128::from(MAX_NANOS)) as u64);
    }

    /// Adds one duration in nanoseconds.
    pub fn record_nanos(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.max(1));
    }

    /// The duration that a fraction `q` (0..=1) of the samples does not exceed.
    pub fn quantile(&self, q: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(q))
    }

    /// The figures of a report; zeros where there is no sample.
    pub fn summary(&self) -> LatencySummary {
        let ms = |nanos: u64| (nanos as f64 / 1e3).round() / 1e3;
        if self.0.is_empty() {
            return LatencySummary::default();
        }
        let q = |q: f64| ms(self.0.value_at_quantile(q));
        LatencySummary {
            count: self.0.len(),
            mean: (self.0.mean() / 1e3).round() / 1e3,
            p50: q(0.5),
            p90: q(0.9),
            p95: q(0.95),
            p99: q(0.99),
            p999: q(0.999),
            max: ms(self.0.max()),
        }
    }
}

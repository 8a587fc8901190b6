//! How sure a mean is.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Samples drawn.
const DRAWS: usize = 2000;

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Mean of the values.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Mean of `values`, one a picture, with the 2.5th and 97.5th percentile of the means of 2000 samples drawn with replacement
/// (percentile bootstrap). The same for the same seed on every machine. `None` without values.
pub fn bootstrap(values: &[f64], seed: u64) -> Option<Interval> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // A number of 64 bits, so that 32- and 64-bit machines draw alike.
    let bound = n as u64;
    let mut means: Vec<f64> = (0..DRAWS)
        .map(|_| (0..n).map(|_| values[rng.random_range(0..bound) as usize]).sum::<f64>() / n as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[(share * (DRAWS - 1) as f64).round() as usize];
    Some(Interval { mean: values.iter().sum::<f64>() / n as f64, low: at(0.025), high: at(0.975) })
}

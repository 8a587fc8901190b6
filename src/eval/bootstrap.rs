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

/// A part and its whole: a Dice coefficient and 1, or twice the common pixels and the sum of both masks. They are added up
/// before they are divided.
pub type Share = [f64; 2];

/// Mean of `values`, one a picture, with the 2.5th and 97.5th percentile of the means of 2000 samples drawn with replacement
/// (percentile bootstrap). The same for the same seed on every machine. `None` without values.
pub fn bootstrap(values: &[f64], seed: u64) -> Option<Interval> {
    let units: Vec<Vec<Share>> = values.iter().map(|&v| vec![[v, 1.0]]).collect();
    bootstrap_shares(&units, seed)
}

/// The same for a mean over classes of what each class's shares come to, `sum of parts / sum of wholes`. A unit is what is drawn
/// together, a picture or all pictures of a patient, and has one share for each class. Units whose wholes are all 0 say nothing
/// and are not drawn; in a sample a class whose wholes add up to 0 has no part in the mean. `None` without any unit.
pub fn bootstrap_shares(units: &[Vec<Share>], seed: u64) -> Option<Interval> {
    let units: Vec<&[Share]> =
        units.iter().map(Vec::as_slice).filter(|unit| unit.iter().any(|[_, whole]| *whole > 0.0)).collect();
    let mean = mean_share(units.iter().copied())?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // A number of 64 bits, so that 32- and 64-bit machines draw alike.
    let bound = units.len() as u64;
    let mut draw = || mean_share((0..bound).map(|_| units[rng.random_range(0..bound) as usize]));
    let mut means: Vec<f64> = (0..DRAWS).filter_map(|_| draw()).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[(share * (means.len() - 1) as f64).round() as usize];
    Some(Interval { mean, low: at(0.025), high: at(0.975) })
}

/// Mean over classes; `None` where no class has anything.
pub(super) fn mean_share<'a>(units: impl Iterator<Item = &'a [Share]>) -> Option<f64> {
    let mut sums: Vec<Share> = Vec::new();
    for unit in units {
        sums.resize(sums.len().max(unit.len()), [0.0; 2]);
        for (sum, share) in sums.iter_mut().zip(unit) {
            *sum = [sum[0] + share[0], sum[1] + share[1]];
        }
    }
    let shares: Vec<f64> =
        sums.iter().filter(|[_, whole]| *whole > 0.0).map(|[part, whole]| part / whole).collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}

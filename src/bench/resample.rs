//! How sure a ratio of two runs is.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Samples drawn.
pub(super) const DRAWS: usize = 1000;

/// A ratio with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(super) struct Sure {
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
}

/// `of(b) / of(a)`, see [`ratios`].
pub(super) fn ratio(a: &[f64], b: &[f64], of: impl Fn(&mut [f64]) -> Option<f64>) -> Option<Sure> {
    let [sure] = ratios(a, b, |values| Some([of(values)?]));
    sure
}

/// `of(b) / of(a)` of several figures at once, with the 2.5th and 97.5th percentile of the ratios of samples drawn with replacement
/// from each side by itself. Frames that follow each other are alike (a stall holds up several), so whole blocks of a run are drawn,
/// about as many as each is long (circular block bootstrap). The same for the same values on every machine. `None` without values or
/// where `of(a)` is 0.
pub(super) fn ratios<const N: usize>(
    a: &[f64],
    b: &[f64],
    of: impl Fn(&mut [f64]) -> Option<[f64; N]>,
) -> [Option<Sure>; N] {
    let quotients = |a: &mut [f64], b: &mut [f64]| -> [Option<f64>; N] {
        let both = of(a).zip(of(b));
        std::array::from_fn(|i| {
            let (a, b) = both.map(|(a, b)| (a[i], b[i]))?;
            (a > 0.0 && b.is_finite()).then(|| b / a)
        })
    };
    let found = quotients(&mut a.to_vec(), &mut b.to_vec());
    if found.iter().all(Option::is_none) {
        return [None; N];
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (mut left, mut right) = (Vec::with_capacity(a.len()), Vec::with_capacity(b.len()));
    let mut drawn: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(DRAWS));
    for _ in 0..DRAWS {
        draw(&mut rng, a, &mut left);
        draw(&mut rng, b, &mut right);
        for (all, one) in drawn.iter_mut().zip(quotients(&mut left, &mut right)) {
            all.extend(one);
        }
    }
    let mut drawn = drawn.into_iter();
    found.map(|ratio| {
        let (mut all, ratio) = (drawn.next()?, ratio?);
        all.sort_by(f64::total_cmp);
        let at = |share: f64| all.get((share * all.len().saturating_sub(1) as f64).round() as usize).copied();
        Some(Sure { ratio, low: at(0.025)?, high: at(0.975)? })
    })
}

/// As many values as `from` has, in blocks of its square root, round the end.
fn draw(rng: &mut ChaCha8Rng, from: &[f64], into: &mut Vec<f64>) {
    into.clear();
    let n = from.len();
    let block = (n as f64).sqrt().round().max(1.0) as usize;
    while into.len() < n {
        // A number of 64 bits, so that 32- and 64-bit machines draw alike.
        let start = rng.random_range(0..n as u64) as usize;
        let more = block.min(n - into.len());
        into.extend(from.iter().cycle().skip(start).take(more));
    }
}

#[cfg(test)]
mod tests {
    use super::super::percentiles::quantile;
    use super::*;

    fn median(values: &mut [f64]) -> Option<f64> {
        values.sort_by(f64::total_cmp);
        quantile(values, 0.5)
    }

    #[test]
    fn a_run_equals_itself_and_is_half_of_its_double() {
        let a: Vec<f64> = (0..200).map(|i| 10.0 + f64::from(i * 37 % 100) / 50.0).collect();
        let double: Vec<f64> = a.iter().map(|v| v * 2.0).collect();
        let same = ratio(&a, &a, median).unwrap();
        assert!(same.ratio == 1.0 && same.low <= 1.0 && same.high >= 1.0, "{same:?}");
        let twice = ratio(&a, &double, median).unwrap();
        assert!(twice.ratio == 2.0 && twice.low <= 2.0 && twice.high >= 2.0 && twice.low > 1.8, "{twice:?}");
        assert_eq!(ratio(&double, &a, median).unwrap().ratio, 0.5);
        assert_eq!(ratio(&[], &a, median), None);
        assert_eq!(ratio(&[0.0], &a, median), None);
    }

    #[test]
    fn several_figures_are_those_that_each_is_by_itself() {
        let a: Vec<f64> = (0..150).map(|i| 5.0 + f64::from(i * 53 % 97) / 10.0).collect();
        let b: Vec<f64> = (0..90).map(|i| 6.0 + f64::from(i * 31 % 89) / 9.0).collect();
        let mean = |v: &mut [f64]| Some(v.iter().sum::<f64>() / v.len() as f64);
        let none = |_: &mut [f64]| Some(0.0);
        let [first, second, third] = ratios(&a, &b, |v| Some([mean(v)?, none(v)?, median(v)?]));
        assert_eq!(first, ratio(&a, &b, mean));
        assert_eq!((second, third), (None, ratio(&a, &b, median)));
    }

    #[test]
    fn frames_that_are_alike_make_it_less_sure() {
        // The same values, mixed or in two long stretches.
        let mixed: Vec<f64> = (0..400).map(|i| if i % 2 == 0 { 10.0 } else { 20.0 }).collect();
        let mut stretches = mixed.clone();
        stretches.sort_by(f64::total_cmp);
        let mean = |v: &mut [f64]| Some(v.iter().sum::<f64>() / v.len() as f64);
        let width = |v: &[f64]| ratio(v, v, mean).map(|s| s.high - s.low).unwrap();
        assert!(width(&stretches) > 3.0 * width(&mixed));
    }
}

//! What a view changes beside its place: bends, gain along the depth, speckle.

use std::f64::consts::{PI, TAU};

use rand::{Rng as _, RngCore, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::Augment;

/// Most waves of a bend along each side.
const WAVES: f64 = 1.5;
/// The largest `warp`. Both displacements together fold a picture over from 1 / (4 pi [`WAVES`]) = 0.053 on.
pub const MAX_WARP: f64 = 0.05;
/// The largest `speckle`: no factor is negative below 1 / sqrt(3) = 0.577.
pub const MAX_SPECKLE: f64 = 0.5;
/// Grains of speckle along the picture's longer side, at most one a pixel.
const GRAINS: f64 = 128.0;

/// Whether a change is made.
pub(super) fn chance(probability: f64, rng: &mut dyn RngCore) -> bool {
    rng.random_bool(probability.clamp(0.0, 1.0))
}

/// A number within `limit` of 0.
pub(super) fn within(limit: f64, rng: &mut dyn RngCore) -> f64 {
    (rng.random::<f64>() * 2.0 - 1.0) * limit
}

/// One way to distort a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Distortion {
    /// What bends it along each axis.
    waves: [Wave; 2],
    /// Powers of two of the gain: at the lowest depth against the surface, and half-way against the mean of both.
    gain: [f64; 2],
    /// Standard deviation of a grain's factor, and what the grains are drawn from.
    speckle: (f64, u64),
}

/// A displacement that changes across the picture like a sine.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wave {
    /// Largest displacement, as a share of the side.
    height: f64,
    /// Waves along the width and along the height.
    number: [f64; 2],
    /// Of the upper left corner, in waves.
    phase: f64,
}

impl Distortion {
    /// None.
    pub const NONE: Self = Self { waves: [Wave::NONE; 2], gain: [0.0; 2], speckle: (0.0, 0) };

    /// Draws one. Where nothing is to be distorted nothing is drawn: views are then those of the time before there were distortions.
    pub fn draw(augment: &Augment, rng: &mut dyn RngCore) -> Self {
        let mut drawn = Self::NONE;
        if [augment.warp, augment.gain, augment.speckle] == [0.0; 3] {
            return drawn;
        }
        let bent = chance(augment.probability, rng);
        let waves = std::array::from_fn(|_| Wave {
            height: within(augment.warp, rng),
            number: [within(WAVES, rng), within(WAVES, rng)],
            phase: rng.random(),
        });
        if bent {
            drawn.waves = waves;
        }
        let (amplified, gain) =
            (chance(augment.probability, rng), std::array::from_fn(|_| within(augment.gain, rng)));
        if amplified {
            drawn.gain = gain;
        }
        let (noisy, share, seed) =
            (chance(augment.probability, rng), rng.random::<f64>(), rng.random::<u64>());
        if noisy {
            drawn.speckle = (share * augment.speckle, seed);
        }
        drawn
    }

    /// Where what is seen at a point lies in the picture that is not bent yet; both as shares of the sides.
    pub fn bend(&self, x: f64, y: f64) -> (f64, f64) {
        (x + self.waves[0].at(x, y), y + self.waves[1].at(x, y))
    }

    /// What the brightness of each pixel of a picture of this size is multiplied by.
    pub fn brightness(&self, (w, h): (usize, usize)) -> impl Fn(usize, usize) -> f32 + use<> {
        let grains = Grains::draw(self.speckle, (w, h));
        let [across, middle] = self.gain;
        let gain = move |depth: f64| (across * (depth - 0.5) + middle * ((PI * depth).sin() - 0.5)).exp2();
        let gains: Vec<f32> = (0..h).map(|y| gain((y as f64 + 0.5) / h as f64) as f32).collect();
        move |x, y| gains[y] * grains.as_ref().map_or(1.0, |grains| grains.at(x, y))
    }
}

impl Wave {
    const NONE: Self = Self { height: 0.0, number: [0.0; 2], phase: 0.0 };

    /// The displacement at a point given as shares of the sides.
    fn at(&self, x: f64, y: f64) -> f64 {
        if self.height == 0.0 {
            return 0.0;
        }
        self.height * (TAU * (self.number[0] * x + self.number[1] * y + self.phase)).sin()
    }
}

/// Noise that multiplies brightness: a factor for each grain, between their centres in proportion.
struct Grains {
    columns: usize,
    factors: Vec<f32>,
    /// Grains a pixel.
    scale: f32,
}

impl Grains {
    /// `None` where there is no noise.
    fn draw((deviation, seed): (f64, u64), (w, h): (usize, usize)) -> Option<Self> {
        if deviation == 0.0 {
            return None;
        }
        let scale = (GRAINS / w.max(h).max(1) as f64).min(1.0) as f32;
        // One beyond the last pixel's.
        let grains = |side: usize| (side.saturating_sub(1) as f32 * scale) as usize + 2;
        let (columns, rows) = (grains(w), grains(h));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Evenly spread within +-a, which has the variance a^2 / 3.
        let mut factor = || (1.0 + within(3f64.sqrt() * deviation, &mut rng)) as f32;
        Some(Self { columns, factors: (0..columns * rows).map(|_| factor()).collect(), scale })
    }

    /// What the brightness of a pixel is multiplied by.
    fn at(&self, x: usize, y: usize) -> f32 {
        let (x, y) = (x as f32 * self.scale, y as f32 * self.scale);
        let (column, row) = (x as usize, y as usize);
        let (fx, fy) = (x - column as f32, y - row as f32);
        let first = row * self.columns + column;
        let mix = |at: usize| self.factors[at] * (1.0 - fx) + self.factors[at + 1] * fx;
        mix(first) * (1.0 - fy) + mix(first + self.columns) * fy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bend_follows_its_wave_and_never_folds() {
        // Along the width by a tenth of it, the more the nearer to half the height; nothing at the upper and lower edge.
        let wave = Wave { height: 0.1, number: [0.0, 0.5], phase: 0.0 };
        let bent = Distortion { waves: [wave, Wave::NONE], ..Distortion::NONE };
        for (y, moved) in [(0.0, 0.0), (0.5, 0.1), (1.0, 0.0)] {
            let (x, same) = bent.bend(0.3, y);
            assert!((x - 0.3 - moved).abs() < 1e-12 && same == y, "{x} {same}");
        }
        // The steepest that can be drawn: of two points the one farther right and down stays so.
        let steep = |height, number| Wave { height, number, phase: 0.0 };
        let worst = Distortion {
            waves: [steep(MAX_WARP, [-WAVES, WAVES]), steep(MAX_WARP, [WAVES, -WAVES])],
            ..Distortion::NONE
        };
        let (near, step) = ((0.5, 0.5), 1e-6);
        let (a, b, c) = (
            worst.bend(near.0, near.1),
            worst.bend(near.0 + step, near.1),
            worst.bend(near.0, near.1 + step),
        );
        let area = (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0);
        assert!(area > 0.0 && area < 0.2 * step * step, "{}", area / (step * step));
    }

    #[test]
    fn gain_follows_the_depth() {
        let across = Distortion { gain: [1.0, 0.0], ..Distortion::NONE }.brightness((3, 100));
        let middle = Distortion { gain: [0.0, 1.0], ..Distortion::NONE }.brightness((3, 100));
        for (y, steep, bowed) in [(0, 0.71, 0.71), (50, 1.0, 1.41), (99, 1.41, 0.71)] {
            assert!((across(1, y) - steep).abs() < 0.03, "{y}: {}", across(1, y));
            assert!((middle(1, y) - bowed).abs() < 0.03, "{y}: {}", middle(1, y));
        }
    }

    #[test]
    fn grains_have_their_mean_and_deviation_in_pictures_of_any_size() {
        for size in [(1, 1), (97, 31), (128, 128), (640, 480), (31, 1999)] {
            let noise = Distortion { speckle: (0.2, 3), ..Distortion::NONE }.brightness(size);
            let other = Distortion { speckle: (0.2, 4), ..Distortion::NONE }.brightness(size);
            let of = |f: &dyn Fn(usize, usize) -> f32| -> Vec<f64> {
                (0..size.0 * size.1).map(|i| f64::from(f(i % size.0, i / size.0))).collect()
            };
            let found = of(&noise);
            assert_ne!(found, of(&other));
            assert!(found.iter().all(|v| (0.65..1.35).contains(v)));
            if found.len() < 1000 {
                continue;
            }
            let mean = found.iter().sum::<f64>() / found.len() as f64;
            let deviation =
                (found.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / found.len() as f64).sqrt();
            // Between the centres there is less of it.
            let least = if size.0.max(size.1) > 128 { 0.11 } else { 0.19 };
            assert!((0.98..1.02).contains(&mean) && (least..0.21).contains(&deviation), "{mean} {deviation}");
        }
    }
}

//! Labels made worse on purpose, to see what training makes of it (Sam2Rad, section 4.9).

use rand::Rng;

use crate::mask::{Bounds, Mask};

/// How a mask is damaged, one of these at a time; each is what a tired annotator leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A straight line through the mask, and nothing on one side of it: a partial mask.
    Cut,
    /// Grown or shrunk by a tenth of its size.
    Swollen,
    /// Moved by a fifth of its size.
    Moved,
    /// Not there.
    Missing,
}

impl Damage {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Cut, Self::Swollen, Self::Moved, Self::Missing];

    /// `mask` with a damage of a kind and extent drawn from `rng`. An empty mask stays as it is.
    pub fn draw(mask: &Mask, rng: &mut impl Rng) -> Mask {
        let kind = Self::ALL[rng.random_range(0..Self::ALL.len() as u64) as usize];
        kind.apply(mask, rng)
    }

    /// `mask` with this damage, its direction drawn from `rng`.
    pub fn apply(self, mask: &Mask, rng: &mut impl Rng) -> Mask {
        let (angle, grown) = (rng.random::<f64>() * std::f64::consts::TAU, rng.random_bool(0.5));
        let Some(b) = mask.bounds() else { return mask.clone() };
        let (dx, dy) = (angle.cos(), angle.sin());
        match self {
            Self::Missing => Mask::empty(mask.width(), mask.height()),
            Self::Cut => {
                let (cx, cy) = ((b.x0 + b.x1) as f64 / 2.0, (b.y0 + b.y1) as f64 / 2.0);
                let kept = |x: usize, y: usize| (x as f64 - cx) * dx + (y as f64 - cy) * dy > 0.0;
                filled(mask, 0, |x, y| mask.get(x, y) && kept(x, y))
            }
            Self::Moved => {
                let (w, h) = size(&b);
                let (dx, dy) = ((0.2 * w * dx).round() as i64, (0.2 * h * dy).round() as i64);
                let reach = dx.unsigned_abs().max(dy.unsigned_abs()) as usize;
                filled(mask, reach, |x, y| inside(mask, x as i64 - dx, y as i64 - dy))
            }
            Self::Swollen => {
                let (w, h) = size(&b);
                let reach = (0.1 * w.min(h)).round().max(1.0) as i64;
                let near = |x: usize, y: usize, wanted: bool| {
                    (-reach..=reach).any(|dy| {
                        (-reach..=reach).any(|dx| {
                            dx * dx + dy * dy <= reach * reach
                                && inside(mask, x as i64 + dx, y as i64 + dy) == wanted
                        })
                    })
                };
                filled(mask, reach as usize, |x, y| {
                    if grown { near(x, y, true) } else { mask.get(x, y) && !near(x, y, false) }
                })
            }
        }
    }
}

fn size(b: &Bounds) -> (f64, f64) {
    ((b.x1 - b.x0) as f64, (b.y1 - b.y0) as f64)
}

fn inside(mask: &Mask, x: i64, y: i64) -> bool {
    matches!((usize::try_from(x), usize::try_from(y)), (Ok(x), Ok(y)) if mask.get(x, y))
}

/// What is `within`, looked for no further than `reach` around the mask.
fn filled(like: &Mask, reach: usize, within: impl Fn(usize, usize) -> bool) -> Mask {
    let mut mask = Mask::empty(like.width(), like.height());
    let Some(b) = like.bounds() else { return mask };
    for y in b.y0.saturating_sub(reach)..(b.y1 + reach).min(like.height()) {
        for x in b.x0.saturating_sub(reach)..(b.x1 + reach).min(like.width()) {
            if within(x, y) {
                mask.set(x, y, true);
            }
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn each_damage_does_what_it_says() {
        let mut mask = Mask::empty(60, 50);
        for (x, y) in (20..40).flat_map(|x| (15..35).map(move |y| (x, y))) {
            mask.set(x, y, true);
        }
        for seed in 0..20 {
            let damaged = |kind: Damage| kind.apply(&mask, &mut ChaCha8Rng::seed_from_u64(seed));
            assert_eq!(damaged(Damage::Missing).area(), 0);
            let cut = damaged(Damage::Cut);
            assert!((100..300).contains(&cut.area()), "{}", cut.area());
            assert!(cut.dice(&mask).is_some_and(|dice| (0.3..0.9).contains(&dice)));
            let moved = damaged(Damage::Moved);
            assert_eq!(moved.area(), 400);
            assert!(moved.bounds() != mask.bounds());
            let swollen = damaged(Damage::Swollen).area();
            // Two pixels less or more on every side, with round corners.
            assert!(swollen == 256 || (540..576).contains(&swollen), "{swollen}");
        }
        let empty = Mask::empty(9, 9);
        assert_eq!(Damage::draw(&empty, &mut ChaCha8Rng::seed_from_u64(1)), empty);
    }
}

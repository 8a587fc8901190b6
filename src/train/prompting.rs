//! The prompts that a person might give, drawn from the truth.

use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::PromptSampling;
use super::target::Target;
use crate::mask::{Bounds, Mask};
use crate::segment::{Mode, Point, Prompt, Units};

/// Most clicks of one prompt.
const MAX_CLICKS: u32 = 3;
/// Tries for a click outside of the mask, near it.
const TRIES: usize = 20;

/// Draws a mode and the prompts that go with it. Without any class in the picture there is nobody to prompt for.
pub fn draw(sampling: &PromptSampling, target: &Target, rng: &mut ChaCha8Rng) -> (Mode, Vec<Prompt>) {
    let PromptSampling { autonomous, assisted, manual, .. } = *sampling;
    let mode = match choose(&[autonomous, assisted, manual], rng) {
        1 => Mode::Assisted,
        2 => Mode::Manual,
        _ => Mode::Autonomous,
    };
    if mode == Mode::Autonomous {
        return (mode, Vec::new());
    }
    let prompts: Vec<Prompt> = target
        .boxes
        .iter()
        .zip(&target.masks)
        .enumerate()
        .filter_map(|(class, (bounds, mask))| {
            let bounds = (*bounds)?;
            let mut prompt = Prompt { class, units: Units::Px, ..Prompt::default() };
            match choose(&[sampling.boxes, sampling.points, sampling.masks], rng) {
                1 => prompt.points = clicks(mask, &bounds, rng),
                2 => prompt.mask = Some(Arc::new(rough(mask, &bounds, rng))),
                _ => {
                    prompt.bbox = Some(jittered(&bounds, sampling.jitter, (mask.width(), mask.height()), rng))
                }
            }
            Some(prompt)
        })
        .collect();
    if prompts.is_empty() { (Mode::Autonomous, prompts) } else { (mode, prompts) }
}

/// An index drawn in proportion to its share; 0 where there are no shares.
fn choose(shares: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let mut left = rng.random::<f64>() * shares.iter().sum::<f64>();
    for (i, share) in shares.iter().enumerate() {
        if left < *share {
            return i;
        }
        left -= share;
    }
    0
}

/// The box with each side moved by up to `jitter` of the box's size, within the frame and never without area.
fn jittered(b: &Bounds, jitter: f64, (w, h): (usize, usize), rng: &mut ChaCha8Rng) -> [f32; 4] {
    let [x0, y0, x1, y1] = b.corners();
    let reach = |size: f32| (size * jitter as f32).max(if jitter > 0.0 { 1.0 } else { 0.0 });
    let mut moved = |v: f32, reach: f32, limit: usize| {
        (v + (rng.random::<f32>() * 2.0 - 1.0) * reach).clamp(0.0, limit as f32)
    };
    let (rx, ry) = (reach(x1 - x0), reach(y1 - y0));
    let found = [moved(x0, rx, w), moved(y0, ry, h), moved(x1, rx, w), moved(y1, ry, h)];
    if found[0] < found[2] && found[1] < found[3] { found } else { [x0, y0, x1, y1] }
}

/// One to three clicks; the first inside, others inside or, near the mask, outside of it.
fn clicks(mask: &Mask, b: &Bounds, rng: &mut ChaCha8Rng) -> Vec<Point> {
    let centre = |x: usize, y: usize, positive| Point { x: x as f32 + 0.5, y: y as f32 + 0.5, positive };
    let inside: Vec<(usize, usize)> = (b.y0..b.y1)
        .flat_map(|y| (b.x0..b.x1).map(move |x| (x, y)))
        .filter(|&(x, y)| mask.get(x, y))
        .collect();
    let count = rng.random_range(1..=MAX_CLICKS);
    let mut points = Vec::new();
    for i in 0..count {
        let negative = i > 0 && rng.random_bool(0.5);
        if negative {
            let (wide, high) = (b.x1 - b.x0, b.y1 - b.y0);
            let near = |low: usize, size: usize, limit: usize, rng: &mut ChaCha8Rng| {
                rng.random_range(
                    low.saturating_sub(size / 2)..(low + size + size / 2).min(limit).max(low + 1),
                )
            };
            let tried = (0..TRIES).find_map(|_| {
                let x = near(b.x0, wide, mask.width(), rng);
                let y = near(b.y0, high, mask.height(), rng);
                (!mask.get(x, y)).then_some((x, y))
            });
            points.extend(tried.map(|(x, y)| centre(x, y, false)));
        } else if !inside.is_empty() {
            let (x, y) = inside[rng.random_range(0..inside.len() as u64) as usize];
            points.push(centre(x, y, true));
        }
    }
    points
}

/// The mask moved by up to a tenth of its size: what a brush leaves.
fn rough(mask: &Mask, b: &Bounds, rng: &mut ChaCha8Rng) -> Mask {
    let reach = |size: usize| (size as i64 / 10).max(1);
    let (rx, ry) = (reach(b.x1 - b.x0), reach(b.y1 - b.y0));
    let (dx, dy) = (rng.random_range(-rx..=rx), rng.random_range(-ry..=ry));
    let mut moved = Mask::empty(mask.width(), mask.height());
    for y in b.y0..b.y1 {
        for x in b.x0..b.x1 {
            if mask.get(x, y)
                && let (Ok(x), Ok(y)) = (usize::try_from(x as i64 + dx), usize::try_from(y as i64 + dy))
            {
                moved.set(x, y, true);
            }
        }
    }
    // Moved out of the picture altogether, it would say nothing.
    if moved.area() > 0 { moved } else { mask.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::preprocess::Placement;
    use crate::train::random::generator;

    const SIZE: (usize, usize) = (60, 40);

    /// A disc, nothing, and a block in a corner.
    fn target() -> Target {
        let mask = |inside: &dyn Fn(usize, usize) -> bool| {
            let mut mask = Mask::empty(SIZE.0, SIZE.1);
            for (y, x) in (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (y, x))) {
                mask.set(x, y, inside(x, y));
            }
            mask
        };
        let disc = mask(&|x, y| x.abs_diff(30).pow(2) + y.abs_diff(20).pow(2) < 81);
        let corner = mask(&|x, y| x >= 52 && y >= 33);
        let masks = vec![disc, mask(&|_, _| false), corner];
        Target::new(masks, &Placement::new(SIZE.0, SIZE.1, 64), 64).unwrap()
    }

    /// Only one kind of prompt, of a person alone.
    fn only(boxes: f64, points: f64, masks: f64) -> PromptSampling {
        PromptSampling { autonomous: 0.0, assisted: 0.0, manual: 1.0, boxes, points, masks, jitter: 0.1 }
    }

    /// Many draws.
    fn drawn(sampling: &PromptSampling, target: &Target) -> Vec<(Mode, Vec<Prompt>)> {
        (0..200).map(|i| draw(sampling, target, &mut generator(3, "test", [i, 0]))).collect()
    }

    #[test]
    fn modes_and_kinds_come_in_their_shares() {
        let target = target();
        let sampling = PromptSampling {
            autonomous: 2.0,
            assisted: 1.0,
            manual: 1.0,
            boxes: 2.0,
            points: 1.0,
            masks: 1.0,
            jitter: 0.1,
        };
        let all = drawn(&sampling, &target);
        let share = |of: Mode| all.iter().filter(|(mode, _)| *mode == of).count();
        let about = |count: usize, expected: usize| count.abs_diff(expected) < expected / 3;
        assert!(about(share(Mode::Autonomous), 100), "{}", share(Mode::Autonomous));
        assert!(about(share(Mode::Assisted), 50) && about(share(Mode::Manual), 50));
        let prompts: Vec<&Prompt> = all.iter().flat_map(|(_, prompts)| prompts).collect();
        let percent =
            |of: &dyn Fn(&Prompt) -> bool| 100 * prompts.iter().filter(|p| of(p)).count() / prompts.len();
        let kinds = [
            percent(&|p| p.bbox.is_some()),
            percent(&|p| !p.points.is_empty()),
            percent(&|p| p.mask.is_some()),
        ];
        assert!(
            kinds[0].abs_diff(50) < 15 && kinds[1..].iter().all(|share| share.abs_diff(25) < 12),
            "{kinds:?}"
        );
        for (mode, prompts) in &all {
            assert_eq!(prompts.is_empty(), *mode == Mode::Autonomous);
            // Nobody points at what is not there, and of a class one thing is said.
            let spoken: Vec<usize> = prompts.iter().map(|p| p.class).collect();
            assert!(spoken.is_empty() || spoken == [0, 2], "{spoken:?}");
            for p in prompts {
                let said = [p.bbox.is_some(), !p.points.is_empty(), p.mask.is_some()];
                assert_eq!(said.iter().filter(|said| **said).count(), 1);
            }
        }
    }

    #[test]
    fn where_nothing_is_nobody_prompts() {
        let nothing = vec![Mask::empty(SIZE.0, SIZE.1)];
        let target = Target::new(nothing, &Placement::new(SIZE.0, SIZE.1, 64), 64).unwrap();
        let all = drawn(&only(1.0, 0.0, 0.0), &target);
        assert!(all.iter().all(|(mode, prompts)| *mode == Mode::Autonomous && prompts.is_empty()));
    }

    #[test]
    fn boxes_are_off_by_so_much_and_stay_in_the_frame() {
        let target = target();
        let sampling = only(1.0, 0.0, 0.0);
        let mut farthest = 0.0f32;
        for (_, prompts) in drawn(&sampling, &target) {
            for p in prompts {
                let (given, truth) = (p.bbox.unwrap(), target.boxes[p.class].unwrap().corners());
                assert!(given[0] < given[2] && given[1] < given[3], "{given:?}");
                assert!(given[0] >= 0.0 && given[1] >= 0.0 && given[2] <= 60.0 && given[3] <= 40.0);
                let size = [truth[2] - truth[0], truth[3] - truth[1]];
                for i in 0..4 {
                    let off = (given[i] - truth[i]).abs();
                    assert!(off <= (0.1 * size[i % 2]).max(1.0) + 1e-3, "{given:?} for {truth:?}");
                    farthest = farthest.max(off);
                }
            }
        }
        assert!(farthest > 1.2, "{farthest}");
        let exact = drawn(&PromptSampling { jitter: 0.0, ..sampling }, &target);
        for p in exact.iter().flat_map(|(_, prompts)| prompts) {
            assert_eq!(p.bbox.unwrap(), target.boxes[p.class].unwrap().corners());
        }
    }

    #[test]
    fn clicks_say_what_is_true() {
        let target = target();
        let (mut counts, mut negative) = ([0usize; 4], 0);
        for (_, prompts) in drawn(&only(0.0, 1.0, 0.0), &target) {
            for p in prompts {
                assert!(p.points[0].positive);
                counts[p.points.len()] += 1;
                for point in &p.points {
                    let inside = target.masks[p.class].get(point.x as usize, point.y as usize);
                    assert_eq!(inside, point.positive, "{point:?}");
                    negative += usize::from(!point.positive);
                }
            }
        }
        assert!(counts[0] == 0 && counts[1..].iter().all(|&n| n > 50) && negative > 50, "{counts:?}");
    }

    #[test]
    fn rough_masks_are_the_mask_moved_a_little() {
        let target = target();
        let mut moved = 0;
        for (_, prompts) in drawn(&only(0.0, 0.0, 1.0), &target) {
            for p in prompts {
                let (given, truth) = (p.mask.unwrap(), &target.masks[p.class]);
                assert!(given.area() > 0 && given.area() <= truth.area());
                let overlap = given.iou(truth).unwrap();
                assert!(overlap > 0.5, "{overlap}");
                moved += usize::from(overlap < 1.0);
            }
        }
        assert!(moved > 200, "{moved}");
    }
}

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

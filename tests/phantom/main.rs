//! The phantom from outside: is it reproducible, and does its truth describe its picture?

#![allow(clippy::unwrap_used)]

mod motion;
mod picture;

use sonomask::mask::Mask;
use sonomask::phantom::{Geometry, Phantom, PhantomClass, PhantomConfig, PhantomFrame};

/// Small enough for quick tests, large enough for every structure.
fn small() -> PhantomConfig {
    PhantomConfig { width: 320, height: 240, ..PhantomConfig::default() }
}

fn sector() -> PhantomConfig {
    PhantomConfig { geometry: Geometry::Sector, ..small() }
}

/// Nothing moves and nothing decorrelates.
fn still() -> PhantomConfig {
    PhantomConfig { motion_mm: 0.0, pulse_bpm: 0.0, decorrelation_rate: 0.0, ..small() }
}

fn phantom(config: &PhantomConfig) -> Phantom {
    Phantom::new(config.clone()).unwrap()
}

fn truth(frame: &PhantomFrame, class: PhantomClass) -> &Mask {
    &frame.truth.iter().find(|t| t.class == class).unwrap().mask
}

/// Mean gray level of the pixels for which `wanted` holds.
fn level(frame: &PhantomFrame, width: usize, wanted: impl Fn(usize, usize) -> bool) -> f64 {
    let picked: Vec<f64> = frame
        .image
        .iter()
        .enumerate()
        .filter(|(i, _)| wanted(i % width, i / width))
        .map(|(_, &v)| f64::from(v))
        .collect();
    assert!(picked.len() > 50, "only {} pixels to average", picked.len());
    picked.iter().sum::<f64>() / picked.len() as f64
}

/// Pixels at most `by` px away from the mask, in the four directions.
fn grown(mask: &Mask, by: usize) -> Mask {
    let mut out = mask.clone();
    for y in 0..mask.height() {
        for x in (0..mask.width()).filter(|&x| mask.get(x, y)) {
            for d in 1..=by {
                out.set(x + d, y, true);
                out.set(x.wrapping_sub(d), y, true);
                out.set(x, y + d, true);
                out.set(x, y.wrapping_sub(d), true);
            }
        }
    }
    out
}

//! The regions that a class has in a picture: two nerves, say.

use super::distance::squared_distances;
use crate::mask::{Bounds, Mask};

/// Pixels that hang together, over corners too (8-connected).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The smallest rectangle around it.
    pub bounds: Bounds,
    /// Column and row of each pixel, in no particular order.
    pixels: Vec<(usize, usize)>,
}

impl Region {
    /// Number of pixels.
    pub fn area(&self) -> usize {
        self.pixels.len()
    }

    /// The pixel farthest from all that is not of the region, beyond the picture's edge as well: the first row by row of those
    /// equally far.
    pub fn deepest(&self) -> (usize, usize) {
        let b = self.bounds;
        // The rectangle with a border of one pixel, which is outside.
        let (w, h) = (b.x1 - b.x0 + 2, b.y1 - b.y0 + 2);
        let place = |(x, y): (usize, usize)| (y - b.y0 + 1) * w + x - b.x0 + 1;
        let mut inside = vec![false; w * h];
        for &pixel in &self.pixels {
            inside[place(pixel)] = true;
        }
        let outside: Vec<_> = (0..w * h).filter(|&i| !inside[i]).map(|i| (i % w, i / w)).collect();
        let depth = squared_distances(&outside, (w, h), (1.0, 1.0));
        let mut deepest = (b.x0, b.y0, 0.0);
        for y in b.y0..b.y1 {
            for x in b.x0..b.x1 {
                let depth = depth[place((x, y))];
                if depth > deepest.2 {
                    deepest = (x, y, depth);
                }
            }
        }
        (deepest.0, deepest.1)
    }
}

/// The regions of `mask`, the largest first, equally large ones in the order of their first pixels row by row.
pub fn regions(mask: &Mask) -> Vec<Region> {
    let (w, h) = (mask.width(), mask.height());
    let mut seen = vec![false; w * h];
    let mut found = Vec::new();
    for start in 0..w * h {
        if seen[start] || !mask.get(start % w, start / w) {
            continue;
        }
        seen[start] = true;
        let mut pixels = vec![(start % w, start / w)];
        let mut bounds = Bounds { x0: start % w, y0: start / w, x1: start % w + 1, y1: start / w + 1 };
        let mut at = 0;
        while let Some(&(x, y)) = pixels.get(at) {
            at += 1;
            bounds = Bounds {
                x0: bounds.x0.min(x),
                y0: bounds.y0.min(y),
                x1: bounds.x1.max(x + 1),
                y1: bounds.y1.max(y + 1),
            };
            for ny in y.saturating_sub(1)..(y + 2).min(h) {
                for nx in x.saturating_sub(1)..(x + 2).min(w) {
                    if mask.get(nx, ny) && !std::mem::replace(&mut seen[ny * w + nx], true) {
                        pixels.push((nx, ny));
                    }
                }
            }
        }
        found.push(Region { bounds, pixels });
    }
    found.sort_by_key(|region| std::cmp::Reverse(region.area()));
    found
}

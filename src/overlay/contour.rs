//! Outlines of a mask as closed smooth lines, and their anti-aliased strokes.

use super::raster::{Raster, Rect};
use crate::mask::{Bounds, Mask};

/// One closed outline: a stretch of [`Outlines::points`] and the area it encloses (negative for a hole).
#[derive(Clone, Copy, Debug)]
struct Loop {
    start: usize,
    end: usize,
    area: f32,
}

/// All outlines of one mask, in frame coordinates (pixel `(x, y)` covers `x..x + 1`, `y..y + 1`).
#[derive(Debug, Default)]
pub(super) struct Outlines {
    points: Vec<[f32; 2]>,
    loops: Vec<Loop>,
    seen: Vec<bool>,
    starts: Vec<usize>,
    blank: Vec<u8>,
}

/// Pixels looked at together while searching for outlines.
const BLOCK: usize = 32;

/// Points kept per mask. A real organ has some thousands; a mask of noise has millions, and stroking those would stall
/// the video, so the shortest outlines go first.
const MAX_POINTS: usize = 1 << 16;
/// Points of a single outline before smoothing halves them; a longer one is not drawn.
const MAX_WALK: usize = 2 * MAX_POINTS;
/// Outlines shorter than this keep their exact shape: smoothing would shrink them to nothing.
const SMOOTH_FROM: usize = 16;
/// Passes of the 1-2-1 filter along the outline. Four turn the stairs of any slope into a line and move a straight
/// edge nowhere, a corner by less than a pixel.
const SMOOTH_PASSES: usize = 4;

impl Outlines {
    /// Traces the outlines of `mask` within its `bounds`.
    ///
    /// Walks along the cracks between inside and outside pixels with the inside on the right, one point at the middle
    /// of each crack. Pixels that touch only at a corner are not connected.
    pub fn trace(&mut self, mask: &Mask, bounds: Bounds) {
        self.points.clear();
        self.loops.clear();
        self.seen.clear();
        let width = bounds.x1 - bounds.x0;
        self.seen.resize(width * (bounds.y1 - bounds.y0), false);
        self.blank.resize(width, 0);
        let mut shortest = 0;
        for y in bounds.y0..bounds.y1 {
            let within = |y: usize| &mask.row(y)[bounds.x0..bounds.x1];
            // Nothing is inside above the bounds.
            let above = if y > bounds.y0 { within(y - 1) } else { &self.blank[..width] };
            self.starts.clear();
            for (block, (row, above)) in within(y).chunks(BLOCK).zip(above.chunks(BLOCK)).enumerate() {
                let first = block * BLOCK;
                // Most blocks have no start; the sum over all is quicker than a look at each.
                if row.iter().zip(above).fold(0, |any, (&v, &a)| any | (v & (a ^ 1))) != 0 {
                    let starts = row.iter().zip(above).enumerate().filter(|(_, (v, a))| **v > **a);
                    self.starts.extend(starts.map(|(i, _)| first + i));
                }
            }
            let seen_row = (y - bounds.y0) * width;
            for k in 0..self.starts.len() {
                let i = self.starts[k];
                if !self.seen[seen_row + i] {
                    let start = self.points.len();
                    self.walk(mask, bounds, (bounds.x0 + i) as i32, y as i32);
                    self.finish(start, shortest);
                    while self.points.len() > MAX_POINTS {
                        shortest = (2 * shortest).max(8);
                        self.drop_shorter(shortest);
                    }
                }
            }
        }
    }

    /// Follows one outline from the top-left corner of pixel `(x, y)`, heading right.
    fn walk(&mut self, mask: &Mask, bounds: Bounds, x: i32, y: i32) {
        const STEPS: [(i32, i32); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];
        // Pixel right of the way and left of it, as offsets from the corner ahead.
        const RIGHT: [(i32, i32); 4] = [(0, 0), (-1, 0), (-1, -1), (0, -1)];
        const LEFT: [(i32, i32); 4] = [(0, -1), (0, 0), (-1, 0), (-1, -1)];
        let inside = |x: i32, y: i32| {
            usize::try_from(x).is_ok_and(|x| usize::try_from(y).is_ok_and(|y| mask.get(x, y)))
        };
        let width = bounds.x1 - bounds.x0;
        let full = self.points.len() + MAX_WALK;
        let (mut cx, mut cy, mut heading) = (x, y, 0usize);
        loop {
            let (dx, dy) = STEPS[heading];
            // One point past the limit is kept: it tells `finish` that the outline is too long.
            if self.points.len() <= full {
                self.points.push([cx as f32 + 0.5 * dx as f32, cy as f32 + 0.5 * dy as f32]);
            }
            if heading == 0 {
                // Heading right, the inside pixel lies below the crack: it is the one the scan would start from again.
                let at = (cy as usize - bounds.y0) * width + (cx as usize - bounds.x0);
                if let Some(seen) = self.seen.get_mut(at) {
                    *seen = true;
                }
            }
            (cx, cy) = (cx + dx, cy + dy);
            let (right, left) = (RIGHT[heading], LEFT[heading]);
            if !inside(cx + right.0, cy + right.1) {
                heading = (heading + 1) % 4;
            } else if inside(cx + left.0, cy + left.1) {
                heading = (heading + 3) % 4;
            }
            if (cx, cy, heading) == (x, y, 0) {
                return;
            }
        }
    }

    /// Smooths the points from `start` on and keeps them as a loop, unless they are fewer than `shortest` or too many.
    fn finish(&mut self, start: usize, shortest: usize) {
        let count = self.points.len() - start;
        if count < shortest || count > MAX_WALK {
            self.points.truncate(start);
            return;
        }
        if count >= SMOOTH_FROM {
            let ring = &mut self.points[start..];
            for _ in 0..SMOOTH_PASSES {
                let first = ring[0];
                let mut before = ring[count - 1];
                for i in 0..count {
                    let here = ring[i];
                    let after = ring.get(i + 1).copied().unwrap_or(first);
                    ring[i] = [0, 1].map(|k| 0.25 * before[k] + 0.5 * here[k] + 0.25 * after[k]);
                    before = here;
                }
            }
            // Smoothed points lie closer than a stroke can show; a crack outline has an even number of them.
            for i in 0..count / 2 {
                ring[i] = ring[2 * i];
            }
            self.points.truncate(start + count / 2);
        }
        let ring = &self.points[start..];
        let area = ring
            .iter()
            .zip(ring.iter().cycle().skip(1))
            .map(|(a, b)| 0.5 * (a[0] * b[1] - b[0] * a[1]))
            .sum();
        self.loops.push(Loop { start, end: self.points.len(), area });
    }

    fn drop_shorter(&mut self, shortest: usize) {
        let mut kept = 0;
        let points = &mut self.points;
        self.loops.retain_mut(|l| {
            let len = l.end - l.start;
            if len < shortest {
                return false;
            }
            points.copy_within(l.start..l.end, kept);
            (l.start, l.end) = (kept, kept + len);
            kept += len;
            true
        });
        points.truncate(kept);
    }

    /// Topmost point and lowest row of the outline that encloses the largest area.
    pub fn anchor(&self) -> Option<([f32; 2], f32)> {
        let largest = self.loops.iter().max_by(|a, b| a.area.total_cmp(&b.area))?;
        let ring = self.points.get(largest.start..largest.end)?;
        let top = ring.iter().copied().min_by(|a, b| a[1].total_cmp(&b[1]))?;
        Some((top, ring.iter().fold(top[1], |low, p| low.max(p[1]))))
    }

    /// Strokes all outlines with a line of `width` pixels; `dash` is the length of a dash and of a gap, `None` for a
    /// solid line.
    pub fn stroke(&self, raster: &mut Raster, width: f32, dash: Option<f32>) {
        let reach = 0.5 * width + 0.5;
        for l in &self.loops {
            let ring = &self.points[l.start..l.end];
            let sides = || ring.iter().zip(ring.iter().cycle().skip(1));
            let length = |(a, b): (&[f32; 2], &[f32; 2])| (b[0] - a[0]).hypot(b[1] - a[1]);
            // A whole number of dashes around the loop, so that the last meets the first.
            let period = dash.map(|dash| {
                let total: f32 = sides().map(length).sum();
                total / (total / (2.0 * dash)).round().max(1.0)
            });
            let mut along = 0.0;
            for (a, b) in sides() {
                let step = length((a, b));
                // The ends of a dash are round and reach half the width into the gaps; so much is held back.
                let drawn = period
                    .is_none_or(|p| (along + 0.5 * step).rem_euclid(p) < (0.5 * p - width).max(0.1 * p));
                along += step;
                if drawn {
                    segment(raster, *a, *b, reach);
                }
            }
        }
    }
}

/// Raises the coverage around the line from `a` to `b`: full within `reach - 1`, falling to none at `reach`.
fn segment(raster: &mut Raster, a: [f32; 2], b: [f32; 2], reach: f32) {
    let low = [0, 1].map(|k| (a[k].min(b[k]) - reach).floor() as i32);
    let high = [0, 1].map(|k| (a[k].max(b[k]) + reach).ceil() as i32);
    let d = [b[0] - a[0], b[1] - a[1]];
    let len2 = d[0] * d[0] + d[1] * d[1];
    let scale = if len2 > 0.0 { 1.0 / len2 } else { 0.0 };
    for y in low[1]..high[1] {
        let (cut, row) = raster.span_mut(low[0], y, (high[0] - low[0]).max(0) as usize);
        let py = y as f32 + 0.5 - a[1];
        let left = low[0] as f32 + cut as f32 + 0.5 - a[0];
        for (i, v) in row.iter_mut().enumerate() {
            let px = left + i as f32;
            let t = ((px * d[0] + py * d[1]) * scale).clamp(0.0, 1.0);
            let (ex, ey) = (px - t * d[0], py - t * d[1]);
            let dist2 = ex * ex + ey * ey;
            if dist2 < reach * reach {
                let cover = (reach - dist2.sqrt()).min(1.0);
                *v = (*v).max((255.0 * cover + 0.5) as u8);
            }
        }
    }
}

/// The part of the frame a stroke of `width` around `bounds` can touch.
pub(super) fn stroked_area(bounds: Bounds, width: f32) -> Rect {
    let rect = Rect {
        x: bounds.x0 as i32,
        y: bounds.y0 as i32,
        w: (bounds.x1 - bounds.x0) as i32,
        h: (bounds.y1 - bounds.y0) as i32,
    };
    rect.grown((0.5 * width + 0.5).ceil() as i32)
}

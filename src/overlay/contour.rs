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
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            #[target_feature(enable = "avx2")]
            fn wide(outlines: &Outlines, raster: &mut Raster, width: f32, dash: Option<f32>) {
                outlines.stroke_by::<LANES>(raster, width, dash, |line, row, px, py| {
                    line.cover_wide(row, px, py)
                });
            }
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { wide(self, raster, width, dash) };
        }
        self.stroke_by::<1>(raster, width, dash, Line::cover);
    }

    /// Strokes all outlines, of which `cover` does a row of pixels at a time, best a multiple of `BLOCK` of them.
    #[inline(always)]
    fn stroke_by<const BLOCK: usize>(
        &self,
        raster: &mut Raster,
        width: f32,
        dash: Option<f32>,
        cover: impl Fn(&Line, &mut [u8], f32, f32),
    ) {
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
                    segment::<BLOCK>(raster, *a, *b, reach, &cover);
                }
            }
        }
    }
}

/// Raises the coverage around the line from `a` to `b`, row by row.
#[inline(always)]
fn segment<const BLOCK: usize>(
    raster: &mut Raster,
    a: [f32; 2],
    b: [f32; 2],
    reach: f32,
    cover: &impl Fn(&Line, &mut [u8], f32, f32),
) {
    let low = [0, 1].map(|k| (a[k].min(b[k]) - reach).floor() as i32);
    let high = [0, 1].map(|k| (a[k].max(b[k]) + reach).ceil() as i32);
    let d = [b[0] - a[0], b[1] - a[1]];
    let line = Line::new(d, reach);
    // Whole blocks: what lies beyond the reach gets no coverage.
    let len = ((high[0] - low[0]).max(0) as usize).next_multiple_of(BLOCK);
    for y in low[1]..high[1] {
        let (cut, row) = raster.span_mut(low[0], y, len);
        let left = low[0] as f32 + cut as f32 + 0.5 - a[0];
        cover(&line, row, left, y as f32 + 0.5 - a[1]);
    }
}

/// A straight stroke that begins at the origin.
struct Line {
    d: [f32; 2],
    /// One by the square of its length, 0 for a dot.
    scale: f32,
    /// Half its width and half a pixel: coverage is full within `reach - 1` and falls to none at `reach`.
    reach: f32,
}

/// Pixels of a row whose coverage is worked out together.
const LANES: usize = 8;

impl Line {
    #[inline(always)]
    fn new(d: [f32; 2], reach: f32) -> Self {
        let len2 = d[0] * d[0] + d[1] * d[1];
        Self { d, scale: if len2 > 0.0 { 1.0 / len2 } else { 0.0 }, reach }
    }

    /// Raises the coverage of the pixels `(px, py)`, `(px + 1, py)` and so on.
    fn cover(&self, row: &mut [u8], px: f32, py: f32) {
        let Self { d, scale, reach } = *self;
        for (i, v) in row.iter_mut().enumerate() {
            let px = px + i as f32;
            let t = ((px * d[0] + py * d[1]) * scale).clamp(0.0, 1.0);
            let (ex, ey) = (px - t * d[0], py - t * d[1]);
            let dist2 = ex * ex + ey * ey;
            if dist2 < reach * reach {
                let cover = (reach - dist2.sqrt()).min(1.0);
                *v = (*v).max((255.0 * cover + 0.5) as u8);
            }
        }
    }

    /// The same, [`LANES`] pixels at a time, with the same coverage: points of outlines are multiples of 2^-9 (halves of a pixel, smoothed
    /// four times), so that places of pixels beside them are exact however they are added up, and all else is rounded alike.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    fn cover_wide(&self, row: &mut [u8], px: f32, py: f32) {
        use std::arch::x86_64::*;
        let Self { d, scale, reach } = *self;
        let (zero, one, steps) = (
            _mm256_setzero_ps(),
            _mm256_set1_ps(1.0),
            _mm256_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0),
        );
        let within = |v| _mm256_min_ps(_mm256_max_ps(v, zero), one);
        let (dx, dy, y) = (_mm256_set1_ps(d[0]), _mm256_set1_ps(d[1]), _mm256_set1_ps(py));
        let covers = |px: f32| {
            let x = _mm256_add_ps(_mm256_set1_ps(px), steps);
            let dot = _mm256_add_ps(_mm256_mul_ps(x, dx), _mm256_mul_ps(y, dy));
            let t = within(_mm256_mul_ps(dot, _mm256_set1_ps(scale)));
            let (ex, ey) = (_mm256_sub_ps(x, _mm256_mul_ps(t, dx)), _mm256_sub_ps(y, _mm256_mul_ps(t, dy)));
            let dist2 = _mm256_add_ps(_mm256_mul_ps(ex, ex), _mm256_mul_ps(ey, ey));
            let cover = within(_mm256_sub_ps(_mm256_set1_ps(reach), _mm256_sqrt_ps(dist2)));
            let scaled = _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(255.0), cover), _mm256_set1_ps(0.5));
            let ints = _mm256_cvttps_epi32(scaled);
            let words = _mm_packus_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256::<1>(ints));
            _mm_packus_epi16(words, words)
        };
        let (blocks, rest) = row.as_chunks_mut::<LANES>();
        let rest_px = px + (blocks.len() * LANES) as f32;
        for (k, block) in blocks.iter_mut().enumerate() {
            let before = _mm_cvtsi64_si128(i64::from_le_bytes(*block));
            let after = _mm_max_epu8(before, covers(px + (k * LANES) as f32));
            *block = _mm_cvtsi128_si64(after).to_le_bytes();
        }
        if !rest.is_empty() {
            let covers = _mm_cvtsi128_si64(covers(rest_px)).to_le_bytes();
            for (v, cover) in rest.iter_mut().zip(covers) {
                *v = (*v).max(cover);
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn eight_pixels_at_a_time_are_covered_as_one_at_a_time() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let mut some = 0;
        // As outlines have it, see `Line::cover_wide`.
        let mut place = |span: f32| (span * (random() - 0.5) * 512.0).round() / 512.0;
        for case in 0..2000 {
            let d = if case % 50 == 0 { [0.0; 2] } else { [0; 2].map(|_| place(12.0)) };
            let line = Line::new(d, 12.0 + place(22.0));
            let before: Vec<u8> = (0..case % 43).map(|_| (place(120.0).abs()) as u8).collect();
            let (px, py) = (place(16.0) - 12.0, place(8.0));
            let (mut one, mut eight) = (before.clone(), before.clone());
            line.cover(&mut one, px, py);
            // SAFETY: the processor has AVX2, as was looked up above.
            unsafe { line.cover_wide(&mut eight, px, py) };
            assert_eq!(one, eight, "case {case}");
            some += usize::from(one != before);
        }
        assert!(some > 500, "hardly any line was seen: {some}");
    }
}

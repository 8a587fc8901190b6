//! Coverage of one colour: drawn dense into a scratch raster, kept sparse as a layer.

use super::blend::Target;

/// A rectangle in frame pixels; may lie partly or wholly outside the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub x: i32,
    pub y: i32,
    pub w: i32,
    pub h: i32,
}

impl Rect {
    pub fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }

    /// The rectangle grown by `by` on each side.
    pub fn grown(self, by: i32) -> Self {
        Self { x: self.x - by, y: self.y - by, w: self.w + 2 * by, h: self.h + 2 * by }
    }
}

/// Dense coverage (0..=255) of a part of the frame. Reused, so that steady drawing does not allocate.
#[derive(Debug, Default)]
pub(super) struct Raster {
    x0: usize,
    y0: usize,
    w: usize,
    h: usize,
    data: Vec<u8>,
}

impl Raster {
    /// Starts over with nothing covered, on the part of `rect` inside the frame.
    pub fn begin(&mut self, target: &Target, rect: Rect) {
        let clip = |low: i32, len: i32, side: usize| {
            // Even ends keep the 2x2 blocks of 4:2:0 chroma whole, except at the frame's own edge.
            let start = usize::try_from(low).unwrap_or(0) & !1;
            let end = usize::try_from(low.saturating_add(len)).unwrap_or(0).next_multiple_of(2).min(side);
            (start, end.saturating_sub(start))
        };
        (self.x0, self.w) = clip(rect.x, rect.w, target.width);
        (self.y0, self.h) = clip(rect.y, rect.h, target.height);
        self.data.clear();
        self.data.resize(self.w * self.h, 0);
    }

    /// Rows with their number in the frame; every row starts at column [`Raster::left`].
    pub fn rows_mut(&mut self) -> impl Iterator<Item = (usize, &mut [u8])> {
        let y0 = self.y0;
        self.data.chunks_exact_mut(self.w.max(1)).enumerate().map(move |(i, row)| (y0 + i, row))
    }

    /// Frame column of the first value of each row.
    pub fn left(&self) -> usize {
        self.x0
    }

    /// The values of row `y` from column `x` on, at most `len`, clipped to the raster, and how many columns were cut off on the left.
    pub fn span_mut(&mut self, x: i32, y: i32, len: usize) -> (usize, &mut [u8]) {
        let Some(row) = usize::try_from(y).ok().and_then(|y| y.checked_sub(self.y0)).filter(|&r| r < self.h)
        else {
            return (0, &mut []);
        };
        let from = i64::from(x) - self.x0 as i64;
        let (cut, start) = if from < 0 { (from.unsigned_abs() as usize, 0) } else { (0, from as usize) };
        let (start, end) = (start.min(self.w), (start + len.saturating_sub(cut)).min(self.w));
        (cut, &mut self.data[row * self.w..][start..end])
    }

    /// Covers a rectangle with rounded corners by `alpha`.
    pub fn rounded(&mut self, rect: Rect, radius: i32, alpha: u8) {
        let radius = radius.min(rect.w / 2).min(rect.h / 2).max(0);
        for y in rect.y..rect.y + rect.h {
            let (_, row) = self.span_mut(rect.x, y, rect.w.max(0) as usize);
            row.fill(alpha);
            let into = (rect.y + radius - y).max(y + 1 - (rect.y + rect.h - radius));
            if into <= 0 {
                continue;
            }
            let dy = into as f32 - 0.5;
            for i in 0..radius {
                let dx = (radius - i) as f32 - 0.5;
                let cover = (radius as f32 + 0.5 - dx.hypot(dy)).clamp(0.0, 1.0);
                let value = (f32::from(alpha) * cover).round() as u8;
                for x in [rect.x + i, rect.x + rect.w - 1 - i] {
                    if let (0, [v, ..]) = self.span_mut(x, y, 1) {
                        *v = value;
                    }
                }
            }
        }
    }
}

/// A stretch of one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub y: usize,
    pub x: usize,
    start: usize,
    len: usize,
}

/// Sparse coverage: runs in scan order.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    alpha: Vec<u8>,
}

/// Zeros within a run are cheaper than the start of another run, and blending with zero is the identity.
const GAP: usize = 16;

impl Runs {
    fn clear(&mut self) {
        self.runs.clear();
        self.alpha.clear();
    }

    fn push_row(&mut self, y: usize, x0: usize, row: &[u8]) {
        let mut at = 0;
        while let Some(start) = row.get(at..).and_then(first_covered).map(|first| at + first) {
            let mut end = start + 1;
            while let Some(last) = row[end..row.len().min(end + GAP)].iter().rposition(|&a| a != 0) {
                end += last + 1;
            }
            self.runs.push(Run { y, x: x0 + start, start: self.alpha.len(), len: end - start });
            self.alpha.extend_from_slice(&row[start..end]);
            at = end;
        }
    }

    /// Each run with its alphas.
    pub fn iter(&self) -> impl Iterator<Item = (Run, &[u8])> {
        self.runs.iter().map(|run| (*run, &self.alpha[run.start..run.start + run.len]))
    }
}

/// Index of the first value that is not zero. Looks at a block at a time, which the compiler does in a few instructions.
fn first_covered(row: &[u8]) -> Option<usize> {
    let (blocks, _) = row.as_chunks::<GAP>();
    let skipped = GAP * blocks.iter().take_while(|b| b.iter().fold(0, |any, &v| any | v) == 0).count();
    row[skipped..].iter().position(|&v| v != 0).map(|i| skipped + i)
}

/// One colour, already in the frame's own components, and where it covers the frame.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Bytes 0..3 of a packed pixel, or Y, U, V; gray uses the first alone.
    pub ink: [u8; 3],
    /// Coverage per pixel.
    pub luma: Runs,
    /// Coverage per 2x2 block; empty unless the format is 4:2:0.
    pub chroma: Runs,
}

/// Layers from bottom to top. Cleared layers keep their memory for the next mask.
#[derive(Debug, Default)]
pub(super) struct Layers {
    list: Vec<Layer>,
    used: usize,
    blocks: Vec<u8>,
}

impl Layers {
    pub fn clear(&mut self) {
        self.used = 0;
    }

    pub fn iter(&self) -> impl Iterator<Item = &Layer> {
        self.list[..self.used].iter()
    }

    /// Puts what `raster` covers on top, in `color` (R, G, B).
    pub fn push(&mut self, target: &Target, raster: &Raster, color: [u8; 3]) {
        if self.used == self.list.len() {
            self.list.push(Layer::default());
        }
        let layer = &mut self.list[self.used];
        self.used += 1;
        layer.ink = target.ink(color);
        layer.luma.clear();
        layer.chroma.clear();
        if raster.w == 0 {
            return;
        }
        for (i, row) in raster.data.chunks_exact(raster.w).enumerate() {
            layer.luma.push_row(raster.y0 + i, raster.x0, row);
        }
        if target.subsampled() {
            for (i, pair) in raster.data.chunks(2 * raster.w).enumerate() {
                let (top, bottom) = pair.split_at(raster.w);
                // Only at the frame's edge is a block smaller than 2x2; its missing half repeats the one it has, which
                // gives the mean of what there is.
                let bottom = if bottom.is_empty() { top } else { bottom };
                let mean = |[a, b]: [u8; 2], [c, d]: [u8; 2]| {
                    ((u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d) + 2) >> 2) as u8
                };
                let ((top, t), (bottom, b)) = (top.as_chunks::<2>(), bottom.as_chunks::<2>());
                self.blocks.clear();
                self.blocks.extend(top.iter().zip(bottom).map(|(&t, &b)| mean(t, b)));
                self.blocks.extend(t.iter().zip(b).map(|(&t, &b)| mean([t; 2], [b; 2])));
                layer.chroma.push_row(raster.y0 / 2 + i, raster.x0 / 2, &self.blocks);
            }
        }
    }
}

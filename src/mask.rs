//! Masks: which pixels belong to a class, on which frame.

use std::sync::Arc;

use crate::frame::{FrameId, FrameMeta};
use crate::stage::StageTimes;
use crate::state::Remark;

/// A binary mask, row-major, at the resolution of its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

/// Half-open pixel bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First column.
    pub x0: usize,
    /// First row.
    pub y0: usize,
    /// One past the last column.
    pub x1: usize,
    /// One past the last row.
    pub y1: usize,
}

impl Bounds {
    /// `x0, y0, x1, y1`, as a box prompt has them.
    pub fn corners(&self) -> [f32; 4] {
        [self.x0, self.y0, self.x1, self.y1].map(|v| v as f32)
    }
}

impl Mask {
    /// A mask of `width * height` values, zero outside and non-zero inside. `None` if the length is another.
    pub fn new(width: usize, height: usize, mut data: Vec<u8>) -> Option<Self> {
        if width.checked_mul(height)? != data.len() {
            return None;
        }
        for v in &mut data {
            *v = u8::from(*v != 0);
        }
        Some(Self { width, height, data })
    }

    /// A mask from `bits`, row by row without gaps, eight pixels a byte from the highest bit on. `None` if there are too few or bytes
    /// are left over.
    pub fn from_bits(width: usize, height: usize, bits: &[u8]) -> Option<Self> {
        let count = width.checked_mul(height)?;
        if bits.len() != count.div_ceil(8) {
            return None;
        }
        let mut data = Vec::with_capacity(bits.len() * 8);
        for byte in bits {
            data.extend((0..8).map(|i| byte >> (7 - i) & 1));
        }
        data.truncate(count);
        Some(Self { width, height, data })
    }

    /// A mask with nothing in it.
    pub fn empty(width: usize, height: usize) -> Self {
        Self { width, height, data: vec![0; width * height] }
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }
    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }
    /// Row `y`: 1 inside, 0 outside.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.width..][..self.width]
    }
    /// All rows, 1 inside, 0 outside.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
    /// Whether `(x, y)` is inside; `false` beyond the border.
    pub fn get(&self, x: usize, y: usize) -> bool {
        x < self.width && y < self.height && self.data[y * self.width + x] != 0
    }
    /// Puts `(x, y)` inside or outside; beyond the border nothing happens.
    pub fn set(&mut self, x: usize, y: usize, inside: bool) {
        if x < self.width && y < self.height {
            self.data[y * self.width + x] = u8::from(inside);
        }
    }

    /// Number of pixels inside.
    pub fn area(&self) -> usize {
        self.data.iter().map(|&v| usize::from(v)).sum()
    }

    /// The smallest rectangle around all inside pixels; `None` for an empty mask.
    pub fn bounds(&self) -> Option<Bounds> {
        let mut b: Option<Bounds> = None;
        for y in 0..self.height {
            let row = self.row(y);
            let Some(first) = row.iter().position(|&v| v != 0) else { continue };
            let last = row.iter().rposition(|&v| v != 0).unwrap_or(first);
            b = Some(match b {
                None => Bounds { x0: first, y0: y, x1: last + 1, y1: y + 1 },
                Some(b) => Bounds { x0: b.x0.min(first), y0: b.y0, x1: b.x1.max(last + 1), y1: y + 1 },
            });
        }
        b
    }

    /// Intersection over union; 1 when both are empty. `None` for different sizes.
    pub fn iou(&self, other: &Self) -> Option<f64> {
        let (inter, a, b) = self.overlap(other)?;
        let union = a + b - inter;
        Some(if union == 0 { 1.0 } else { inter as f64 / union as f64 })
    }

    /// Dice coefficient; 1 when both are empty. `None` for different sizes.
    pub fn dice(&self, other: &Self) -> Option<f64> {
        let (inter, a, b) = self.overlap(other)?;
        Some(if a + b == 0 { 1.0 } else { 2.0 * inter as f64 / (a + b) as f64 })
    }

    fn overlap(&self, other: &Self) -> Option<(usize, usize, usize)> {
        if (self.width, self.height) != (other.width, other.height) {
            return None;
        }
        let inter = self.data.iter().zip(&other.data).map(|(a, b)| usize::from(a & b)).sum();
        Some((inter, self.area(), other.area()))
    }

    /// Run lengths in COCO's order: column by column, starting with a run outside (possibly 0).
    pub fn rle(&self) -> Vec<u32> {
        let Self { width, height, data } = self;
        // Where a run begins, counted down the columns. Rows lie together in memory, columns do not: so it is row by row that pixels are
        // sought which differ from the one above, and that of a column's first is the last of the column before.
        let mut begins = Vec::new();
        let mut above: Vec<u8> = vec![0; *width];
        if let (Some(before), Some(first)) = (above.get_mut(1..), data.len().checked_sub(*width)) {
            before.copy_from_slice(&data[first..data.len() - 1]);
        }
        let mut above = &above[..];
        for (y, row) in data.chunks_exact((*width).max(1)).enumerate() {
            differing(above, row, |x| begins.push(x * height + y));
            above = row;
        }
        begins.sort_unstable();
        let ends = begins.iter().copied().chain([data.len()]);
        let starts = std::iter::once(0).chain(begins.iter().copied());
        ends.zip(starts).map(|(end, start)| (end - start) as u32).collect()
    }

    /// The inverse of [`Mask::rle`]. `None` unless the runs fill the mask exactly.
    pub fn from_rle(width: usize, height: usize, counts: &[u32]) -> Option<Self> {
        let total = width.checked_mul(height)?;
        if counts.iter().map(|&c| c as usize).try_fold(0usize, usize::checked_add)? != total {
            return None;
        }
        let mut mask = Self::empty(width, height);
        let mut at = 0;
        for (i, &count) in counts.iter().enumerate() {
            if i % 2 == 1 {
                for p in at..at + count as usize {
                    mask.data[(p % height) * width + p / height] = 1;
                }
            }
            at += count as usize;
        }
        Some(mask)
    }
}

/// Calls `found` with every place at which two rows differ.
fn differing(above: &[u8], row: &[u8], mut found: impl FnMut(usize)) {
    const BLOCK: usize = 32;
    let ((a, a_rest), (b, b_rest)) = (above.as_chunks::<BLOCK>(), row.as_chunks::<BLOCK>());
    let mut look = |from: usize, a: &[u8], b: &[u8]| {
        a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b).for_each(|(i, _)| found(from + i));
    };
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        // Nearly everywhere they are the same, and to see that of a block takes a few instructions.
        if a != b {
            look(i * BLOCK, a, b);
        }
    }
    look(a.len() * BLOCK, a_rest, b_rest);
}

/// Logits at the decoder's own resolution, before upsampling.
#[derive(Clone, Debug, PartialEq)]
pub struct LowResLogits {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height` values, row-major; above zero is inside, unless the predictor's masks have another
    /// threshold.
    pub values: Vec<f32>,
}

/// What the model says of one class in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMask {
    /// Index into the run's list of classes.
    pub class: usize,
    /// Pixels of the class, at frame resolution; empty when the class is absent.
    pub mask: Mask,
    /// Predicted IoU of the mask, as the decoder gives it (about 0..=1).
    pub score: f32,
    /// Probability that the class is in the frame, 0..=1; 1 for families without an object-presence head.
    pub presence: f32,
    /// Logits the mask was made from, kept only when asked for.
    pub logits: Option<LowResLogits>,
}

/// All classes of one frame, bound to that frame's identity and times.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// The frame these masks were computed from.
    pub frame: FrameMeta,
    /// One entry per prompted class.
    pub masks: Vec<ClassMask>,
    /// Nanoseconds each stage took.
    pub times: StageTimes,
    /// What a model with a memory says beside its masks.
    pub remark: Option<Remark>,
}

/// A segmentation together with the frame it was made from: the only way to draw a mask as current.
#[derive(Clone, Debug)]
pub struct Paired(Arc<Segmentation>);

/// The two are not the same frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mask of frame {mask} cannot be drawn on frame {frame}")]
pub struct NotItsFrame {
    /// Frame to draw on.
    pub frame: FrameId,
    /// Frame the mask belongs to.
    pub mask: FrameId,
}

impl Paired {
    /// Binds `segmentation` to `frame`.
    ///
    /// # Errors
    /// If the two do not carry the same identity.
    pub fn new(frame: &FrameMeta, segmentation: Arc<Segmentation>) -> Result<Self, NotItsFrame> {
        if frame.id == segmentation.frame.id {
            Ok(Self(segmentation))
        } else {
            Err(NotItsFrame { frame: frame.id, mask: segmentation.frame.id })
        }
    }

    /// What to draw.
    pub fn segmentation(&self) -> &Segmentation {
        &self.0
    }
}

/// A segmentation of an earlier frame of the same epoch, no older than the limit: drawn visibly aged.
#[derive(Clone, Debug)]
pub struct Aged {
    segmentation: Arc<Segmentation>,
    age: std::time::Duration,
}

impl Aged {
    /// Ages `segmentation` against `frame`. `None` if it comes from another epoch, from a later frame, or is older than `limit`.
    ///
    /// Age is the time between the two captures, so a slow compositor cannot make a mask look younger than it is.
    pub fn new(
        frame: &FrameMeta,
        segmentation: Arc<Segmentation>,
        limit: std::time::Duration,
    ) -> Option<Self> {
        let of = &segmentation.frame;
        if of.id.epoch != frame.id.epoch || of.id.seq > frame.id.seq {
            return None;
        }
        let age = of.capture.age_at(&frame.capture);
        (age <= limit).then_some(Self { segmentation, age })
    }

    /// What to draw.
    pub fn segmentation(&self) -> &Segmentation {
        &self.segmentation
    }
    /// Time between the capture of the mask's frame and the capture of the frame it is drawn on.
    pub fn age(&self) -> std::time::Duration {
        self.age
    }
}

//! Whether a picture continues the one before it: a cut to another scene, and a frozen scanner.

use crate::frame::Rgb;

/// Cells a side of the thumbnails that are compared.
const CELLS: usize = 32;
/// Gray levels by which a cell's mean differs at most in equal pictures: speckle that lives moves it further, a codec's or a
/// capture card's noise does not.
const STILL: f32 = 0.5;
/// Share of the cells that may differ in a frozen picture: scanners show a clock beside it.
const CLOCK: f32 = 0.02;

/// What a picture is to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// It goes on.
    Live,
    /// The scanner shows the same picture for some time now.
    Frozen,
    /// The first picture that differs after a freeze.
    Thawed,
    /// Another scene.
    Cut,
}

/// The last picture as a thumbnail.
#[derive(Clone, Debug)]
pub struct Scene {
    /// See [`MemorySettings::freeze_after`](super::MemorySettings::freeze_after).
    freeze_after: u32,
    /// See [`MemorySettings::scene_cut`](super::MemorySettings::scene_cut).
    cut: f32,
    last: Option<Vec<f32>>,
    /// Equal pictures in a row.
    equal: u32,
}

impl Scene {
    /// Has seen nothing.
    pub fn new(freeze_after: u32, cut: f32) -> Self {
        Self { freeze_after, cut, last: None, equal: 0 }
    }

    /// Forgets the last picture.
    pub fn forget(&mut self) {
        self.last = None;
        self.equal = 0;
    }

    /// Compares a picture with the one before it, and keeps it.
    pub fn look(&mut self, picture: &Rgb) -> Continuity {
        let now = thumbnail(picture);
        let Some(last) = self.last.replace(now) else { return Continuity::Live };
        let now = self.last.as_deref().unwrap_or_default();
        let was_frozen = self.is_frozen();
        self.equal = if is_still(&last, now) { self.equal.saturating_add(1) } else { 0 };
        if self.is_frozen() {
            Continuity::Frozen
        } else if was_frozen {
            Continuity::Thawed
        } else if self.cut > 0.0 && change(&last, now) > self.cut {
            Continuity::Cut
        } else {
            Continuity::Live
        }
    }

    fn is_frozen(&self) -> bool {
        self.freeze_after > 0 && self.equal >= self.freeze_after
    }
}

/// Means of the cells, row by row, of the green of a picture.
fn thumbnail(picture: &Rgb) -> Vec<f32> {
    let (width, height) = (picture.width, picture.height);
    let mut cells = Vec::with_capacity(CELLS * CELLS);
    for row in 0..CELLS {
        let rows = span(row, height);
        for column in 0..CELLS {
            let columns = span(column, width);
            let pixels = (rows.len() * columns.len()) as f32;
            let sum: u32 = rows
                .clone()
                .map(|y| {
                    let of_row = picture.data.get(y * width * 3..).unwrap_or_default();
                    let greens = of_row.iter().skip(columns.start * 3 + 1).step_by(3).take(columns.len());
                    greens.map(|&v| u32::from(v)).sum::<u32>()
                })
                .sum();
            cells.push(sum as f32 / pixels.max(1.0));
        }
    }
    cells
}

/// Pixels of a cell; at least one, so that small pictures have cells in common.
fn span(cell: usize, pixels: usize) -> std::ops::Range<usize> {
    let from = cell * pixels / CELLS;
    from..((cell + 1) * pixels / CELLS).max(from + 1).min(pixels.max(1))
}

fn is_still(a: &[f32], b: &[f32]) -> bool {
    let moved = a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > STILL).count();
    moved as f32 <= CLOCK * a.len() as f32
}

/// How far two thumbnails are from saying the same: one minus their correlation, 0 to 2. Brightness and gain do not count.
/// Pictures that are flat change into nothing, nor does anything into them: a dark picture is no scene.
fn change(a: &[f32], b: &[f32]) -> f32 {
    let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len().max(1) as f32;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0f32, 0.0f32, 0.0f32);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - ma, b - mb);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    let flat = STILL * STILL * a.len() as f32;
    if aa < flat || bb < flat { 0.0 } else { 1.0 - ab / (aa * bb).sqrt() }
}

//! Whether a picture continues the one before it: a cut to another scene, and a frozen scanner.

use crate::segment::preprocess::Picture;

/// Cells a side of the thumbnails that are compared.
const CELLS: usize = 64;
/// Cells a side of a block: each is compared for itself, so that what happens in one place (a loss of contact, a needle) is no
/// other scene.
const BLOCK: usize = 8;
/// Blocks that have to show anything for two pictures to be compared: a dark picture is no scene.
const MIN_BLOCKS: usize = 8;
/// Blocks darker than this share of the brighter picture's mean show nothing: shadows, and lines that lost contact.
const DARK: f32 = 0.5;
/// Share of the blocks that have changed at least as much as is said of the whole.
const CHANGED: f32 = 0.4;
/// Gray levels by which a cell's mean differs at most in equal pictures: speckle that lives moves it further, a codec's or a
/// capture card's noise does not. Blocks that vary by less than four times this are flat.
const STILL: f32 = 0.5;
/// Share of the cells that may differ in a frozen picture: scanners show a clock beside it.
const CLOCK: f32 = 0.02;
/// A cut changes the picture so many times more than it has changed of late: a probe in fast motion is no cut.
const SUDDEN: f32 = 4.0;
/// Pictures from which is known how much it changes of late, and the share of a new one in that.
const LATELY: (u32, f32) = (5, 0.1);

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

/// The last picture as a thumbnail, and how much pictures have changed of late.
#[derive(Clone, Debug)]
pub struct Scene {
    /// See [`MemorySettings::freeze_after`](super::MemorySettings::freeze_after).
    freeze_after: u32,
    /// See [`MemorySettings::scene_cut`](super::MemorySettings::scene_cut).
    cut: f32,
    last: Option<Vec<f32>>,
    /// The last picture that showed anything: what comes after darkness is compared with what was before it.
    shown: Option<Vec<f32>>,
    /// Equal pictures in a row.
    equal: u32,
    /// Changes seen, and how large they are.
    usual: (u32, f32),
}

impl Scene {
    /// Has seen nothing.
    pub fn new(freeze_after: u32, cut: f32) -> Self {
        Self { freeze_after, cut, last: None, shown: None, equal: 0, usual: (0, 0.0) }
    }

    /// Forgets everything it has seen.
    pub fn forget(&mut self) {
        *self = Self::new(self.freeze_after, self.cut);
    }

    /// Compares a picture with the one before it, and keeps it.
    pub fn look(&mut self, picture: &Picture<'_>) -> Continuity {
        let now = thumbnail(picture);
        let was_frozen = self.is_frozen();
        let still = self.last.as_ref().is_some_and(|last| is_still(last, &now));
        self.equal = if still { self.equal.saturating_add(1) } else { 0 };
        let changed = self.shown.as_ref().filter(|_| !still).and_then(|shown| change(shown, &now));
        let cut = changed.is_some_and(|changed| self.is_cut(changed));
        // What was compared shows something; else it is asked whether it would.
        if !still && (changed.is_some() || change(&now, &now).is_some()) {
            self.shown = Some(now.clone());
        }
        self.last = Some(now);
        if self.is_frozen() {
            Continuity::Frozen
        } else if was_frozen {
            Continuity::Thawed
        } else if cut {
            Continuity::Cut
        } else {
            Continuity::Live
        }
    }

    /// Whether the last picture was that before it, where that is looked at.
    pub fn repeats(&self) -> bool {
        self.freeze_after > 0 && self.equal > 0
    }

    fn is_frozen(&self) -> bool {
        self.freeze_after > 0 && self.equal >= self.freeze_after
    }

    /// Whether a change is a cut. If not, it is one of those that are usual.
    fn is_cut(&mut self, change: f32) -> bool {
        let (seen, usual) = &mut self.usual;
        if self.cut > 0.0 && *seen >= LATELY.0 && change > self.cut && change > SUDDEN * *usual {
            self.usual = (0, 0.0);
            return true;
        }
        *usual = if *seen < LATELY.0 { usual.max(change) } else { *usual + LATELY.1 * (change - *usual) };
        *seen = seen.saturating_add(1);
        false
    }
}

/// Means of the cells, row by row, of the green of a picture.
fn thumbnail(picture: &Picture<'_>) -> Vec<f32> {
    let (width, height) = picture.size();
    let columns: Vec<_> = (0..CELLS).map(|column| span(column, width)).collect();
    // Of each row of pixels, what it gives to each cell.
    let mut green = vec![0; width];
    let sums: Vec<[u32; CELLS]> = (0..height)
        .map(|y| {
            picture.green_row(y, &mut green);
            std::array::from_fn(|cell| {
                let own = green.get(columns[cell].clone()).unwrap_or_default();
                own.iter().map(|&v| u32::from(v)).sum()
            })
        })
        .collect();
    let mut cells = Vec::with_capacity(CELLS * CELLS);
    for row in 0..CELLS {
        let rows = span(row, height);
        for (cell, columns) in columns.iter().enumerate() {
            let sum: u32 = sums.get(rows.clone()).unwrap_or_default().iter().map(|row| row[cell]).sum();
            cells.push(sum as f32 / (rows.len() * columns.len()).max(1) as f32);
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

/// How far two thumbnails are from showing the same, 0 to 2: one minus the correlation that two fifths of the blocks do not
/// exceed. Blocks that are flat or dark in one of them do not count; `None` if hardly any is left. Measured on phantoms and real pictures in
/// `benches/results/memory.md`.
fn change(a: &[f32], b: &[f32]) -> Option<f32> {
    let mean = |of: &[f32]| of.iter().sum::<f32>() / of.len().max(1) as f32;
    let dark = DARK * mean(a).max(mean(b));
    let mut found: Vec<f32> = (0..CELLS * CELLS / (BLOCK * BLOCK))
        .filter_map(|block| {
            let (x, y) = (block % (CELLS / BLOCK) * BLOCK, block / (CELLS / BLOCK) * BLOCK);
            let cells = |of: &[f32]| -> Vec<f32> {
                (y..y + BLOCK).flat_map(|y| of[y * CELLS + x..][..BLOCK].to_vec()).collect()
            };
            let (a, b) = (cells(a), cells(b));
            let (mean_a, mean_b) = (mean(&a), mean(&b));
            let (mut ab, mut aa, mut bb) = (0.0f32, 0.0f32, 0.0f32);
            for (a, b) in a.iter().zip(&b) {
                let (a, b) = (a - mean_a, b - mean_b);
                ab += a * b;
                aa += a * a;
                bb += b * b;
            }
            let flat = (4.0 * STILL).powi(2) * (BLOCK * BLOCK) as f32;
            (aa.min(bb) > flat && mean_a.min(mean_b) >= dark).then(|| ab / (aa * bb).sqrt())
        })
        .collect();
    if found.len() < MIN_BLOCKS {
        return None;
    }
    found.sort_by(f32::total_cmp);
    Some(1.0 - found[((found.len() - 1) as f32 * CHANGED) as usize])
}

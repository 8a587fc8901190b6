//! The look of a region: fill and contour, plain for a paired mask, hatched and dashed for an aged one.

use super::blend::{Target, mix};
use super::contour::{Outlines, stroked_area};
use super::panel::Pen;
use super::style::Style;
use crate::mask::{Bounds, Mask};

/// Opacity of the stripes and of the gaps of an aged fill, as a part of the fill's own.
const AGED_STRIPE: f32 = 0.75;
const AGED_GAP: f32 = 0.2;
/// Length of a dash, and width of a stripe, in pixels of a 720-line frame.
const DASH: f32 = 9.0;
const STRIPE: f32 = 5.0;

/// Bounds and area of a mask, in one pass that skips empty rows fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub bounds: Bounds,
    pub area: usize,
}

impl Extent {
    /// `None` for an empty mask.
    pub fn of(mask: &Mask) -> Option<Self> {
        let mut extent: Option<Self> = None;
        for y in 0..mask.height() {
            let row = mask.row(y);
            // Without an early exit the compiler looks at many pixels at once.
            if row.iter().fold(0, |any, &v| any | v) == 0 {
                continue;
            }
            let x0 = row.iter().position(|&v| v != 0).unwrap_or(0);
            let x1 = row.iter().rposition(|&v| v != 0).unwrap_or(0) + 1;
            let area = row[x0..x1].iter().map(|&v| usize::from(v)).sum::<usize>();
            let e = extent.get_or_insert(Self { bounds: Bounds { x0, y0: y, x1, y1: y + 1 }, area: 0 });
            e.bounds = Bounds { x0: e.bounds.x0.min(x0), x1: e.bounds.x1.max(x1), y1: y + 1, ..e.bounds };
            e.area += area;
        }
        extent
    }
}

/// How regions are drawn: numbers of the style, scaled to the frame, for a paired or for an aged mask.
#[derive(Debug)]
pub(super) struct Looks {
    contour: Option<f32>,
    dash: Option<f32>,
    /// Alphas of a row of the frame, and `period` more. The fill of row `y` begins at `y`, in periods, which makes stripes aslant.
    fill: Vec<u8>,
    /// Of stripe and gap.
    period: usize,
}

impl Looks {
    pub fn new(style: &Style, target: &Target, aged: bool) -> Self {
        let scale = target.height as f32 / 720.0;
        let alpha = if style.fill { 255.0 * style.fill_alpha } else { 0.0 };
        let fill = if aged { [alpha * AGED_STRIPE, alpha * AGED_GAP] } else { [alpha; 2] };
        let width = (style.contour_width * scale).max(1.0);
        let [stripe, gap] = fill.map(|a| a.round() as u8);
        let half = ((STRIPE * scale).round() as usize).max(2);
        let period = 2 * half;
        Self {
            contour: style.contour.then_some(width),
            dash: aged.then_some((DASH * scale).max(2.0 * width + 2.0)),
            fill: (0..target.width + period).map(|x| if x % period < half { stripe } else { gap }).collect(),
            period,
        }
    }

    /// Draws the region of `mask`, whose outlines were traced into `outlines`.
    pub fn region(
        &self,
        pen: &mut Pen<'_>,
        mask: &Mask,
        bounds: Bounds,
        outlines: &Outlines,
        color: [u8; 3],
    ) {
        if self.contour.is_none() && self.fill.iter().all(|&a| a == 0) {
            return;
        }
        pen.raster.begin(pen.target, stroked_area(bounds, self.contour.unwrap_or(0.0)));
        if let Some(width) = self.contour {
            outlines.stroke(pen.raster, width, self.dash);
        }
        let left = pen.raster.left();
        for (y, row) in pen.raster.rows_mut() {
            if (bounds.y0..bounds.y1).contains(&y) {
                self.fill(row, &mask.row(y)[left..], left + y);
            }
        }
        pen.layers.push(pen.target, pen.raster, color);
    }

    /// Lays the fill of one row of a mask under the contour's coverage; `phase` moves the hatching.
    fn fill(&self, row: &mut [u8], mask: &[u8], phase: usize) {
        let alphas = &self.fill[phase % self.period..];
        for ((v, &inside), &alpha) in row.iter_mut().zip(mask).zip(alphas) {
            *v = mix(*v, 255, alpha * inside);
        }
    }
}

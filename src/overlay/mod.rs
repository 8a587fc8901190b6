//! Drawing masks on a frame, in the frame's own pixel format.
//!
//! Guarantees, each with a test in `tests/overlay/`:
//! - a mask reaches the picture only as [`Paired`] or [`Aged`]: no function here takes a bare mask or segmentation;
//! - a mask of another size than the frame is refused, never stretched;
//! - only pixels under the drawing change: stride padding, the alpha or unused byte and everything else stay as they
//!   are, and with everything switched off the picture passes bit for bit;
//! - an aged mask looks different from a paired one in its fill (hatched, fainter) and in its contour (dashed).
//!
//! A drawing is a stack of layers: one colour, converted once to the frame's components, and its coverage per pixel
//! (and per 2x2 block where the format is 4:2:0). Layers are kept as long as the same mask is drawn, so a mask shown
//! on many frames costs one blend per frame.

mod blend;
mod contour;
mod panel;
mod raster;
mod region;
mod sheet;
mod slate;
mod style;
mod text;

use std::fmt::Write as _;

use blend::{Target, paint};
use contour::Outlines;
use panel::{Layout, LegendRow, Pen, Tone};
use raster::{Layers, Raster, Rect};
use region::{Extent, Looks};

use crate::frame::ImageViewMut;
use crate::mask::{Aged, ClassMask, Paired, Segmentation};
use crate::state::AiState;

pub use sheet::{SheetError, Tile, contact_sheet};
pub use slate::draw_slate;
pub use style::{ClassStyle, Style};

/// What may be drawn on a frame.
#[derive(Clone, Copy, Debug)]
pub enum Drawable<'a> {
    /// The mask of this very frame.
    Paired(&'a Paired),
    /// The mask of an earlier frame, drawn as such and with its age.
    Aged(&'a Aged),
    /// No mask.
    Nothing,
}

impl<'a> Drawable<'a> {
    fn segmentation(self) -> Option<&'a Segmentation> {
        match self {
            Self::Paired(p) => Some(p.segmentation()),
            Self::Aged(a) => Some(a.segmentation()),
            Self::Nothing => None,
        }
    }
}

/// Why a mask was not drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// A mask does not have the frame's size.
    #[error(
        "the mask of class {class} has {}x{} pixels, the frame has {}x{}; no mask was drawn",
        .mask.0, .mask.1, .frame.0, .frame.1
    )]
    MaskSize {
        /// Index of the class.
        class: usize,
        /// Width and height of the mask.
        mask: (usize, usize),
        /// Width and height of the frame.
        frame: (usize, usize),
    },
}

/// What the cached layers show. Holding the segmentation keeps its address from being reused, so comparing addresses
/// can never take a new mask for the cached one.
#[derive(Debug)]
enum Shown {
    Stale,
    Nothing,
    Paired(Paired),
    Aged(Aged),
}

impl Shown {
    fn is(&self, what: Drawable<'_>) -> bool {
        match (self, what) {
            (Self::Paired(a), Drawable::Paired(b)) => std::ptr::eq(a.segmentation(), b.segmentation()),
            (Self::Aged(a), Drawable::Aged(b)) => std::ptr::eq(a.segmentation(), b.segmentation()),
            (Self::Nothing, Drawable::Nothing) => true,
            _ => false,
        }
    }
}

/// Draws masks, labels, legend, status and mark; one per stream, owned by the thread that composes the frames.
#[derive(Debug)]
pub struct Overlay {
    style: Style,
    classes: Vec<ClassStyle>,
    target: Option<(Target, Layout)>,
    shown: Shown,
    masks: Layers,
    status: Layers,
    status_text: String,
    mark: Layers,
    scratch: Scratch,
}

/// Working memory, kept from frame to frame.
#[derive(Debug, Default)]
struct Scratch {
    raster: Raster,
    outlines: Outlines,
    taken: Vec<Rect>,
    head: String,
    tail: String,
    key: String,
}

impl Overlay {
    /// An overlay in `style` (brought into range, see [`Style::clamped`]) for `classes`, which
    /// [`ClassMask::class`] indexes. A class beyond the list is drawn as "class N" in a colour of the palette.
    pub fn new(style: Style, classes: Vec<ClassStyle>) -> Self {
        Self {
            style: style.clamped(),
            classes,
            target: None,
            shown: Shown::Stale,
            masks: Layers::default(),
            status: Layers::default(),
            status_text: String::new(),
            mark: Layers::default(),
            scratch: Scratch::default(),
        }
    }

    /// Whether a frame without masks stays as it is, so that it need not even be made writable.
    pub fn leaves_bare_frames(&self) -> bool {
        !self.style.status && !self.style.mark && !self.style.legend
    }

    /// Draws `what` and the panels on `image`.
    ///
    /// The same segmentation (the same `Arc`) on the same kind of frame is drawn from the cache, without allocating;
    /// the overlay keeps that one segmentation alive until it draws something else.
    ///
    /// # Errors
    /// A mask of another size than the frame: no mask of the segmentation is drawn, the status says so, the panels are
    /// drawn as for [`Drawable::Nothing`].
    pub fn draw(
        &mut self,
        image: &mut ImageViewMut<'_>,
        what: Drawable<'_>,
        state: &AiState,
    ) -> Result<(), OverlayError> {
        let target = Target::of(image);
        let refused = what.segmentation().map_or(Ok(()), |s| check_sizes(s, &target));
        let what = if refused.is_ok() { what } else { Drawable::Nothing };
        let layout = match self.target {
            Some((known, layout)) if known == target => layout,
            _ => self.retarget(target),
        };
        if !self.shown.is(what) {
            self.redraw(&target, &layout, what);
        }
        if self.style.status {
            self.update_status(&target, &layout, what, state);
        }
        paint(image, &self.masks);
        paint(image, &self.status);
        paint(image, &self.mark);
        refused
    }

    /// Forgets what was made for another kind of frame.
    fn retarget(&mut self, target: Target) -> Layout {
        let layout = Layout::new(&target, self.style.text_scale);
        self.target = Some((target, layout));
        self.shown = Shown::Stale;
        self.status.clear();
        self.status_text.clear();
        self.mark.clear();
        if self.style.mark {
            pen(&target, &layout, &mut self.scratch.raster, &mut self.mark).mark();
        }
        layout
    }

    /// Remakes fills, contours, labels and legend.
    fn redraw(&mut self, target: &Target, layout: &Layout, what: Drawable<'_>) {
        let Scratch { raster, outlines, taken, head, .. } = &mut self.scratch;
        let style = &self.style;
        self.masks.clear();
        taken.clear();
        let segmentation = what.segmentation();
        let masks = segmentation.map_or(&[][..], |s| &s.masks);
        let mut pen = pen(target, layout, raster, &mut self.masks);
        let mark = style.mark.then(|| layout.mark());
        taken.extend(mark);
        if style.status {
            taken.push(layout.status());
        }

        let looks = Looks::new(style, target, matches!(what, Drawable::Aged(_)));
        let extents: Vec<_> = masks.iter().map(|m| Extent::of(&m.mask)).collect();
        let mut anchors = Vec::with_capacity(masks.len());
        for (m, extent) in masks.iter().zip(&extents) {
            let Some(Extent { bounds, .. }) = *extent else { continue };
            if style.contour || style.labels {
                outlines.trace(&m.mask, bounds);
                anchors.extend(outlines.anchor().map(|at| (m, at)));
            }
            looks.region(&mut pen, &m.mask, bounds, outlines, color(&self.classes, m.class));
        }
        if style.legend {
            let values: Vec<_> =
                (0..self.classes.len()).map(|class| legend_value(class, masks, &extents, target)).collect();
            let rows: Vec<_> = self
                .classes
                .iter()
                .zip(&values)
                .map(|(c, value)| LegendRow { name: &c.name, color: c.color, value })
                .collect();
            if !rows.is_empty() {
                taken.push(pen.legend(&rows, mark));
            }
        }
        if style.labels {
            for (m, at) in anchors {
                head.clear();
                write_label(head, &self.classes, m);
                pen.label(head, color(&self.classes, m.class), at, taken);
            }
        }
        self.shown = match what {
            Drawable::Paired(p) => Shown::Paired(p.clone()),
            Drawable::Aged(a) => Shown::Aged(a.clone()),
            Drawable::Nothing => Shown::Nothing,
        };
    }

    /// Remakes the status box if its text has changed.
    fn update_status(&mut self, target: &Target, layout: &Layout, what: Drawable<'_>, state: &AiState) {
        let Scratch { raster, head, tail, key, .. } = &mut self.scratch;
        head.clear();
        tail.clear();
        let (tone, name) = match state {
            AiState::Starting => (Tone::Waiting, "AI STARTING"),
            AiState::Live => (Tone::Calm, "AI LIVE"),
            AiState::Remarked(_) => (Tone::Warning, "AI LIVE"),
            AiState::Delayed => (Tone::Warning, "AI DELAYED"),
            AiState::Off(_) => (Tone::Alarm, "AI OFF"),
        };
        head.push_str(name);
        // Writing to a String cannot fail.
        let _ = match (what, state) {
            (Drawable::Aged(a), _) => write!(tail, "mask {} ms old", a.age().as_millis()),
            (Drawable::Nothing, AiState::Live | AiState::Delayed) => write!(tail, "no mask"),
            _ => Ok(()),
        };
        if let AiState::Off(reason) | AiState::Remarked(reason) = state {
            if !tail.is_empty() && !reason.is_empty() {
                tail.push_str(" - ");
            }
            // One more than fits, so that the cut shows.
            tail.extend(reason.chars().take(layout.status_chars() + 1));
        }
        key.clear();
        key.push_str(head);
        key.push('\n');
        key.push_str(tail);
        if *key == self.status_text {
            return;
        }
        std::mem::swap(key, &mut self.status_text);
        self.status.clear();
        pen(target, layout, raster, &mut self.status).status(tone, head, tail);
    }
}

fn pen<'a>(
    target: &'a Target,
    layout: &'a Layout,
    raster: &'a mut Raster,
    layers: &'a mut Layers,
) -> Pen<'a> {
    Pen { target, layout, raster, layers }
}

fn check_sizes(segmentation: &Segmentation, target: &Target) -> Result<(), OverlayError> {
    let frame = (target.width, target.height);
    for m in &segmentation.masks {
        let mask = (m.mask.width(), m.mask.height());
        if mask != frame {
            return Err(OverlayError::MaskSize { class: m.class, mask, frame });
        }
    }
    Ok(())
}

fn color(classes: &[ClassStyle], class: usize) -> [u8; 3] {
    classes.get(class).map_or_else(|| ClassStyle::palette(class), |c| c.color)
}

/// Name and score, such as `nerve 0.93`.
fn write_label(out: &mut String, classes: &[ClassStyle], m: &ClassMask) {
    // Writing to a String cannot fail.
    let _ = match classes.get(m.class) {
        Some(c) => write!(out, "{}", c.name),
        None => write!(out, "class {}", m.class),
    };
    let _ = if m.score.is_finite() { write!(out, " {:.2}", m.score) } else { write!(out, " --") };
}

/// Area of a class in percent of the frame.
fn legend_value(class: usize, masks: &[ClassMask], extents: &[Option<Extent>], target: &Target) -> String {
    let mut of_class = masks.iter().zip(extents).filter(|(m, _)| m.class == class).peekable();
    if of_class.peek().is_none() {
        return "-".to_owned();
    }
    match of_class.filter_map(|(_, e)| e.as_ref()).map(|e| e.area).sum::<usize>() {
        0 => "absent".to_owned(),
        area => format!("{:.1} %", 100.0 * area as f64 / (target.width * target.height) as f64),
    }
}

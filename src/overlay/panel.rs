//! Boxes with text: status, legend, mark and region labels, and where they go.

use noto_sans_mono_bitmap::FontWeight;

use super::blend::Target;
use super::raster::{Layers, Raster, Rect};
use super::text::{Font, chars};

const WHITE: [u8; 3] = [245, 245, 245];
const BLACK: [u8; 3] = [0, 0, 0];
/// Opacity of the dark boxes, out of 255: speckle behind them stays visible, white text stays readable.
const BOX_ALPHA: u8 = 150;
const MARK: &str = "RESEARCH USE ONLY";
/// Longest name in legend and labels, in characters.
const NAME_CHARS: usize = 24;
/// Characters the status line may grow to in normal work; labels keep clear of them.
const STATUS_CHARS: usize = "AI DELAYED mask 999 ms old".len();

/// Look of the status box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// A small dark box with a green dot.
    Calm,
    /// The model is not ready yet.
    Waiting,
    /// Masks are late.
    Warning,
    /// No masks.
    Alarm,
}

/// Sizes that follow from the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    font: Font,
    banner: Font,
    width: i32,
    height: i32,
    pad: i32,
    margin: i32,
}

impl Layout {
    pub fn new(target: &Target, text_scale: f32) -> Self {
        let font = Font::new(target.height, text_scale, FontWeight::Regular);
        let banner = Font::new(target.height, 1.25 * text_scale, FontWeight::Bold);
        Self {
            font,
            banner,
            width: target.width as i32,
            height: target.height as i32,
            pad: (font.line() / 3).max(3),
            margin: (font.line() / 2).max(4),
        }
    }

    /// A box around one line of `font` and `w` pixels.
    fn line_box(&self, font: Font, w: i32) -> (i32, i32) {
        ((w + 2 * self.pad).min(self.width), font.line() + self.pad / 2)
    }

    /// Where the mark stands.
    pub fn mark(&self) -> Rect {
        let (w, h) = self.line_box(self.font, self.font.width(MARK.len()));
        Rect { x: (self.width - w - self.margin).max(0), y: (self.height - h - self.margin).max(0), w, h }
    }

    /// What the status takes at its largest in normal work.
    pub fn status(&self) -> Rect {
        let (w, h) = self.line_box(self.banner, self.banner.width(STATUS_CHARS));
        Rect { x: self.margin, y: self.margin, w, h }
    }

    /// Characters of status text that fit across the frame.
    pub fn status_chars(&self) -> usize {
        self.banner.fit(self.width - 2 * (self.margin + self.pad))
    }
}

/// Draws panels on top of `layers`.
pub(super) struct Pen<'a> {
    pub target: &'a Target,
    pub layout: &'a Layout,
    pub raster: &'a mut Raster,
    pub layers: &'a mut Layers,
}

/// One row of the legend.
pub(super) struct LegendRow<'a> {
    pub name: &'a str,
    pub color: [u8; 3],
    pub value: &'a str,
}

impl Pen<'_> {
    fn boxed(&mut self, rect: Rect, radius: i32, color: [u8; 3], alpha: u8) {
        self.raster.begin(self.target, rect);
        self.raster.rounded(rect, radius, alpha);
        self.layers.push(self.target, self.raster, color);
    }

    fn text(&mut self, font: Font, (x, y): (i32, i32), text: &str, max_chars: usize, color: [u8; 3]) {
        let count = chars(text, max_chars);
        self.raster.begin(self.target, font.rect(x, y, count));
        font.draw(self.raster, x, y, text, max_chars);
        self.layers.push(self.target, self.raster, color);
    }

    /// "RESEARCH USE ONLY", bottom right.
    pub fn mark(&mut self) {
        let Layout { font, pad, .. } = *self.layout;
        let rect = self.layout.mark();
        self.boxed(rect, pad, BLACK, BOX_ALPHA);
        self.text(font, (rect.x + pad, rect.y + pad / 4), MARK, font.fit(rect.w - 2 * pad), WHITE);
    }

    /// `head` in bold, then `tail`, top left.
    pub fn status(&mut self, tone: Tone, head: &str, tail: &str) {
        let Layout { pad, margin, .. } = *self.layout;
        let font = if tone == Tone::Calm { self.layout.font } else { self.layout.banner };
        let (paper, alpha, ink) = match tone {
            Tone::Calm => (BLACK, BOX_ALPHA, WHITE),
            Tone::Waiting => ([60, 85, 125], 225, WHITE),
            Tone::Warning => ([255, 185, 20], 235, BLACK),
            Tone::Alarm => ([185, 20, 30], 240, WHITE),
        };
        let dot = if tone == Tone::Calm { font.line() / 2 } else { 0 };
        let indent = if dot > 0 { dot + pad } else { 0 };
        let room = font.fit(self.layout.width - 2 * (margin + pad) - indent);
        let head_chars = chars(head, room);
        let tail_room = room.saturating_sub(head_chars + 1);
        let tail_chars = chars(tail, tail_room);
        let total = head_chars + if tail_chars > 0 { tail_chars + 1 } else { 0 };
        let (w, h) = self.layout.line_box(font, indent + font.width(total));
        let rect = Rect { x: margin, y: margin, w, h };
        self.boxed(rect, pad, paper, alpha);
        if dot > 0 {
            let rect = Rect { x: rect.x + pad, y: rect.y + (rect.h - dot) / 2, w: dot, h: dot };
            self.boxed(rect, dot / 2, [60, 220, 110], 255);
        }
        let (x, y) = (rect.x + pad + indent, rect.y + pad / 4);
        self.text(font.weight(FontWeight::Bold), (x, y), head, head_chars, ink);
        let x = x + font.width(head_chars + 1);
        self.text(font.weight(FontWeight::Regular), (x, y), tail, tail_room, ink);
    }

    /// The whole frame in dark gray, `head` in the middle as large as fits, `tail` below it.
    pub fn slate(&mut self, head: &str, tail: &str) {
        let Layout { font, banner, width, height, .. } = *self.layout;
        self.boxed(Rect { x: 0, y: 0, w: width, h: height }, 0, [48, 48, 48], 255);
        let fits = |f: &Font| f.width(chars(head, NAME_CHARS) + 2) <= width;
        let large = [4.0, 3.0, 2.0].map(|scale| Font::new(height as usize, scale, FontWeight::Bold));
        let big = large.into_iter().find(fits).unwrap_or(banner);
        let mut y = (height - big.line() - font.line()) / 2;
        for (font, text) in [(big, head), (font, tail)] {
            let count = chars(text, font.fit(width));
            self.text(font, ((width - font.width(count)) / 2, y), text, count, WHITE);
            y += font.line();
        }
    }

    /// Classes with their colours and values, bottom left, above `mark` if both do not fit side by side. Takes at most
    /// half the frame's height; the last line counts the rows left out.
    pub fn legend(&mut self, rows: &[LegendRow<'_>], mark: Option<Rect>) -> Rect {
        let Layout { font, pad, margin, width, height, .. } = *self.layout;
        let swatch = 2 * font.line() / 3;
        let room = font.fit(width - 2 * (margin + pad) - swatch - pad);
        let value_chars = rows.iter().map(|r| chars(r.value, NAME_CHARS)).max().unwrap_or(0);
        let name_room = NAME_CHARS.min(room.saturating_sub(value_chars + 1));
        let names = rows.iter().map(|r| chars(r.name, name_room)).max().unwrap_or(0);
        let fitting = ((height / 2 - pad) / font.line()).max(1) as usize;
        let shown = if rows.len() <= fitting { rows.len() } else { fitting - 1 };
        let overflow =
            if shown < rows.len() { format!("+{} more", rows.len() - shown) } else { String::new() };
        let lines = rows.len().min(fitting) as i32;
        let text_chars = (names + 1 + value_chars).max(overflow.len());
        let (w, h) = (3 * pad + swatch + font.width(text_chars), lines * font.line() + pad);
        let mut rect = Rect { x: margin, y: height - h - margin, w: w.min(width), h };
        if let Some(mark) = mark.filter(|m| m.overlaps(&rect.grown(pad))) {
            rect.y = mark.y - pad - h;
        }
        self.boxed(rect, pad, BLACK, BOX_ALPHA);
        let x = rect.x + 2 * pad + swatch;
        let mut y = rect.y + pad / 2;
        for row in rows.iter().take(shown) {
            let square = Rect { x: rect.x + pad, y: y + (font.line() - swatch) / 2, w: swatch, h: swatch };
            self.boxed(square, pad / 2, row.color, 255);
            self.text(font, (x, y), row.name, name_room, WHITE);
            let indent = text_chars.saturating_sub(chars(row.value, value_chars));
            self.text(font, (x + font.width(indent), y), row.value, value_chars, WHITE);
            y += font.line();
        }
        if !overflow.is_empty() {
            self.text(font, (x, y), &overflow, room, WHITE);
        }
        rect
    }

    /// A label for the region whose outline has its topmost point at `top` and ends at row `bottom`: above the region
    /// if there is room, else below, else at the nearest free height. Adds its box to `taken`.
    pub fn label(
        &mut self,
        text: &str,
        color: [u8; 3],
        (top, bottom): ([f32; 2], f32),
        taken: &mut Vec<Rect>,
    ) {
        let Layout { font, pad, width, height, .. } = *self.layout;
        let bar = (pad / 2).max(2);
        let count = chars(text, NAME_CHARS + 8).min(font.fit(width - 3 * pad - bar));
        let (w, h) = ((3 * pad + bar + font.width(count)).min(width), font.line() + pad / 2);
        let x = (top[0] as i32 - w / 2).clamp(0, width - w);
        let (above, below) = (top[1] as i32 - h - pad, bottom as i32 + pad);
        let step = h + 2;
        let free = |y: i32| {
            let rect = Rect { x, y, w, h };
            (y >= 0 && y + h <= height && !taken.iter().any(|t| t.overlaps(&rect))).then_some(rect)
        };
        let rect = free(above)
            .or_else(|| free(below))
            .or_else(|| {
                (1..=height / step + 1)
                    .find_map(|k| free(above - k * step).or_else(|| free(above + k * step)))
            })
            .unwrap_or(Rect { x, y: above.clamp(0, (height - h).max(0)), w, h });
        taken.push(rect);
        self.boxed(rect, pad / 2, BLACK, BOX_ALPHA + 20);
        self.boxed(Rect { x: rect.x + pad / 2, y: rect.y + 2, w: bar, h: h - 4 }, bar / 2, color, 255);
        self.text(font, (rect.x + pad / 2 + bar + pad, rect.y + pad / 4), text, count, WHITE);
    }
}

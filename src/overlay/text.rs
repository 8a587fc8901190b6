//! Text from pre-rasterised glyphs, at any size.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width};

use super::raster::{Raster, Rect};

/// A monospaced font at one size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Font {
    line: i32,
    native: RasterHeight,
    weight: FontWeight,
}

/// Sizes the glyphs exist in, in pixels per line.
const NATIVE: [RasterHeight; 4] =
    [RasterHeight::Size16, RasterHeight::Size20, RasterHeight::Size24, RasterHeight::Size32];
/// Lines of text that fill the height of a frame at scale 1.
const LINES_PER_FRAME: f32 = 38.0;
/// Stands at the end of text that did not fit.
const CUT: &str = "...";

impl Font {
    /// Text for a frame of `height` rows: 16 pixels a line at the least, then in proportion to the frame.
    ///
    /// Up to 32 pixels the nearest existing size is taken as it is; above, glyphs are magnified.
    pub fn new(height: usize, scale: f32, weight: FontWeight) -> Self {
        let wanted = scale * (height as f32 / LINES_PER_FRAME).max(16.0);
        let distance = |size: &RasterHeight| (size.val() as f32 - wanted).abs();
        let native =
            NATIVE.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(NATIVE[0]);
        let line = if wanted > 36.0 { wanted.round() as i32 } else { native.val() as i32 };
        Self { line, native, weight }
    }

    /// The same size in another weight.
    pub fn weight(self, weight: FontWeight) -> Self {
        Self { weight, ..self }
    }

    /// Pixels from one line to the next.
    pub fn line(self) -> i32 {
        self.line
    }

    /// Pixels from one character to the next.
    pub fn advance(self) -> i32 {
        let native = get_raster_width(self.weight, self.native) as i32;
        (native * self.line + self.native.val() as i32 / 2) / self.native.val() as i32
    }

    /// Pixels that `chars` characters take.
    pub fn width(self, chars: usize) -> i32 {
        self.advance().saturating_mul(chars.min(4096) as i32)
    }

    /// Characters that fit into `pixels`.
    pub fn fit(self, pixels: i32) -> usize {
        (pixels / self.advance().max(1)).max(0) as usize
    }

    /// Covers the glyphs of `text` with the top-left corner of the first at `(x, y)`.
    pub fn draw(self, raster: &mut Raster, x: i32, y: i32, text: &str, max_chars: usize) {
        for (i, c) in cut(text, max_chars).enumerate() {
            self.glyph(raster, x + self.width(i), y, &glyph(c, self.weight, self.native));
        }
    }

    fn glyph(self, raster: &mut Raster, x: i32, y: i32, glyph: &Option<RasterizedChar>) {
        let Some(glyph) = glyph else { return };
        let (from, to) = (glyph.raster(), self.advance());
        if self.line == self.native.val() as i32 {
            for (dy, line) in from.iter().enumerate() {
                let (cut, row) = raster.span_mut(x, y + dy as i32, line.len());
                for (v, &g) in row.iter_mut().zip(line.iter().skip(cut)) {
                    *v = (*v).max(g);
                }
            }
            return;
        }
        let at = |x: i32, y: i32| -> f32 {
            let row = usize::try_from(y).ok().and_then(|y| from.get(y));
            f32::from(row.and_then(|r| usize::try_from(x).ok().and_then(|x| r.get(x))).copied().unwrap_or(0))
        };
        let step = self.native.val() as f32 / self.line as f32;
        for dy in 0..self.line {
            let sy = (dy as f32 + 0.5) * step - 0.5;
            let (cut, row) = raster.span_mut(x, y + dy, to.max(0) as usize);
            for (i, v) in row.iter_mut().enumerate() {
                let sx = ((i + cut) as f32 + 0.5) * step - 0.5;
                let (ix, iy, fx, fy) =
                    (sx.floor() as i32, sy.floor() as i32, sx - sx.floor(), sy - sy.floor());
                let upper = at(ix, iy) * (1.0 - fx) + at(ix + 1, iy) * fx;
                let lower = at(ix, iy + 1) * (1.0 - fx) + at(ix + 1, iy + 1) * fx;
                // Magnified edges are as wide as the magnification; steepened, they are one pixel wide again.
                let sharp = (upper * (1.0 - fy) + lower * fy - 127.5) / step + 127.5;
                *v = (*v).max(sharp.clamp(0.0, 255.0) as u8);
            }
        }
    }

    /// The box around `chars` characters at `(x, y)`.
    pub fn rect(self, x: i32, y: i32, chars: usize) -> Rect {
        Rect { x, y, w: self.width(chars), h: self.line }
    }
}

/// What is drawn for `c`: itself, a space for a control character, or the replacement sign where the font has none.
fn glyph(c: char, weight: FontWeight, size: RasterHeight) -> Option<RasterizedChar> {
    let c = if c.is_control() || c.is_whitespace() { ' ' } else { c };
    get_raster(c, weight, size)
        .or_else(|| get_raster(char::REPLACEMENT_CHARACTER, weight, size))
        .or_else(|| get_raster('?', weight, size))
}

/// Characters `text` takes when cut to `max_chars`. Looks no further than that into the text.
pub(super) fn chars(text: &str, max_chars: usize) -> usize {
    text.chars().take(max_chars).count()
}

/// `text`, or its beginning and three dots if it has more than `max_chars` characters.
fn cut(text: &str, max_chars: usize) -> impl Iterator<Item = char> {
    let fits = text.chars().nth(max_chars).is_none();
    let (head, tail) = match (fits, max_chars.checked_sub(CUT.len())) {
        (true, _) => (max_chars, ""),
        (false, Some(head)) => (head, CUT),
        (false, None) => (max_chars, ""),
    };
    text.chars().take(head).chain(tail.chars())
}

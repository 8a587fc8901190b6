//! Scan geometry: from tissue to scan lines, and from scan lines to pixels.
//!
//! Lengths are fractions of the imaging depth. `x` runs to the right, `z` down, both from the middle of the probe's
//! face.

use super::config::{Geometry, PhantomConfig};

/// Scan lines of a frame.
pub(super) const LINES: usize = 192;
/// Samples along a scan line.
pub(super) const SAMPLES: usize = 512;

/// The shape of the scanned area.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Half the width of a linear array.
    Linear { half: f32 },
    /// Radius of the face and half the opening angle in radians.
    Sector { radius: f32, half: f32 },
}

/// A pixel's place in the grid of scan lines: the sample up and left of it, and the way on to the next ones.
#[derive(Clone, Copy, Debug)]
struct Tap {
    at: u32,
    line: f32,
    sample: f32,
}

/// Neighbouring scanned pixels of one row.
#[derive(Clone, Copy, Debug)]
struct Span {
    first_pixel: usize,
    taps: (usize, usize),
}

/// The scanned area and its picture.
#[derive(Clone, Debug)]
pub(super) struct View {
    shape: Shape,
    width: usize,
    height: usize,
    /// Depths per pixel.
    scale: f32,
    /// Row of the face's middle.
    top: f32,
    spans: Vec<Span>,
    taps: Vec<Tap>,
    scanned: Vec<bool>,
}

impl View {
    pub(super) fn new(config: &PhantomConfig) -> Self {
        let depth = config.depth_mm;
        let (width, height) = (config.width, config.height);
        let shape = match config.geometry {
            Geometry::Linear => Shape::Linear { half: (config.linear_width_mm / depth / 2.0) as f32 },
            Geometry::Sector => Shape::Sector {
                radius: (config.sector_radius_mm / depth) as f32,
                half: (config.sector_angle_deg.to_radians() / 2.0) as f32,
            },
        };
        let mut view =
            Self { shape, width, height, scale: 1.0, top: 0.0, spans: vec![], taps: vec![], scanned: vec![] };
        // The whole area fits, centred, with square pixels.
        let (half, above) = view.extent();
        let (w, h) = (width as f32, height as f32);
        view.scale = (2.0 * half / w).max((1.0 + above) / h);
        view.top = (h - (1.0 + above) / view.scale) / 2.0 + above / view.scale;
        view.map_pixels();
        view
    }

    fn map_pixels(&mut self) {
        self.scanned = vec![false; self.width * self.height];
        for y in 0..self.height {
            let mut open = false;
            for x in 0..self.width {
                let (px, pz) = self.pixel(x, y);
                let (line, sample) = self.to_beam(px, pz);
                let on = (0.0..=(LINES - 1) as f32).contains(&line)
                    && (0.0..=(SAMPLES - 1) as f32).contains(&sample);
                if on {
                    let (l, s) = ((line as usize).min(LINES - 2), (sample as usize).min(SAMPLES - 2));
                    if !open {
                        let taps = (self.taps.len(), self.taps.len());
                        self.spans.push(Span { first_pixel: y * self.width + x, taps });
                    }
                    let tap =
                        Tap { at: (s * LINES + l) as u32, line: line - l as f32, sample: sample - s as f32 };
                    self.taps.push(tap);
                    if let Some(span) = self.spans.last_mut() {
                        span.taps.1 = self.taps.len();
                    }
                    self.scanned[y * self.width + x] = true;
                }
                open = on;
            }
        }
    }

    /// Largest `|x|` of the scanned area, and how far its corners rise above the middle of the face.
    pub(super) fn extent(&self) -> (f32, f32) {
        match self.shape {
            Shape::Linear { half } => (half, 0.0),
            Shape::Sector { radius, half } => ((radius + 1.0) * half.sin(), radius * (1.0 - half.cos())),
        }
    }

    /// Half the width of the scanned area at depth `z`.
    pub(super) fn half_width_at(&self, z: f32) -> f32 {
        match self.shape {
            Shape::Linear { half } => half,
            Shape::Sector { radius, half } => (radius + z) * half.tan(),
        }
    }

    /// Where the centre of pixel `(x, y)` lies before the probe.
    pub(super) fn pixel(&self, x: usize, y: usize) -> (f32, f32) {
        let px = (x as f32 + 0.5 - self.width as f32 / 2.0) * self.scale;
        (px, (y as f32 + 0.5 - self.top) * self.scale)
    }

    /// Pixel columns and rows that can touch the rectangle `x` by `z` before the probe, as half-open ranges.
    pub(super) fn pixels_of(&self, x: (f32, f32), z: (f32, f32)) -> [std::ops::Range<usize>; 2] {
        // Casts of negative values saturate at 0.
        let range = |(low, high): (f32, f32), zero: f32, limit: usize| {
            let (from, to) = (low / self.scale + zero - 1.0, high / self.scale + zero + 2.0);
            (from as usize).min(limit)..(to as usize).min(limit)
        };
        [range(x, self.width as f32 / 2.0, self.width), range(z, self.top, self.height)]
    }

    /// Whether a scan line passes the pixel.
    pub(super) fn is_scanned(&self, x: usize, y: usize) -> bool {
        self.scanned.get(y * self.width + x).copied().unwrap_or(false)
    }

    /// Fractional scan line and sample of a place before the probe; outside the grid for places out of view.
    #[inline]
    pub(super) fn to_beam(&self, x: f32, z: f32) -> (f32, f32) {
        let (across, along) = match self.shape {
            Shape::Linear { half } => (x / half, z),
            Shape::Sector { radius, half } => {
                let below = z + radius;
                (x.atan2(below) / half, x.hypot(below) - radius)
            }
        };
        ((across + 1.0) * (0.5 * (LINES - 1) as f32), along * (SAMPLES - 1) as f32)
    }

    /// Start and direction of scan line `line`; it is one depth long.
    pub(super) fn ray(&self, line: usize) -> ((f32, f32), (f32, f32)) {
        let across = line as f32 / (0.5 * (LINES - 1) as f32) - 1.0;
        match self.shape {
            Shape::Linear { half } => ((across * half, 0.0), (0.0, 1.0)),
            Shape::Sector { radius, half } => {
                let (sin, cos) = (across * half).sin_cos();
                ((radius * sin, radius * (cos - 1.0)), (sin, cos))
            }
        }
    }

    /// Area that one grid cell covers at sample `row`, in square depths.
    pub(super) fn cell_area(&self, row: f32) -> f32 {
        let step = 1.0 / (SAMPLES - 1) as f32;
        let line = 2.0 / (LINES - 1) as f32;
        let width = match self.shape {
            Shape::Linear { half } => half * line,
            Shape::Sector { radius, half } => half * line * (radius + row * step).max(step),
        };
        width * step
    }

    /// Scan conversion: bilinear between the four samples around each pixel, black outside the scanned area.
    ///
    /// `gray` holds `SAMPLES` rows of `LINES` levels in 0..=255; the result `width * height` bytes.
    pub(super) fn convert(&self, gray: &[f32]) -> Vec<u8> {
        let mut out = vec![0; self.width * self.height];
        for span in &self.spans {
            let (first, last) = span.taps;
            for (px, tap) in out[span.first_pixel..].iter_mut().zip(&self.taps[first..last]) {
                let at = tap.at as usize;
                let (upper, lower) = (&gray[at..at + 2], &gray[at + LINES..at + LINES + 2]);
                let a = upper[0] + (upper[1] - upper[0]) * tap.line;
                let b = lower[0] + (lower[1] - lower[0]) * tap.line;
                *px = (a + (b - a) * tap.sample + 0.5) as u8;
            }
        }
        out
    }
}

//! Any supported picture as packed RGB, for the networks and for stills.

use super::{ImageView, PixelFormat, YuvColor};

/// An owned RGB picture, three bytes a pixel, no row padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height * 3` bytes R, G, B.
    pub data: Vec<u8>,
}

impl From<&ImageView<'_>> for Rgb {
    fn from(view: &ImageView<'_>) -> Self {
        let (width, height) = (view.width(), view.height());
        let mut data = vec![0; width * height * 3];
        let yuv = Yuv::new(view.color());
        for (y, out) in data.chunks_exact_mut(width * 3).enumerate() {
            match view.format() {
                PixelFormat::Gray8 => {
                    for (rgb, &v) in out.chunks_exact_mut(3).zip(view.row(0, y)) {
                        rgb.fill(v);
                    }
                }
                PixelFormat::I420 => {
                    let (u, v) = (view.row(1, y / 2), view.row(2, y / 2));
                    yuv.row(view.row(0, y), |x| (u[x / 2], v[x / 2]), out);
                }
                PixelFormat::Nv12 => {
                    let uv = view.row(1, y / 2);
                    yuv.row(view.row(0, y), |x| (uv[x & !1], uv[x | 1]), out);
                }
                format => {
                    // The formats left are packed; their order is known.
                    let [r, g, b] = format.packed_rgb().unwrap_or([0, 1, 2]);
                    for (rgb, px) in out.chunks_exact_mut(3).zip(view.row(0, y).chunks_exact(4)) {
                        rgb.copy_from_slice(&[px[r], px[g], px[b]]);
                    }
                }
            }
        }
        Self { width, height, data }
    }
}

impl Rgb {
    /// The pixel at `(x, y)`.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let i = (y * self.width + x) * 3;
        [self.data[i], self.data[i + 1], self.data[i + 2]]
    }

    /// The picture as R, G, B and an opaque fourth byte, which is a layout that overlays and GStreamer take as it is.
    pub fn to_rgba(&self) -> Vec<u8> {
        self.data.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect()
    }
}

impl ImageView<'_> {
    /// The green of row `y` as [`Rgb`] has it, into as many bytes as the row has pixels.
    pub fn green_row(&self, y: usize, out: &mut [u8]) {
        let luma = self.row(0, y);
        let yuv = Yuv::new(self.color());
        match self.format() {
            PixelFormat::Gray8 => out.copy_from_slice(&luma[..out.len()]),
            PixelFormat::I420 => {
                let (u, v) = (self.row(1, y / 2), self.row(2, y / 2));
                yuv.green(luma, |x| (u[x / 2], v[x / 2]), out);
            }
            PixelFormat::Nv12 => {
                let uv = self.row(1, y / 2);
                yuv.green(luma, |x| (uv[x & !1], uv[x | 1]), out);
            }
            format => {
                let [_, green, _] = format.packed_rgb().unwrap_or([0, 1, 2]);
                out.iter_mut().zip(luma.as_chunks::<4>().0).for_each(|(out, px)| *out = px[green]);
            }
        }
    }
}

/// YUV to RGB in 16.16 fixed point: what luma less its offset, and chroma less 128, are multiplied by for each channel.
#[derive(Clone, Copy, Debug)]
pub struct Yuv {
    /// Luma of black.
    pub y_off: i32,
    /// Luma, for all channels.
    pub y: i32,
    /// V for red.
    pub rv: i32,
    /// U for green.
    pub gu: i32,
    /// V for green.
    pub gv: i32,
    /// U for blue.
    pub bu: i32,
}

impl Yuv {
    /// The factors of a colorimetry.
    pub fn new(color: YuvColor) -> Self {
        let (kr, kb) = color.matrix.weights();
        let kg = 1.0 - kr - kb;
        let (y_off, ys, cs) =
            if color.full_range { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        let fix = |v: f32| (v * 65536.0).round() as i32;
        Self {
            y_off,
            y: fix(ys),
            rv: fix(2.0 * (1.0 - kr) * cs),
            gu: fix(-2.0 * kb * (1.0 - kb) / kg * cs),
            gv: fix(-2.0 * kr * (1.0 - kr) / kg * cs),
            bu: fix(2.0 * (1.0 - kb) * cs),
        }
    }

    fn green(&self, luma: &[u8], chroma: impl Fn(usize) -> (u8, u8), out: &mut [u8]) {
        for (x, (out, &l)) in out.iter_mut().zip(luma).enumerate() {
            let (u, v) = chroma(x);
            let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
            *out = Self::byte((i32::from(l) - self.y_off) * self.y + self.gu * u + self.gv * v);
        }
    }

    fn byte(v: i32) -> u8 {
        ((v + 0x8000) >> 16).clamp(0, 255) as u8
    }

    fn row(&self, luma: &[u8], chroma: impl Fn(usize) -> (u8, u8), out: &mut [u8]) {
        for (x, (rgb, &l)) in out.chunks_exact_mut(3).zip(luma).enumerate() {
            let (u, v) = chroma(x);
            let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
            let l = (i32::from(l) - self.y_off) * self.y;
            rgb[0] = Self::byte(l + self.rv * v);
            rgb[1] = Self::byte(l + self.gu * u + self.gv * v);
            rgb[2] = Self::byte(l + self.bu * u);
        }
    }
}

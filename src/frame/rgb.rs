//! Any supported picture as packed RGB, for the networks and for stills.

use super::yuv::{Chroma, Yuv};
use super::{ImageView, PixelFormat};

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
                    yuv.row(view.row(0, y), Chroma::Planes(view.row(1, y / 2), view.row(2, y / 2)), out);
                }
                PixelFormat::Nv12 => yuv.row(view.row(0, y), Chroma::Pairs(view.row(1, y / 2)), out),
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
                yuv.green(luma, Chroma::Planes(self.row(1, y / 2), self.row(2, y / 2)), out);
            }
            PixelFormat::Nv12 => yuv.green(luma, Chroma::Pairs(self.row(1, y / 2)), out),
            format => {
                let [_, green, _] = format.packed_rgb().unwrap_or([0, 1, 2]);
                out.iter_mut().zip(luma.as_chunks::<4>().0).for_each(|(out, px)| *out = px[green]);
            }
        }
    }
}

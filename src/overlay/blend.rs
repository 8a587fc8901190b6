//! Blending of layers into a frame, in the frame's own components.

use super::raster::{Layer, Layers, Runs};
use crate::frame::{ImageViewMut, PixelFormat, PlaneMut, YuvColor, YuvMatrix};

/// What a layer is made for: it fits frames of exactly this geometry and colorimetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub width: usize,
    pub height: usize,
    pub format: PixelFormat,
    pub color: YuvColor,
}

impl Target {
    pub fn of(image: &ImageViewMut<'_>) -> Self {
        Self { width: image.width(), height: image.height(), format: image.format(), color: image.color() }
    }

    pub fn subsampled(&self) -> bool {
        matches!(self.format, PixelFormat::I420 | PixelFormat::Nv12)
    }

    /// `[r, g, b]` in the frame's components: bytes 0..3 of a packed pixel, Y U V, or luma thrice.
    pub fn ink(&self, rgb: [u8; 3]) -> [u8; 3] {
        if let Some(order) = self.format.packed_rgb() {
            let mut out = [0; 3];
            for (place, value) in order.into_iter().zip(rgb) {
                out[place] = value;
            }
            return out;
        }
        let gray = self.format == PixelFormat::Gray8;
        let color = if gray { YuvColor { matrix: YuvMatrix::Bt601, full_range: true } } else { self.color };
        let (kr, kb) = color.matrix.weights();
        let [r, g, b] = rgb.map(f32::from);
        let y = kr * r + (1.0 - kr - kb) * g + kb * b;
        let (u, v) = ((b - y) / (2.0 * (1.0 - kb)), (r - y) / (2.0 * (1.0 - kr)));
        let (offset, luma, chroma) =
            if color.full_range { (0.0, 1.0, 1.0) } else { (16.0, 219.0 / 255.0, 224.0 / 255.0) };
        // Float to integer casts saturate, which is the clamp wanted here.
        let luma = (offset + y * luma).round() as u8;
        if gray {
            [luma; 3]
        } else {
            [luma, (128.0 + u * chroma).round() as u8, (128.0 + v * chroma).round() as u8]
        }
    }
}

/// Blends `layers` into `image`, bottom first. They must have been made for `Target::of(image)`; runs beyond the frame are skipped.
pub(super) fn paint(image: &mut ImageViewMut<'_>, layers: &Layers) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(image: &mut ImageViewMut<'_>, layers: &Layers) {
            paint_all(image, layers);
        }
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { wide(image, layers) };
    }
    paint_all(image, layers);
}

/// Inlined with what it calls, so that each caller has it compiled for its own kind of processor.
#[inline(always)]
fn paint_all(image: &mut ImageViewMut<'_>, layers: &Layers) {
    let format = image.format();
    for layer in layers.iter() {
        let Layer { ink, luma, chroma } = layer;
        let [c0, c1, c2] = *ink;
        match (format, image.planes_mut()) {
            (PixelFormat::Gray8, [y, ..]) => each_run::<1>(y, luma, |px, a| bytes(px, a, c0)),
            (PixelFormat::I420, [y, u, v]) => {
                each_run::<1>(y, luma, |px, a| bytes(px, a, c0));
                each_run::<1>(u, chroma, |px, a| bytes(px, a, c1));
                each_run::<1>(v, chroma, |px, a| bytes(px, a, c2));
            }
            (PixelFormat::Nv12, [y, uv]) => {
                each_run::<1>(y, luma, |px, a| bytes(px, a, c0));
                each_run::<2>(uv, chroma, |px, a| pairs(px, a, [c1, c2]));
            }
            (_, [packed, ..]) => each_run::<4>(packed, luma, |px, a| quads(px, a, *ink)),
            // `ImageViewMut::new` gives every format its planes.
            _ => {}
        }
    }
}

/// Calls `work` with the bytes under each run (`STEP` per alpha) and the run's alphas.
#[inline(always)]
fn each_run<const STEP: usize>(plane: &mut PlaneMut<'_>, runs: &Runs, work: impl Fn(&mut [u8], &[u8])) {
    for (run, alpha) in runs.iter() {
        let start = run.y * plane.stride + run.x * STEP;
        if let Some(px) = plane.data.get_mut(start..start + alpha.len() * STEP) {
            work(px, alpha);
        }
    }
}

/// `from` towards `to` by `alpha / 255`, rounded to nearest; exact at 0 and at 255.
#[inline(always)]
pub(super) fn mix(from: u8, to: u8, alpha: u8) -> u8 {
    let a = u16::from(alpha);
    let t = u16::from(from) * (255 - a) + u16::from(to) * a + 128;
    ((t + (t >> 8)) >> 8) as u8
}

#[inline(always)]
fn bytes(px: &mut [u8], alpha: &[u8], ink: u8) {
    for (p, &a) in px.iter_mut().zip(alpha) {
        *p = mix(*p, ink, a);
    }
}

#[inline(always)]
fn pairs(px: &mut [u8], alpha: &[u8], ink: [u8; 2]) {
    for (p, &a) in px.as_chunks_mut::<2>().0.iter_mut().zip(alpha) {
        *p = [mix(p[0], ink[0], a), mix(p[1], ink[1], a)];
    }
}

/// Bytes 0..3 of each pixel; the fourth stays as it is, because its alpha is zero.
#[inline(always)]
fn quads(px: &mut [u8], alpha: &[u8], ink: [u8; 3]) {
    const N: usize = 8;
    let spread = |a: u8| (u32::from(a) * 0x0001_0101).to_le_bytes();
    let ink: [u8; 4 * N] = std::array::from_fn(|i| ink.get(i % 4).copied().unwrap_or(0));
    // Whole blocks of fixed size, alphas spread first, are what the compiler turns into vector code.
    let (blocks, rest) = alpha.as_chunks::<N>();
    let (px_blocks, px_rest) = px.split_at_mut(4 * N * blocks.len());
    for (p, a) in px_blocks.as_chunks_mut::<{ 4 * N }>().0.iter_mut().zip(blocks) {
        let mut spread_out = [0; 4 * N];
        for (out, &a) in spread_out.as_chunks_mut::<4>().0.iter_mut().zip(a) {
            *out = spread(a);
        }
        for ((p, &ink), &a) in p.iter_mut().zip(&ink).zip(&spread_out) {
            *p = mix(*p, ink, a);
        }
    }
    for (p, &a) in px_rest.as_chunks_mut::<4>().0.iter_mut().zip(rest) {
        for ((p, &ink), a) in p.iter_mut().zip(&ink).zip(spread(a)) {
            *p = mix(*p, ink, a);
        }
    }
}

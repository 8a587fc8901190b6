//! YUV to RGB.

use super::YuvColor;

/// Pixels that are converted together.
#[cfg(target_arch = "x86_64")]
const LANES: usize = 16;

/// The chroma of a row, a sample for every two pixels.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chroma<'a> {
    /// U and V.
    Planes(&'a [u8], &'a [u8]),
    /// U V U V ...
    Pairs(&'a [u8]),
}

impl Chroma<'_> {
    /// U and V of pixel `x`.
    fn at(self, x: usize) -> (u8, u8) {
        match self {
            Self::Planes(u, v) => (u[x / 2], v[x / 2]),
            Self::Pairs(uv) => (uv[x & !1], uv[x | 1]),
        }
    }

    /// That of the pixels from `x` on, which is even.
    #[cfg(target_arch = "x86_64")]
    fn from(self, x: usize) -> Self {
        match self {
            Self::Planes(u, v) => Self::Planes(&u[x / 2..], &v[x / 2..]),
            Self::Pairs(uv) => Self::Pairs(&uv[x..]),
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

    /// A row's green, one byte a pixel.
    pub(super) fn green(&self, luma: &[u8], chroma: Chroma<'_>, out: &mut [u8]) {
        for (x, (out, &l)) in out.iter_mut().zip(luma).enumerate() {
            let (u, v) = chroma.at(x);
            let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
            *out = Self::byte((i32::from(l) - self.y_off) * self.y + self.gu * u + self.gv * v);
        }
    }

    /// A row as R, G, B, three bytes a pixel; as many pixels as there are of `luma` and `out` has room for.
    pub(super) fn row(&self, luma: &[u8], chroma: Chroma<'_>, out: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { self.row_wide(luma, chroma, out) };
        }
        self.row_narrow(luma, chroma, out);
    }

    fn row_narrow(&self, luma: &[u8], chroma: Chroma<'_>, out: &mut [u8]) {
        for (x, (rgb, &l)) in out.as_chunks_mut::<3>().0.iter_mut().zip(luma).enumerate() {
            let (u, v) = chroma.at(x);
            let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
            let l = (i32::from(l) - self.y_off) * self.y;
            *rgb = [
                Self::byte(l + self.rv * v),
                Self::byte(l + self.gu * u + self.gv * v),
                Self::byte(l + self.bu * u),
            ];
        }
    }

    fn byte(v: i32) -> u8 {
        ((v + 0x8000) >> 16).clamp(0, 255) as u8
    }

    /// The same, [`LANES`] pixels at a time.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn row_wide(&self, luma: &[u8], chroma: Chroma<'_>, out: &mut [u8]) {
        use std::arch::x86_64::*;
        let (blocks, _) = luma.as_chunks::<LANES>();
        let (outs, _) = out.as_chunks_mut::<{ 3 * LANES }>();
        let done = blocks.len().min(outs.len()) * LANES;
        let blocks = outs.iter_mut().zip(blocks);
        match chroma {
            Chroma::Planes(u, v) => {
                let half = |samples: &[u8; LANES / 2]| _mm_cvtsi64_si128(i64::from_le_bytes(*samples));
                let chroma = u.as_chunks().0.iter().zip(v.as_chunks().0);
                for ((out, luma), (u, v)) in blocks.zip(chroma) {
                    self.block(luma, _mm_unpacklo_epi8(half(u), half(v)), out);
                }
            }
            Chroma::Pairs(uv) => {
                for ((out, luma), uv) in blocks.zip(uv.as_chunks().0) {
                    self.block(luma, load(uv), out);
                }
            }
        }
        self.row_narrow(&luma[done..], chroma.from(done), &mut out[3 * done..]);
    }

    /// `pairs`: U V U V ...
    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    fn block(&self, luma: &[u8; LANES], pairs: std::arch::x86_64::__m128i, out: &mut [u8; 3 * LANES]) {
        use std::arch::x86_64::*;
        let times = |v, factor| _mm256_mullo_epi32(v, _mm256_set1_epi32(factor));
        let (offset, half) = (_mm256_set1_epi32(self.y_off), _mm256_set1_epi32(0x8000));
        let light = |luma| {
            let v = _mm256_sub_epi32(_mm256_cvtepu8_epi32(luma), offset);
            _mm256_add_epi32(times(v, self.y), half)
        };
        let luma = load(luma);
        let light = [light(luma), light(_mm_unpackhi_epi64(luma, luma))];

        let sample = |words| _mm256_sub_epi32(_mm256_cvtepu16_epi32(words), _mm256_set1_epi32(128));
        let u = sample(_mm_and_si128(pairs, _mm_set1_epi16(0xff)));
        let v = sample(_mm_srli_epi16::<8>(pairs));
        // Every sample is of two pixels.
        let (first, second) =
            (_mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3), _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7));
        let channel = |tint| {
            let at = |light, places| {
                _mm256_srai_epi32::<16>(_mm256_add_epi32(light, _mm256_permutevar8x32_epi32(tint, places)))
            };
            // Packing goes by halves of a register, the permutation puts them in order; both saturate.
            let words = _mm256_packs_epi32(at(light[0], first), at(light[1], second));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
        };
        let red = channel(times(v, self.rv));
        let green = channel(_mm256_add_epi32(times(u, self.gu), times(v, self.gv)));
        let blue = channel(times(u, self.bu));
        for (out, [r, g, b]) in out.as_chunks_mut::<16>().0.iter_mut().zip(&INTERLEAVED) {
            let (r, g, b) = (
                _mm_shuffle_epi8(red, load(r)),
                _mm_shuffle_epi8(green, load(g)),
                _mm_shuffle_epi8(blue, load(b)),
            );
            let bytes = _mm_or_si128(_mm_or_si128(r, g), b);
            let (low, high) = out.split_at_mut(8);
            low.copy_from_slice(&_mm_cvtsi128_si64(bytes).to_le_bytes());
            high.copy_from_slice(&_mm_extract_epi64::<1>(bytes).to_le_bytes());
        }
    }
}

/// Which pixel's red, green and blue go to each byte of three times sixteen; what has the highest bit set takes none.
#[cfg(target_arch = "x86_64")]
const INTERLEAVED: [[[u8; 16]; 3]; 3] = {
    let mut places = [[[0x80; 16]; 3]; 3];
    let mut byte = 0;
    while byte < 3 * LANES {
        places[byte / 16][byte % 3][byte % 16] = (byte / 3) as u8;
        byte += 1;
    }
    places
};

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> std::arch::x86_64::__m128i {
    let v = u128::from_le_bytes(*bytes);
    std::arch::x86_64::_mm_set_epi64x((v >> 64) as i64, v as i64)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::frame::YuvMatrix;

    #[test]
    fn sixteen_pixels_at_a_time_are_the_same_to_the_byte() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        let mut state = 1_u32;
        let mut noise = |n: usize| -> Vec<u8> {
            let next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            std::iter::repeat_with(next).take(n).collect()
        };
        let colors = [YuvMatrix::Bt601, YuvMatrix::Bt709, YuvMatrix::Bt2020]
            .into_iter()
            .flat_map(|matrix| [true, false].map(|full_range| YuvColor { matrix, full_range }));
        for color in colors {
            let yuv = Yuv::new(color);
            for width in (0..70_usize).chain([1920, 1921, 20_000]) {
                let half = width.div_ceil(2);
                let (luma, u, v, uv) = (noise(width), noise(half), noise(half), noise(2 * half));
                for chroma in [Chroma::Planes(&u, &v), Chroma::Pairs(&uv)] {
                    let (mut one, mut many) = (vec![1; 3 * width], vec![2; 3 * width]);
                    yuv.row_narrow(&luma, chroma, &mut one);
                    // SAFETY: the processor has AVX2, as was asked above.
                    unsafe { yuv.row_wide(&luma, chroma, &mut many) };
                    assert!(one == many, "{color:?}, {width} pixels, {chroma:?}");
                    // Where one of the two is longer, what is over stays as it is.
                    let short = width / 2;
                    let (mut one, mut many) = (vec![1; 3 * width], vec![1; 3 * width]);
                    yuv.row_narrow(&luma[..short], chroma, &mut one);
                    // SAFETY: as before.
                    unsafe { yuv.row_wide(&luma[..short], chroma, &mut many) };
                    yuv.row_narrow(&luma, chroma, &mut one[..3 * (short / 2)]);
                    // SAFETY: as before.
                    unsafe { yuv.row_wide(&luma, chroma, &mut many[..3 * (short / 2)]) };
                    assert!(one == many, "{color:?}, half of {width} pixels, {chroma:?}");
                }
            }
        }
    }
}

//! A borrowed picture: planes, strides, pixel format, YUV colorimetry.

use serde::{Deserialize, Serialize};

/// Pixel layouts the product reads and draws on without a detour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    /// Planar YUV 4:2:0: three planes Y, U, V.
    I420,
    /// Semi-planar YUV 4:2:0: a Y plane, then interleaved UV.
    Nv12,
    /// Four bytes R, G, B, alpha.
    Rgba,
    /// Four bytes B, G, R, alpha.
    Bgra,
    /// Four bytes R, G, B, unused.
    Rgbx,
    /// Four bytes B, G, R, unused.
    Bgrx,
    /// One byte of luma, full range.
    Gray8,
}

impl PixelFormat {
    /// Every format, for tests and for building caps.
    pub const ALL: [Self; 7] =
        [Self::I420, Self::Nv12, Self::Rgba, Self::Bgra, Self::Rgbx, Self::Bgrx, Self::Gray8];

    /// Name in configurations and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::I420 => "i420",
            Self::Nv12 => "nv12",
            Self::Rgba => "rgba",
            Self::Bgra => "bgra",
            Self::Rgbx => "rgbx",
            Self::Bgrx => "bgrx",
            Self::Gray8 => "gray8",
        }
    }

    /// `(bytes per row, rows)` of each plane for a `width` x `height` picture, without padding.
    pub fn planes(self, width: usize, height: usize) -> Vec<(usize, usize)> {
        let (cw, ch) = (width.div_ceil(2), height.div_ceil(2));
        match self {
            Self::I420 => vec![(width, height), (cw, ch), (cw, ch)],
            Self::Nv12 => vec![(width, height), (2 * cw, ch)],
            Self::Rgba | Self::Bgra | Self::Rgbx | Self::Bgrx => vec![(4 * width, height)],
            Self::Gray8 => vec![(width, height)],
        }
    }

    /// Byte positions of R, G, B inside a packed pixel; `None` for YUV and gray.
    pub fn packed_rgb(self) -> Option<[usize; 3]> {
        match self {
            Self::Rgba | Self::Rgbx => Some([0, 1, 2]),
            Self::Bgra | Self::Bgrx => Some([2, 1, 0]),
            Self::I420 | Self::Nv12 | Self::Gray8 => None,
        }
    }
}

/// Coefficients between YUV and RGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum YuvMatrix {
    /// Standard definition.
    Bt601,
    /// High definition.
    Bt709,
    /// Ultra-high definition.
    Bt2020,
}

impl YuvMatrix {
    /// `(Kr, Kb)`, the luma weights of red and blue.
    pub fn weights(self) -> (f32, f32) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// Colorimetry of a YUV picture. Ignored for RGB and gray formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct YuvColor {
    /// Coefficients.
    pub matrix: YuvMatrix,
    /// `true` for 0..=255 luma, `false` for 16..=235.
    pub full_range: bool,
}

impl Default for YuvColor {
    fn default() -> Self {
        Self { matrix: YuvMatrix::Bt601, full_range: false }
    }
}

/// One plane of a read-only picture.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// Bytes from the first pixel of the plane on.
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// One plane of a writable picture.
#[derive(Debug)]
pub struct PlaneMut<'a> {
    /// Bytes from the first pixel of the plane on.
    pub data: &'a mut [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// Why planes do not make a picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The picture has no pixels, or more than fits an index.
    #[error("a picture of {width}x{height} pixels has no use here")]
    Size {
        /// Given width.
        width: usize,
        /// Given height.
        height: usize,
    },
    /// The number of planes does not fit the format.
    #[error("{format:?} has {expected} planes, {found} were given")]
    PlaneCount {
        /// Given format.
        format: PixelFormat,
        /// Planes the format has.
        expected: usize,
        /// Planes given.
        found: usize,
    },
    /// A plane is smaller than its rows.
    #[error("plane {plane} needs {needed} bytes at stride {stride}, it has {found}")]
    PlaneTooSmall {
        /// Index of the plane.
        plane: usize,
        /// Given stride.
        stride: usize,
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        found: usize,
    },
}

/// Largest side accepted: far above any scanner, low enough that areas never overflow.
const MAX_SIDE: usize = 32_768;

fn check(
    format: PixelFormat,
    width: usize,
    height: usize,
    planes: &[(usize, usize)],
) -> Result<(), ImageError> {
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(ImageError::Size { width, height });
    }
    let expected = format.planes(width, height);
    if planes.len() != expected.len() {
        return Err(ImageError::PlaneCount { format, expected: expected.len(), found: planes.len() });
    }
    for (plane, (&(len, stride), &(row, rows))) in planes.iter().zip(&expected).enumerate() {
        let needed = stride.saturating_mul(rows - 1).saturating_add(row);
        if stride < row || len < needed {
            return Err(ImageError::PlaneTooSmall { plane, stride, needed, found: len });
        }
    }
    Ok(())
}

/// A read-only picture. Every row of every plane is known to be in bounds.
#[derive(Clone, Debug)]
pub struct ImageView<'a> {
    format: PixelFormat,
    width: usize,
    height: usize,
    color: YuvColor,
    planes: Vec<Plane<'a>>,
}

impl<'a> ImageView<'a> {
    /// Checks `planes` against the format and size.
    ///
    /// # Errors
    /// A size of zero, a wrong number of planes, or a plane shorter than its rows.
    pub fn new(
        format: PixelFormat,
        width: usize,
        height: usize,
        color: YuvColor,
        planes: Vec<Plane<'a>>,
    ) -> Result<Self, ImageError> {
        let sizes: Vec<_> = planes.iter().map(|p| (p.data.len(), p.stride)).collect();
        check(format, width, height, &sizes)?;
        Ok(Self { format, width, height, color, planes })
    }

    /// Layout.
    pub fn format(&self) -> PixelFormat {
        self.format
    }
    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }
    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }
    /// YUV colorimetry.
    pub fn color(&self) -> YuvColor {
        self.color
    }
    /// Row `y` of plane `plane`, without stride padding.
    pub fn row(&self, plane: usize, y: usize) -> &'a [u8] {
        let p = &self.planes[plane];
        let (len, _) = self.format.planes(self.width, self.height)[plane];
        &p.data[y * p.stride..][..len]
    }
    /// Plane `plane` with its stride.
    pub fn plane(&self, plane: usize) -> Plane<'a> {
        self.planes[plane]
    }
}

/// A writable picture. Every row of every plane is known to be in bounds.
#[derive(Debug)]
pub struct ImageViewMut<'a> {
    format: PixelFormat,
    width: usize,
    height: usize,
    color: YuvColor,
    planes: Vec<PlaneMut<'a>>,
}

impl<'a> ImageViewMut<'a> {
    /// Checks `planes` against the format and size.
    ///
    /// # Errors
    /// A size of zero, a wrong number of planes, or a plane shorter than its rows.
    pub fn new(
        format: PixelFormat,
        width: usize,
        height: usize,
        color: YuvColor,
        planes: Vec<PlaneMut<'a>>,
    ) -> Result<Self, ImageError> {
        let sizes: Vec<_> = planes.iter().map(|p| (p.data.len(), p.stride)).collect();
        check(format, width, height, &sizes)?;
        Ok(Self { format, width, height, color, planes })
    }

    /// Layout.
    pub fn format(&self) -> PixelFormat {
        self.format
    }
    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }
    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }
    /// YUV colorimetry.
    pub fn color(&self) -> YuvColor {
        self.color
    }
    /// Plane `plane` with its stride.
    pub fn plane_mut(&mut self, plane: usize) -> PlaneMut<'_> {
        let p = &mut self.planes[plane];
        PlaneMut { data: p.data, stride: p.stride }
    }
    /// All planes at once, for code that writes luma and chroma together.
    pub fn planes_mut(&mut self) -> &mut [PlaneMut<'a>] {
        &mut self.planes
    }
    /// The same picture, read-only.
    pub fn as_view(&self) -> ImageView<'_> {
        ImageView {
            format: self.format,
            width: self.width,
            height: self.height,
            color: self.color,
            planes: self.planes.iter().map(|p| Plane { data: p.data, stride: p.stride }).collect(),
        }
    }
}

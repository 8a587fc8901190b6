//! Between GStreamer's caps and the product's picture formats.

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use crate::frame::{ImageError, ImageView, ImageViewMut, PixelFormat, Plane, PlaneMut, YuvColor, YuvMatrix};

/// One run of frames of one size, format and rate.
#[derive(Clone, Debug)]
pub struct StreamFormat {
    /// The caps as the source gave them.
    pub caps: gst::Caps,
    /// The same, parsed.
    pub info: gst_video::VideoInfo,
    /// The same in the product's terms.
    pub pixel: PixelFormat,
    /// Colorimetry, for YUV formats.
    pub color: YuvColor,
}

/// Why caps or a buffer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Not raw video in system memory, or a pixel format that was never offered.
    #[error("the source sends {0}, which is not raw video in a supported pixel format")]
    Unsupported(String),
    /// The buffer cannot be mapped.
    #[error("a frame cannot be mapped into memory")]
    Map,
    /// The mapped planes do not make a picture.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// GStreamer's name for `format`.
pub fn video_format(format: PixelFormat) -> gst_video::VideoFormat {
    use gst_video::VideoFormat as V;
    match format {
        PixelFormat::I420 => V::I420,
        PixelFormat::Nv12 => V::Nv12,
        PixelFormat::Rgba => V::Rgba,
        PixelFormat::Bgra => V::Bgra,
        PixelFormat::Rgbx => V::Rgbx,
        PixelFormat::Bgrx => V::Bgrx,
        PixelFormat::Gray8 => V::Gray8,
    }
}

/// Caps of everything the compositor draws on. Without `gray`, gray sources are converted upstream,
/// because class colours cannot be shown in a gray picture.
pub fn accepted_caps(gray: bool) -> gst::Caps {
    let formats = PixelFormat::ALL
        .into_iter()
        .filter(|f| gray || *f != PixelFormat::Gray8)
        .map(|f| video_format(f).to_str().to_string());
    gst::Caps::builder("video/x-raw").field("format", gst::List::new(formats)).build()
}

impl StreamFormat {
    /// Parses `caps`.
    ///
    /// # Errors
    /// If they are not raw video in one of the product's formats.
    pub fn from_caps(caps: &gst::CapsRef) -> Result<Self, FormatError> {
        let unsupported = || FormatError::Unsupported(caps.to_string());
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| unsupported())?;
        let pixel = PixelFormat::ALL
            .into_iter()
            .find(|f| video_format(*f) == info.format())
            .ok_or_else(unsupported)?;
        let colorimetry = info.colorimetry();
        let matrix = match colorimetry.matrix() {
            gst_video::VideoColorMatrix::Bt709 => YuvMatrix::Bt709,
            gst_video::VideoColorMatrix::Bt2020 => YuvMatrix::Bt2020,
            _ => YuvMatrix::Bt601,
        };
        let full_range = colorimetry.range() == gst_video::VideoColorRange::Range0_255;
        Ok(Self { caps: caps.to_owned(), info, pixel, color: YuvColor { matrix, full_range } })
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.info.width() as usize
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.info.height() as usize
    }

    /// Lets `look` see the pixels of `buffer`, without a copy.
    ///
    /// # Errors
    /// If the buffer cannot be mapped or is smaller than its caps say.
    pub fn with_view<T>(
        &self,
        buffer: &gst::BufferRef,
        look: impl FnOnce(&ImageView<'_>) -> T,
    ) -> Result<T, FormatError> {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.info)
            .map_err(|_| FormatError::Map)?;
        let mut planes = Vec::with_capacity(frame.n_planes() as usize);
        for (i, &stride) in frame.plane_stride().iter().enumerate().take(frame.n_planes() as usize) {
            let data = frame.plane_data(i as u32).map_err(|_| FormatError::Map)?;
            planes.push(Plane { data, stride: usize::try_from(stride).map_err(|_| FormatError::Map)? });
        }
        let view = ImageView::new(self.pixel, self.width(), self.height(), self.color, planes)?;
        Ok(look(&view))
    }

    /// Lets `draw` change the pixels of `buffer`. GStreamer copies them first where others still hold them.
    ///
    /// # Errors
    /// If the buffer cannot be mapped or is smaller than its caps say.
    pub fn with_view_mut<T>(
        &self,
        buffer: &mut gst::BufferRef,
        draw: impl FnOnce(&mut ImageViewMut<'_>) -> T,
    ) -> Result<T, FormatError> {
        let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &self.info)
            .map_err(|_| FormatError::Map)?;
        let n = frame.n_planes() as usize;
        let strides: Vec<i32> = frame.plane_stride()[..n].to_vec();
        let mut planes = Vec::with_capacity(n);
        for (data, stride) in frame.planes_data_mut().into_iter().zip(strides) {
            planes.push(PlaneMut { data, stride: usize::try_from(stride).map_err(|_| FormatError::Map)? });
        }
        let mut view = ImageViewMut::new(self.pixel, self.width(), self.height(), self.color, planes)?;
        Ok(draw(&mut view))
    }
}

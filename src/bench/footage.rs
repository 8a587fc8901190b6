//! The pictures of a case, made or decoded before anything is measured and kept in memory.

use std::path::{Path, PathBuf};

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::recorded::{Picture, decode, packed, read};
use super::spec::SourceChoice;
use crate::cine::{self, CineError};
use crate::frame::{ImageError, ImageView, PixelFormat};
use crate::media::template::TemplateError;
use crate::media::{FormatError, MediaError, StreamFormat, video_format};
use crate::phantom::{Phantom, PhantomConfig, PhantomError};

/// Most bytes of pictures.
const MAX_BYTES: usize = 2 << 30;

/// Pictures of one size and format, shown there and back without end, so that no seam is a cut for a memory.
#[derive(Clone, Debug)]
pub struct Footage {
    /// Size, pixel format and colorimetry of each picture.
    pub format: StreamFormat,
    /// What it is, in a few words.
    pub name: String,
    pictures: Vec<gst::Buffer>,
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum FootageError {
    /// The phantom refuses the size.
    #[error(transparent)]
    Phantom(#[from] PhantomError),
    /// A cine-loop that cannot be read.
    #[error(transparent)]
    Cine(#[from] CineError),
    /// GStreamer.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The template of recordings.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A picture that is none.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A picture that does not fit its format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A source without a single picture.
    #[error("there is no picture")]
    Empty,
    /// A pixel format into which pictures of this size cannot be made.
    #[error("pictures of {width}x{height} pixels cannot be made {format}")]
    Convert {
        /// Asked for.
        format: &'static str,
        /// Asked for.
        width: usize,
        /// Asked for.
        height: usize,
    },
    /// A recording that GStreamer cannot decode.
    #[error("{reason}: {}", path.display())]
    Decode {
        /// Why.
        reason: String,
        /// Which file.
        path: PathBuf,
    },
    /// More than anybody's memory.
    #[error("{pictures} pictures of {width}x{height} pixels are more than {} MB", MAX_BYTES >> 20)]
    Large {
        /// Asked for.
        pictures: usize,
        /// Asked for.
        width: usize,
        /// Asked for.
        height: usize,
    },
}

impl Footage {
    /// Up to `count` pictures of `source`, in `size` if one is given, and in `format`: without one gray pictures are
    /// [`PixelFormat::Gray8`] and others [`PixelFormat::Rgbx`]. GStreamer has to be initialised.
    ///
    /// # Errors
    /// A source that cannot be had, or more than fits into memory.
    pub fn load(
        source: &SourceChoice,
        count: usize,
        size: Option<(usize, usize)>,
        format: Option<PixelFormat>,
    ) -> Result<Self, FootageError> {
        let count = count.max(1);
        let footage = match source {
            SourceChoice::Phantom(seed) => {
                let d = PhantomConfig::default();
                let (width, height) = size.unwrap_or((d.width, d.height));
                // A phantom is a rectangle of its picture's shape.
                let linear_width_mm =
                    (d.depth_mm * width as f64 / height as f64).clamp(0.6 * d.depth_mm, 3.0 * d.depth_mm);
                let config = PhantomConfig { seed: *seed, width, height, linear_width_mm, ..d };
                config.validate()?;
                fits(count, width, height, 1)?;
                let mut phantom = Phantom::new(config)?;
                let name = format!("phantom, seed {seed}, {count} pictures of {width}x{height}");
                let pictures = (0..count as u64).map(|i| phantom.image(i));
                Self::packed(PixelFormat::Gray8, (width, height), name, pictures)?
            }
            SourceChoice::File(path) => {
                let pictures =
                    if cine::recognise(path).is_some() { read(path, count)? } else { decode(path, count)? };
                Self::of_pictures(path, pictures, size)?
            }
        };
        match format {
            Some(format) if format != footage.format.pixel => footage.converted(format),
            _ => Ok(footage),
        }
    }

    /// Of pictures whose rows follow each other without a gap.
    fn packed(
        pixel: PixelFormat,
        (width, height): (usize, usize),
        name: String,
        pictures: impl Iterator<Item = Vec<u8>>,
    ) -> Result<Self, FootageError> {
        let format = format_of(pixel, width, height)?;
        let row = width * if pixel == PixelFormat::Gray8 { 1 } else { 4 };
        let padded = |data: Vec<u8>| {
            let mut buffer = gst::Buffer::with_size(format.info.size()).map_err(|_| FormatError::Map)?;
            let whole = format.with_view_mut(buffer.make_mut(), |view| match view.planes_mut() {
                [plane] if data.len() == row * height => {
                    for (to, from) in plane.data.chunks_mut(plane.stride).zip(data.chunks_exact(row)) {
                        to[..row].copy_from_slice(from);
                    }
                    true
                }
                _ => false,
            })?;
            if whole { Ok(buffer) } else { Err(FormatError::Map) }
        };
        let pictures: Vec<_> = pictures.map(padded).collect::<Result<_, FormatError>>()?;
        if pictures.is_empty() {
            return Err(FootageError::Empty);
        }
        Ok(Self { format, name, pictures })
    }

    /// The same pictures, as GStreamer makes them.
    fn converted(self, pixel: PixelFormat) -> Result<Self, FootageError> {
        let (width, height) = (self.width(), self.height());
        let format = format_of(pixel, width, height)?;
        if format.info.size().saturating_mul(self.pictures.len()) > MAX_BYTES {
            return Err(FootageError::Large { pictures: self.pictures.len(), width, height });
        }
        let refused = || FootageError::Convert { format: pixel.name(), width, height };
        // By way of RGB: GStreamer 1.22 takes gray of full range for luma of limited range.
        let between = format_of(PixelFormat::Rgbx, width, height)?;
        let step = |from: &StreamFormat, to: &StreamFormat| {
            gst_video::VideoConverter::new(&from.info, &to.info, None).map_err(|_| refused())
        };
        let (first, second) = (step(&self.format, &between)?, step(&between, &format)?);
        // One after the other is let go as it is converted.
        let made = self.pictures.into_iter().map(|picture| {
            let rgb = through(&first, &picture, &self.format, &between)?;
            through(&second, &rgb, &between, &format)
        });
        let pictures = made.collect::<Result<_, FormatError>>()?;
        Ok(Self { format, name: format!("{}, {}", self.name, pixel.name()), pictures })
    }

    fn of_pictures(
        path: &Path,
        pictures: Vec<Picture>,
        size: Option<(usize, usize)>,
    ) -> Result<Self, FootageError> {
        let decode = |reason: &str| FootageError::Decode { reason: reason.to_owned(), path: path.to_owned() };
        let first = pictures.first().ok_or_else(|| decode("there is no picture in it"))?;
        let format = if pictures.iter().all(|p| p.gray) { PixelFormat::Gray8 } else { PixelFormat::Rgbx };
        let (width, height) = size.unwrap_or((first.rgb.width, first.rgb.height));
        fits(pictures.len(), width, height, if format == PixelFormat::Gray8 { 1 } else { 4 })?;
        let name = format!("{} pictures of {width}x{height} from a recording", pictures.len());
        let pictures: Option<Vec<_>> =
            pictures.into_iter().map(|p| p.sized(width, height).map(|rgb| packed(&rgb, format))).collect();
        let pictures = pictures.ok_or_else(|| decode("a picture of it cannot be scaled"))?;
        Self::packed(format, (width, height), name, pictures.into_iter())
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.format.width()
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.format.height()
    }

    /// Bytes that the pictures take.
    pub fn bytes(&self) -> u64 {
        self.pictures.iter().map(|p| p.size() as u64).sum()
    }

    /// The picture that is shown as frame `index`.
    pub fn picture(&self, index: u64) -> &gst::BufferRef {
        // There is one at least.
        let last = self.pictures.len() as u64 - 1;
        let at = if last == 0 {
            0
        } else {
            let place = index % (2 * last);
            if place <= last { place } else { 2 * last - place }
        };
        &self.pictures[at as usize]
    }

    /// Lets `look`, a model, see the picture that is shown as frame `index`.
    ///
    /// # Errors
    /// None for pictures that were loaded whole.
    pub fn view<T>(&self, index: u64, look: impl FnOnce(&ImageView<'_>) -> T) -> Result<T, FormatError> {
        self.format.with_view(self.picture(index), look)
    }
}

/// The picture as `converter` makes it.
fn through(
    converter: &gst_video::VideoConverter,
    picture: &gst::BufferRef,
    from: &StreamFormat,
    to: &StreamFormat,
) -> Result<gst::Buffer, FormatError> {
    use gst_video::VideoFrameRef;
    let mut made = gst::Buffer::with_size(to.info.size()).map_err(|_| FormatError::Map)?;
    let picture =
        VideoFrameRef::from_buffer_ref_readable(picture, &from.info).map_err(|_| FormatError::Map)?;
    let mut onto =
        VideoFrameRef::from_buffer_ref_writable(made.make_mut(), &to.info).map_err(|_| FormatError::Map)?;
    converter.frame_ref(&picture, &mut onto);
    drop(onto);
    Ok(made)
}

/// What GStreamer makes of this format and size: its rows and colorimetry.
fn format_of(pixel: PixelFormat, width: usize, height: usize) -> Result<StreamFormat, FootageError> {
    let refused = |_| FootageError::Convert { format: pixel.name(), width, height };
    let side = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
    let info = gst_video::VideoInfo::builder(video_format(pixel), side(width), side(height))
        .fps(gst::Fraction::new(0, 1))
        .build();
    let caps = info.and_then(|info| info.to_caps()).map_err(refused)?;
    Ok(StreamFormat::from_caps(&caps)?)
}

/// Whether so many pictures are kept in memory.
pub(super) fn fits(pictures: usize, width: usize, height: usize, bytes: usize) -> Result<(), FootageError> {
    let all =
        pictures.checked_mul(width).and_then(|n| n.checked_mul(height)).and_then(|n| n.checked_mul(bytes));
    if all.is_some_and(|n| n <= MAX_BYTES) {
        Ok(())
    } else {
        Err(FootageError::Large { pictures, width, height })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Rgb;

    #[test]
    fn pictures_go_there_and_back() {
        gst::init().unwrap();
        let of = |values: &[u8]| {
            let pictures = values.iter().map(|&v| vec![v; 16]);
            Footage::packed(PixelFormat::Gray8, (4, 4), String::new(), pictures).unwrap()
        };
        let first = |f: &Footage, i| f.view(i, |v| v.plane(0).data[0]).unwrap();
        let footage = of(&[0, 1, 2, 3]);
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8].map(|i| first(&footage, i)), [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        let one = of(&[7]);
        assert_eq!([first(&one, 0), first(&one, 5)], [7, 7]);
    }

    #[test]
    fn a_phantom_is_made_in_the_size_asked_for() {
        gst::init().unwrap();
        let load = |count, size| Footage::load(&SourceChoice::Phantom(3), count, Some(size), None);
        let footage = load(2, (160, 120)).unwrap();
        assert_eq!((footage.width(), footage.height(), footage.bytes()), (160, 120, 2 * 160 * 120));
        assert!(load(2, (10, 10)).is_err());
        assert!(load(usize::MAX, (160, 120)).is_err());
    }

    #[test]
    fn pictures_look_the_same_in_every_format_and_odd_size() {
        gst::init().unwrap();
        let close = |rgb: &Rgb, truth: &Rgb, what: PixelFormat, bar: u8| {
            assert_eq!((rgb.width, rgb.height), (truth.width, truth.height));
            let worst = rgb.data.iter().zip(&truth.data).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(bar), "{what:?}: {worst:?}");
        };
        let phantom = |format| {
            let footage = Footage::load(&SourceChoice::Phantom(3), 1, Some((161, 121)), format).unwrap();
            footage.view(0, |v| Rgb::from(v)).unwrap()
        };
        let gray = phantom(None);
        assert!(gray.data.iter().any(|&v| v > 100));
        // One colour, so that chroma at half the size has nothing to blur.
        let rgbx: Vec<u8> = [200, 40, 90, 0].repeat(161 * 121);
        for format in PixelFormat::ALL {
            // Luma of limited range has 219 steps.
            close(&phantom(Some(format)), &gray, format, 3);
            let one = std::iter::once(rgbx.clone());
            let red = Footage::packed(PixelFormat::Rgbx, (161, 121), String::new(), one).unwrap();
            let truth = red.view(0, |v| Rgb::from(v)).unwrap();
            let made = red.converted(format).unwrap();
            assert_eq!(made.format.pixel, format);
            if format != PixelFormat::Gray8 {
                close(&made.view(0, |v| Rgb::from(v)).unwrap(), &truth, format, 4);
            }
        }
        let short = Footage::packed(PixelFormat::Gray8, (4, 4), String::new(), std::iter::once(vec![0; 15]));
        assert!(short.is_err());
        let none = Footage::packed(PixelFormat::Gray8, (4, 4), String::new(), std::iter::empty());
        assert!(none.is_err());
    }
}

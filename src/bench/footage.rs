//! The pictures of a case, made or decoded before anything is measured and kept in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::sync::Parker;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use image::imageops::FilterType;
use parking_lot::Mutex;

use super::spec::SourceChoice;
use crate::cine::{self, CineError};
use crate::frame::{ImageError, ImageView, PixelFormat, Plane, Rgb, YuvColor};
use crate::media::template::{Kind, Params, Template, TemplateError};
use crate::media::{FormatError, Intake, MediaError, Pace, SourcePipeline, StreamFormat, video_format};
use crate::phantom::{Phantom, PhantomConfig, PhantomError};

/// Most bytes of pictures.
const MAX_BYTES: usize = 2 << 30;
/// Longest wait for the pictures of a recording.
const PATIENCE: Duration = Duration::from_secs(120);

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
    /// [`PixelFormat::Gray8`] and others [`PixelFormat::Rgbx`].
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
            // GStreamer 1.22 takes gray of full range for luma of limited range, but not by way of RGB.
            Some(format @ (PixelFormat::I420 | PixelFormat::Nv12)) => {
                footage.converted(PixelFormat::Rgbx)?.converted(format)
            }
            Some(format) => footage.converted(format),
            None => Ok(footage),
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
            format.with_view_mut(buffer.make_mut(), |view| {
                let [plane] = view.planes_mut() else { return };
                for (to, from) in plane.data.chunks_mut(plane.stride).zip(data.chunks_exact(row)) {
                    to[..row].copy_from_slice(from);
                }
            })?;
            Ok(buffer)
        };
        let pictures = pictures.map(padded).collect::<Result<_, FormatError>>()?;
        Ok(Self { format, name, pictures })
    }

    /// The same pictures, as GStreamer makes them.
    fn converted(self, pixel: PixelFormat) -> Result<Self, FootageError> {
        if pixel == self.format.pixel {
            return Ok(self);
        }
        let (width, height) = (self.width(), self.height());
        let word = video_format(pixel).to_str();
        let refused = || FootageError::Convert { format: word, width, height };
        let format = format_of(pixel, width, height)?;
        let converter =
            gst_video::VideoConverter::new(&self.format.info, &format.info, None).map_err(|_| refused())?;
        fits(self.pictures.len(), format.info.size(), 1, 1)?;
        let converted = |buffer: &gst::Buffer| {
            let mut out = gst::Buffer::with_size(format.info.size()).ok()?;
            let from = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.format.info).ok()?;
            let mut to =
                gst_video::VideoFrameRef::from_buffer_ref_writable(out.get_mut()?, &format.info).ok()?;
            converter.frame_ref(&from, &mut to);
            drop(to);
            Some(out)
        };
        let pictures = self.pictures.iter().map(converted).collect::<Option<_>>().ok_or_else(refused)?;
        Ok(Self { format, pictures, ..self })
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
        let last = self.pictures.len().saturating_sub(1) as u64;
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

/// What GStreamer makes of this format and size: its rows and colorimetry.
fn format_of(pixel: PixelFormat, width: usize, height: usize) -> Result<StreamFormat, FootageError> {
    let word = video_format(pixel).to_str();
    let refused = |_| FootageError::Convert { format: word, width, height };
    let side = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
    let info = gst_video::VideoInfo::builder(video_format(pixel), side(width), side(height))
        .fps(gst::Fraction::new(0, 1))
        .build();
    let caps = info.and_then(|info| info.to_caps()).map_err(refused)?;
    Ok(StreamFormat::from_caps(&caps)?)
}

fn fits(pictures: usize, width: usize, height: usize, bytes: usize) -> Result<(), FootageError> {
    let all =
        pictures.checked_mul(width).and_then(|n| n.checked_mul(height)).and_then(|n| n.checked_mul(bytes));
    if all.is_some_and(|n| n <= MAX_BYTES) {
        Ok(())
    } else {
        Err(FootageError::Large { pictures, width, height })
    }
}

/// A picture of a recording.
struct Picture {
    rgb: Rgb,
    /// It has no colour.
    gray: bool,
}

impl Picture {
    fn new(rgb: Rgb) -> Self {
        let gray = rgb.data.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]);
        Self { rgb, gray }
    }

    fn sized(self, width: usize, height: usize) -> Option<Rgb> {
        if (self.rgb.width, self.rgb.height) == (width, height) {
            return Some(self.rgb);
        }
        let side = |v: usize| u32::try_from(v).ok();
        let picture =
            image::RgbImage::from_raw(side(self.rgb.width)?, side(self.rgb.height)?, self.rgb.data)?;
        let data =
            image::imageops::resize(&picture, side(width)?, side(height)?, FilterType::Triangle).into_raw();
        Some(Rgb { width, height, data })
    }
}

fn packed(rgb: &Rgb, format: PixelFormat) -> Vec<u8> {
    if format == PixelFormat::Gray8 { rgb.data.iter().copied().step_by(3).collect() } else { rgb.to_rgba() }
}

/// Pictures of a cine-loop of our own readers.
fn read(path: &Path, count: usize) -> Result<Vec<Picture>, FootageError> {
    let mut reader = cine::open(path)?;
    let mut pictures = Vec::new();
    while pictures.len() < count {
        let Some(frame) = reader.next_frame()? else { break };
        let (stride, _) = frame.format.planes(frame.width, frame.height).first().copied().unwrap_or_default();
        let plane = Plane { data: &frame.data, stride };
        let view = ImageView::new(frame.format, frame.width, frame.height, YuvColor::default(), vec![plane])?;
        fits(pictures.len() + 1, frame.width, frame.height, 3)?;
        pictures.push(Picture::new(Rgb::from(&view)));
    }
    Ok(pictures)
}

/// Takes the first pictures off a source pipeline.
struct Collector {
    pictures: Mutex<(Vec<Picture>, Option<String>)>,
    count: usize,
    done: crossbeam::sync::Unparker,
}

impl Collector {
    fn take(&self, appsink: &gst_app::AppSink) -> Result<(), String> {
        let sample = appsink.pull_sample().map_err(|_| "no frame where one was announced")?;
        let mut kept = self.pictures.lock();
        if kept.0.len() >= self.count {
            return Ok(());
        }
        let caps = sample.caps().ok_or("a frame without caps")?;
        let format = StreamFormat::from_caps(caps).map_err(|e| e.to_string())?;
        fits(kept.0.len() + 1, format.width(), format.height(), 3).map_err(|e| e.to_string())?;
        let buffer = sample.buffer().ok_or("a frame without a buffer")?;
        let rgb = format.with_view(buffer, |view| Rgb::from(view)).map_err(|e| e.to_string())?;
        kept.0.push(Picture::new(rgb));
        if kept.0.len() >= self.count {
            self.done.unpark();
        }
        Ok(())
    }
}

impl Intake for Collector {
    fn on_sample(&self, appsink: &gst_app::AppSink) {
        if let Err(reason) = self.take(appsink) {
            self.pictures.lock().1.get_or_insert(reason);
            self.done.unpark();
        }
    }

    fn on_eos(&self) {
        self.pictures.lock().1.get_or_insert_default();
        self.done.unpark();
    }
}

/// Pictures of a recording that GStreamer decodes, through the product's own template.
fn decode(path: &Path, count: usize) -> Result<Vec<Picture>, FootageError> {
    let failed = |reason: String| FootageError::Decode { reason, path: path.to_owned() };
    std::fs::File::open(path).map_err(|e| failed(e.to_string()))?;
    let text = path.to_str().ok_or_else(|| failed("GStreamer needs a path in UTF-8".into()))?;
    let mut params = Params::default();
    params.set("path", text.to_owned(), "the benchmark");
    let bin = Template::find(Kind::Source, "file", &[])?.bind(&params)?.launch()?;
    let mut source = SourcePipeline::from_bin(bin, false, Pace::Fast, true)?;
    let parker = Parker::new();
    let collector =
        Arc::new(Collector { pictures: Mutex::default(), count, done: parker.unparker().clone() });
    source.connect(collector.clone());
    source.pipeline().set_state(gst::State::Playing).map_err(|e| failed(e.to_string()))?;
    let bus = source.pipeline().bus();
    let deadline = Instant::now() + PATIENCE;
    let mut error = None;
    while Instant::now() < deadline && error.is_none() {
        let kept = collector.pictures.lock();
        if kept.0.len() >= count || kept.1.is_some() {
            break;
        }
        drop(kept);
        parker.park_timeout(Duration::from_millis(50));
        let message = bus.as_ref().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        if let Some(gst::MessageView::Error(e)) = message.as_ref().map(|m| m.view()) {
            error = Some(e.error().to_string());
        }
    }
    source.shut_down();
    let (pictures, said) = std::mem::take(&mut *collector.pictures.lock());
    match error.or(said.filter(|said| !said.is_empty())) {
        Some(reason) => Err(failed(reason)),
        None => Ok(pictures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_phantom_looks_the_same_in_every_format_and_odd_size() {
        gst::init().unwrap();
        let load = |format| Footage::load(&SourceChoice::Phantom(3), 1, Some((161, 121)), format).unwrap();
        let gray = load(None).view(0, |v| Rgb::from(v)).unwrap();
        assert!(gray.data.iter().any(|&v| v > 100));
        for format in PixelFormat::ALL {
            let footage = load(Some(format));
            assert_eq!(footage.format.pixel, format);
            let rgb = footage.view(0, |v| Rgb::from(v)).unwrap();
            let worst = rgb.data.iter().zip(&gray.data).map(|(a, b)| a.abs_diff(*b)).max();
            // Luma of limited range has 219 steps.
            assert!(worst <= Some(3), "{format:?}: {worst:?}");
        }
    }
}

//! The pictures of a case, made or decoded before anything is measured and kept in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::sync::Parker;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use image::imageops::FilterType;
use parking_lot::Mutex;

use super::spec::SourceChoice;
use crate::cine::{self, CineError};
use crate::frame::{ImageError, ImageView, PixelFormat, Plane, Rgb, YuvColor};
use crate::media::template::{Kind, Params, Template, TemplateError};
use crate::media::{Intake, MediaError, Pace, SourcePipeline, StreamFormat};
use crate::phantom::{Phantom, PhantomConfig, PhantomError};

/// Most bytes of pictures.
const MAX_BYTES: usize = 2 << 30;
/// Longest wait for the pictures of a recording.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pictures of one size and format, shown there and back without end, so that no seam is a cut for a memory.
#[derive(Clone, Debug)]
pub struct Footage {
    /// [`PixelFormat::Gray8`] or [`PixelFormat::Rgbx`].
    pub format: PixelFormat,
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// What it is, in a few words.
    pub name: String,
    pictures: Vec<Vec<u8>>,
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
    /// Up to `count` pictures of `source`, in `size` if one is given.
    ///
    /// # Errors
    /// A source that cannot be had, or more than fits into memory.
    pub fn load(
        source: &SourceChoice,
        count: usize,
        size: Option<(usize, usize)>,
    ) -> Result<Self, FootageError> {
        let count = count.max(1);
        match source {
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
                let pictures = (0..count as u64).map(|i| phantom.image(i)).collect();
                let name = format!("phantom, seed {seed}, {count} pictures of {width}x{height}");
                Ok(Self { format: PixelFormat::Gray8, width, height, name, pictures })
            }
            SourceChoice::File(path) => {
                let pictures =
                    if cine::recognise(path).is_some() { read(path, count)? } else { decode(path, count)? };
                Self::of_pictures(path, pictures, size)
            }
        }
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
        Ok(Self { format, width, height, name, pictures })
    }

    /// Bytes that the pictures take.
    pub fn bytes(&self) -> u64 {
        self.pictures.iter().map(|p| p.len() as u64).sum()
    }

    /// Bytes of a picture from one row to the next.
    pub fn stride(&self) -> usize {
        self.width * if self.format == PixelFormat::Gray8 { 1 } else { 4 }
    }

    /// Bytes of the picture that is shown as frame `index`.
    pub fn picture(&self, index: u64) -> &[u8] {
        let last = self.pictures.len().saturating_sub(1) as u64;
        let at = if last == 0 {
            0
        } else {
            let place = index % (2 * last);
            if place <= last { place } else { 2 * last - place }
        };
        self.pictures.get(at as usize).map_or(&[], Vec::as_slice)
    }

    /// The picture that is shown as frame `index`, for a model.
    ///
    /// # Errors
    /// None for pictures that were loaded whole.
    pub fn view(&self, index: u64) -> Result<ImageView<'_>, ImageError> {
        let plane = Plane { data: self.picture(index), stride: self.stride() };
        ImageView::new(self.format, self.width, self.height, YuvColor::default(), vec![plane])
    }
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
        let footage = Footage {
            format: PixelFormat::Gray8,
            width: 1,
            height: 1,
            name: String::new(),
            pictures: vec![vec![0], vec![1], vec![2], vec![3]],
        };
        let shown: Vec<u8> = (0..9).map(|i| footage.picture(i)[0]).collect();
        assert_eq!(shown, [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        let one = Footage { pictures: vec![vec![7]], ..footage };
        assert_eq!([one.picture(0)[0], one.picture(5)[0]], [7, 7]);
    }

    #[test]
    fn a_phantom_is_made_in_the_size_asked_for() {
        let footage = Footage::load(&SourceChoice::Phantom(3), 2, Some((160, 120))).unwrap();
        assert_eq!((footage.width, footage.height, footage.bytes()), (160, 120, 2 * 160 * 120));
        assert!(Footage::load(&SourceChoice::Phantom(3), 2, Some((10, 10))).is_err());
        assert!(Footage::load(&SourceChoice::Phantom(3), usize::MAX, Some((160, 120))).is_err());
    }
}

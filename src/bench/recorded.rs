//! Pictures of a recording, decoded before anything is measured.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::sync::Parker;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use image::imageops::FilterType;
use parking_lot::Mutex;

use super::footage::{FootageError, fits};
use crate::cine;
use crate::frame::{ImageView, PixelFormat, Plane, Rgb, YuvColor};
use crate::media::template::{Kind, Params, Template};
use crate::media::{Intake, Pace, SourcePipeline, StreamFormat};

/// Longest wait for the pictures of a recording.
const PATIENCE: Duration = Duration::from_secs(120);

/// A picture of a recording.
pub(super) struct Picture {
    pub rgb: Rgb,
    /// It has no colour.
    pub gray: bool,
}

impl Picture {
    fn new(rgb: Rgb) -> Self {
        let gray = rgb.data.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]);
        Self { rgb, gray }
    }

    pub fn sized(self, width: usize, height: usize) -> Option<Rgb> {
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

pub(super) fn packed(rgb: &Rgb, format: PixelFormat) -> Vec<u8> {
    if format == PixelFormat::Gray8 { rgb.data.iter().copied().step_by(3).collect() } else { rgb.to_rgba() }
}

/// Pictures of a cine-loop of our own readers.
pub(super) fn read(path: &Path, count: usize) -> Result<Vec<Picture>, FootageError> {
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
pub(super) fn decode(path: &Path, count: usize) -> Result<Vec<Picture>, FootageError> {
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

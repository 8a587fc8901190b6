//! The source pipeline: anything that makes frames, ending in one appsink.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use super::MediaError;
use super::format::{accepted_caps, video_format};
use crate::cine::{CineFrame, CineReader};

/// Buffers that may wait inside the appsink. One is enough: the hand-off behind it is the real queue.
const APPSINK_DEPTH: u32 = 1;
/// Frames a cine reader may decode ahead.
const READER_DEPTH: u64 = 2;

/// How the frames are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// By their PTS against the clock; also right for live sources.
    Realtime,
    /// As fast as the consumer takes them.
    Fast,
}

/// What the appsink calls on the streaming thread.
pub trait Intake: Send + Sync + 'static {
    /// A sample is waiting in the appsink.
    fn on_sample(&self, appsink: &gst_app::AppSink);
    /// Every sample before this call was the last.
    fn on_eos(&self);
}

/// A pipeline that ends in the product's appsink.
#[derive(Debug)]
pub struct SourcePipeline {
    pipeline: gst::Pipeline,
    appsink: gst_app::AppSink,
    live: bool,
    reader: Option<Reader>,
}

struct Reader {
    stop: Arc<AtomicBool>,
    error: Arc<Mutex<Option<String>>>,
    appsrc: gst_app::AppSrc,
    waiting: Option<Box<dyn CineReader>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("started", &self.waiting.is_none()).finish_non_exhaustive()
    }
}

impl SourcePipeline {
    /// Appends the appsink to `bin`, which has one unlinked source pad.
    ///
    /// # Errors
    /// If the bin cannot be linked.
    pub fn from_bin(bin: gst::Bin, live: bool, pace: Pace, gray: bool) -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::builder().name("source").build();
        let appsink = appsink(pace == Pace::Realtime && !live, gray);
        pipeline
            .add_many([bin.upcast_ref::<gst::Element>(), appsink.upcast_ref()])
            .and_then(|()| bin.link(&appsink))
            .map_err(|e| MediaError::Link { what: "the source", reason: e.to_string() })?;
        Ok(Self { pipeline, appsink, live, reader: None })
    }

    /// Feeds the frames of `reader` from a thread of their own (see [`SourcePipeline::start_reader`]), so that they take the same way as any other source.
    ///
    /// # Errors
    /// If an element is missing.
    pub fn from_reader(reader: Box<dyn CineReader>, pace: Pace, gray: bool) -> Result<Self, MediaError> {
        let appsrc = gst_app::AppSrc::builder()
            .name("reader")
            .format(gst::Format::Time)
            .max_buffers(READER_DEPTH)
            .max_bytes(0)
            .block(true)
            .build();
        let convert = gst::ElementFactory::make("videoconvert")
            .build()
            .map_err(|_| MediaError::Missing { element: "videoconvert".into() })?;
        let bin = gst::Bin::new();
        bin.add_many([appsrc.upcast_ref(), &convert])
            .and_then(|()| appsrc.link(&convert))
            .map_err(|e| MediaError::Link { what: "the cine reader", reason: e.to_string() })?;
        let pad = convert.static_pad("src").ok_or(MediaError::Missing { element: "videoconvert".into() })?;
        let ghost = gst::GhostPad::with_target(&pad)
            .map_err(|e| MediaError::Link { what: "the cine reader", reason: e.to_string() })?;
        bin.add_pad(&ghost)
            .map_err(|e| MediaError::Link { what: "the cine reader", reason: e.to_string() })?;
        let mut source = Self::from_bin(bin, false, pace, gray)?;
        source.reader = Some(Reader {
            stop: Arc::default(),
            error: Arc::default(),
            appsrc,
            waiting: Some(reader),
            thread: None,
        });
        Ok(source)
    }

    /// Starts the cine reader's thread, if this source has one. To be called once the pipeline is at least paused: only
    /// then does stopping the pipeline wake a reader that waits for room.
    pub fn start_reader(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        let Some(frames) = reader.waiting.take() else { return };
        let (appsrc, stop, error) = (reader.appsrc.clone(), reader.stop.clone(), reader.error.clone());
        let thread = std::thread::Builder::new().name("cine-reader".into()).spawn(move || {
            // The run waits for the end of the stream, which a panic must not keep from it.
            let fed = catch_unwind(AssertUnwindSafe(|| feed(frames, &appsrc, &stop))).unwrap_or_else(|_| {
                Err("the reader failed an internal check; the recording may be damaged".into())
            });
            if let Err(reason) = fed {
                *error.lock() = Some(reason);
            }
            // An error here means the pipeline is being stopped, and then nobody waits for the end of the stream.
            appsrc.end_of_stream().ok();
        });
        match thread {
            Ok(thread) => reader.thread = Some(thread),
            Err(e) => {
                *reader.error.lock() = Some(format!("cannot start a thread: {e}"));
                reader.appsrc.end_of_stream().ok();
            }
        }
    }

    /// Why the cine reader ended before the last frame, if it did. The frames before were sent.
    pub fn reader_error(&self) -> Option<String> {
        self.reader.as_ref()?.error.lock().clone()
    }

    /// Installs the callbacks. They run on the streaming thread and must not block.
    pub fn connect(&self, intake: Arc<dyn Intake>) {
        let eos = intake.clone();
        self.appsink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |appsink| {
                    intake.on_sample(appsink);
                    Ok(gst::FlowSuccess::Ok)
                })
                .eos(move |_| eos.on_eos())
                .build(),
        );
    }

    /// The pipeline, for state, clock and bus.
    pub fn pipeline(&self) -> &gst::Pipeline {
        &self.pipeline
    }
    /// The appsink, for pulling under back-pressure.
    pub fn appsink(&self) -> &gst_app::AppSink {
        &self.appsink
    }
    /// Whether frames come whether or not anybody takes them.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Total length, where the source knows it.
    pub fn duration(&self) -> Option<std::time::Duration> {
        self.pipeline.query_duration::<gst::ClockTime>().map(Into::into)
    }

    /// The latency upstream of the appsink, as the elements there report it; `None` for a source that is not live.
    pub fn upstream_latency(&self) -> Option<gst::ClockTime> {
        let mut query = gst::query::Latency::new();
        let pad = self.appsink.static_pad("sink")?;
        if !pad.peer_query(&mut query) {
            return None;
        }
        let (live, min, _) = query.result();
        live.then_some(min)
    }

    /// Stops the pipeline and the reader's thread.
    pub fn shut_down(&mut self) {
        if let Some(reader) = &self.reader {
            reader.stop.store(true, Ordering::Release);
        }
        // NULL flushes the appsrc, which wakes a reader that waits for room.
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::debug!("the source pipeline did not reach NULL");
        }
        if let Some(thread) = self.reader.as_mut().and_then(|r| r.thread.take())
            && thread.join().is_err()
        {
            tracing::error!("the cine reader's thread panicked");
        }
    }
}

impl Drop for SourcePipeline {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn appsink(sync: bool, gray: bool) -> gst_app::AppSink {
    let appsink = gst_app::AppSink::builder()
        .name("frames")
        .caps(&accepted_caps(gray))
        .max_buffers(APPSINK_DEPTH)
        .drop(false)
        .sync(sync)
        .build();
    // A kept last sample would be shared with the compositor, and drawing would have to copy it.
    appsink.set_property("enable-last-sample", false);
    // QoS would let upstream throw frames away uncounted.
    appsink.set_property("qos", false);
    appsink
}

/// Sends every frame; the error of the first that cannot be sent.
fn feed(mut reader: Box<dyn CineReader>, appsrc: &gst_app::AppSrc, stop: &AtomicBool) -> Result<(), String> {
    let mut shape = None;
    while !stop.load(Ordering::Acquire) {
        let Some(frame) = reader.next_frame().map_err(|e| e.to_string())? else { break };
        let now = (frame.format, frame.width, frame.height);
        let unusable = || format!("a frame of {}x{} pixels cannot be sent", now.1, now.2);
        if shape != Some(now) {
            appsrc.set_caps(Some(&caps_of(&frame).ok_or_else(unusable)?));
            shape = Some(now);
        }
        let buffer = buffer_of(frame).ok_or_else(unusable)?;
        if appsrc.push_buffer(buffer).is_err() {
            break; // flushing: the pipeline is being stopped
        }
    }
    Ok(())
}

fn caps_of(frame: &CineFrame) -> Option<gst::Caps> {
    let (w, h) = (u32::try_from(frame.width).ok()?, u32::try_from(frame.height).ok()?);
    let info =
        gst_video::VideoInfo::builder(video_format(frame.format), w, h).fps(gst::Fraction::new(0, 1)).build();
    info.ok()?.to_caps().ok()
}

fn buffer_of(frame: CineFrame) -> Option<gst::Buffer> {
    let (w, h) = (u32::try_from(frame.width).ok()?, u32::try_from(frame.height).ok()?);
    let (stride, rows) = *frame.format.planes(frame.width, frame.height).first()?;
    if frame.data.len() != stride * rows {
        return None;
    }
    let (pts, duration) = (frame.pts, frame.duration);
    let format = video_format(frame.format);
    let mut buffer = gst::Buffer::from_mut_slice(frame.data);
    let meta = buffer.make_mut();
    meta.set_pts(gst::ClockTime::from_nseconds(pts.0));
    meta.set_duration(gst::ClockTime::try_from(duration).ok());
    // GStreamer's default stride is rounded up to four bytes; these rows are not padded.
    gst_video::VideoMeta::add_full(
        meta,
        gst_video::VideoFrameFlags::empty(),
        format,
        w,
        h,
        &[0],
        &[i32::try_from(stride).ok()?],
    )
    .ok()?;
    Some(buffer)
}

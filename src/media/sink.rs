//! The sink pipeline: one appsrc, and whatever shows, sends or records the frames.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use super::MediaError;
use super::format::StreamFormat;

/// Frames that may wait for the sink before the compositor has to.
const APPSRC_DEPTH: u64 = 2;
/// No source has ten thousand frames a second.
const SHORTEST: gst::ClockTime = gst::ClockTime::from_useconds(100);
/// The element in a recording's description whose caps are fixed to the first frame's size.
const FIXED: &str = "sonomask_fixed";

/// A pipeline that begins with the product's appsrc.
#[derive(Debug)]
pub struct SinkPipeline {
    pipeline: gst::Pipeline,
    appsrc: gst_app::AppSrc,
    fixed: Option<gst::Element>,
}

impl SinkPipeline {
    /// Puts the appsrc before `bin`, which has one unlinked sink pad.
    ///
    /// # Errors
    /// If the bin cannot be linked.
    pub fn new(bin: gst::Bin, live: bool) -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::builder().name("sink").build();
        let appsrc = gst_app::AppSrc::builder()
            .name("composited")
            .format(gst::Format::Time)
            .is_live(live)
            .do_timestamp(false)
            .max_buffers(APPSRC_DEPTH)
            .max_bytes(0)
            .block(true)
            .build();
        // Nobody listens, and need-data would be emitted for every frame.
        appsrc.set_property("emit-signals", false);
        pipeline
            .add_many([appsrc.upcast_ref(), bin.upcast_ref::<gst::Element>()])
            .and_then(|()| appsrc.link(&bin))
            .map_err(|e| MediaError::Link { what: "the sink", reason: e.to_string() })?;
        let fixed = bin.by_name(FIXED);
        Ok(Self { pipeline, appsrc, fixed })
    }

    /// The pipeline, for state, clock and bus.
    pub fn pipeline(&self) -> &gst::Pipeline {
        &self.pipeline
    }

    /// The writing end.
    pub fn feed(&self) -> Feed {
        Feed { appsrc: self.appsrc.clone(), fixed: self.fixed.clone(), format: None, last_pts: None }
    }

    /// Declares how late frames leave the appsrc, and lets the sinks adapt.
    pub fn declare_latency(&self, latency: gst::ClockTime) {
        self.appsrc.set_latency(latency, gst::ClockTime::NONE);
        if let Err(e) = self.pipeline.recalculate_latency() {
            tracing::debug!("latency was not redistributed: {e}");
        }
    }

    /// Stops the pipeline; whatever waits for room in the appsrc wakes.
    pub fn shut_down(&self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::debug!("the sink pipeline did not reach NULL");
        }
    }
}

impl Drop for SinkPipeline {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Pushes composed frames; owned by the compositor.
#[derive(Debug)]
pub struct Feed {
    appsrc: gst_app::AppSrc,
    fixed: Option<gst::Element>,
    format: Option<gst::Caps>,
    last_pts: Option<gst::ClockTime>,
}

impl Feed {
    /// Whether a frame would be taken without waiting.
    pub fn has_room(&self) -> bool {
        self.appsrc.current_level_buffers() < APPSRC_DEPTH
    }

    /// Hands `buffer` on, after its caps where they changed. Waits while the sink has no room.
    ///
    /// # Errors
    /// If the sink pipeline is stopping or broken.
    pub fn push(&mut self, mut buffer: gst::Buffer, format: &StreamFormat) -> Result<(), gst::FlowError> {
        if self.format.as_ref() != Some(&format.caps) {
            if self.format.is_none() {
                self.fix_size(format);
            }
            self.appsrc.set_caps(Some(&format.caps));
            self.format = Some(format.caps.clone());
        }
        if self.fixed.is_some() {
            self.mend_duration(&mut buffer);
        }
        self.appsrc.push_buffer(buffer).map(|_| ())
    }

    /// No more frames.
    pub fn end(&self) {
        // An error means the pipeline is already stopping.
        self.appsrc.end_of_stream().ok();
    }

    /// Decoders give the frames of an H.264 stream without a fixed rate a duration of a nanosecond. In a file the last
    /// frame's duration counts, and players leave out a frame that lasts no time; so it gets that of the frame before.
    fn mend_duration(&mut self, buffer: &mut gst::Buffer) {
        let since_last = buffer.pts().zip(self.last_pts).and_then(|(now, last)| now.checked_sub(last));
        self.last_pts = buffer.pts().or(self.last_pts);
        if buffer.duration().is_some_and(|d| d < SHORTEST) {
            buffer.make_mut().set_duration(since_last);
        }
    }

    /// Encoders with 4:2:0 want even sides, and a file keeps the size it began with.
    fn fix_size(&self, format: &StreamFormat) {
        let Some(fixed) = &self.fixed else { return };
        let even = |v: u32| i32::try_from(v.next_multiple_of(2)).unwrap_or(i32::MAX);
        let caps = gst_video::VideoCapsBuilder::new()
            .width(even(format.info.width()))
            .height(even(format.info.height()))
            .pixel_aspect_ratio(gst::Fraction::new(1, 1))
            .build();
        fixed.set_property("caps", &caps);
    }
}

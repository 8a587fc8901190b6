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
/// The element in a recording's description whose caps are fixed to those of the first frame.
const FIXED: &str = "sonomask_fixed";
/// What of the first caps there a file keeps. The elements before it convert to them.
const KEPT: [&str; 6] = ["format", "width", "height", "pixel-aspect-ratio", "colorimetry", "chroma-site"];
/// What of the first caps nothing converts to.
const RATE: [&str; 2] = ["framerate", "max-framerate"];

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
        let (appsrc, fixed) = (self.appsrc.clone(), self.fixed.clone());
        Feed { appsrc, fixed, first: None, format: None, last_pts: None }
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
    /// Caps of the first frame.
    first: Option<gst::Caps>,
    /// Caps of the last one.
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
            if self.first.is_none() {
                self.fix(format);
                self.first = Some(format.caps.clone());
            }
            self.appsrc.set_caps(Some(&self.steady(&format.caps)));
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

    /// Encoders with 4:2:0 want even sides, and a file keeps what it began with: its size, the shape of its pixels (which stay the
    /// source's, or masks would not lie on them), and the format that the encoder took, whatever later frames have.
    fn fix(&self, format: &StreamFormat) {
        let Some(fixed) = &self.fixed else { return };
        let even = |v: u32| i32::try_from(v.next_multiple_of(2)).unwrap_or(i32::MAX);
        let caps = gst_video::VideoCapsBuilder::new()
            .width(even(format.info.width()))
            .height(even(format.info.height()))
            .pixel_aspect_ratio(format.info.par())
            .build();
        fixed.set_property("caps", &caps);
        // Which format that is, only the encoder knows, and is known when the first caps come by.
        let Some(pad) = fixed.static_pad("src") else { return };
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |pad, info| {
            let Some(gst::EventView::Caps(agreed)) = info.event().map(|event| event.view()) else {
                return gst::PadProbeReturn::Ok;
            };
            if let (Some(fixed), Some(kept)) = (pad.parent_element(), kept(agreed.caps())) {
                fixed.set_property("caps", &kept);
            }
            gst::PadProbeReturn::Remove
        });
    }

    /// `caps` with the first frame's rate, where a file is written: with another one an encoder begins anew, and muxers refuse
    /// what it then says of its stream. The times of frames are their own.
    fn steady(&self, caps: &gst::Caps) -> gst::Caps {
        let mut caps = caps.clone();
        let first = self.first.as_ref().filter(|first| self.fixed.is_some() && **first != caps);
        let Some(first) = first.and_then(|first| first.structure(0)) else { return caps };
        if let Some(now) = caps.make_mut().structure_mut(0) {
            for field in RATE {
                match first.value(field) {
                    Ok(value) => now.set_value(field, value.clone()),
                    Err(_) => now.remove_field(field),
                }
            }
        }
        caps
    }
}

/// What of `agreed` a file keeps.
fn kept(agreed: &gst::CapsRef) -> Option<gst::Caps> {
    let agreed = agreed.structure(0)?;
    let mut kept = gst::Structure::new_empty(agreed.name());
    for field in KEPT {
        if let Ok(value) = agreed.value(field) {
            kept.set_value(field, value.clone());
        }
    }
    Some(gst::Caps::from(kept))
}

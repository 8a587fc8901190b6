//! The far end: reads the mark off every frame as it would be shown.

use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use parking_lot::Mutex;

use super::marker::{Mark, read_mark};
use crate::media::{MediaError, SinkPipeline, StreamFormat};

/// A frame that reached the glass.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// Its PTS in nanoseconds.
    pub pts: Option<u64>,
    /// What its mark says; `None` if it cannot be read.
    pub mark: Option<Mark>,
}

/// What reached the glass so far, up to a number.
#[derive(Clone, Debug)]
pub struct Glass(Arc<Mutex<Vec<Seen>>>);

impl Glass {
    /// A sink pipeline that ends in the glass, with room for the marks of `room` frames.
    ///
    /// # Errors
    /// If GStreamer cannot link it.
    pub fn new(live: bool, room: usize) -> Result<(SinkPipeline, Self), MediaError> {
        let seen = Arc::new(Mutex::new(Vec::with_capacity(room)));
        let appsink =
            gst_app::AppSink::builder().name("glass").max_buffers(1).drop(false).sync(false).build();
        appsink.set_property("enable-last-sample", false);
        let store = seen.clone();
        let mut format: Option<StreamFormat> = None;
        let callbacks = gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                // Before the mark is read: reading it is not part of the way.
                let at = Instant::now();
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else {
                    return Err(gst::FlowError::Error);
                };
                if format.as_ref().is_none_or(|f| f.caps.as_ref() != caps) {
                    format = Some(StreamFormat::from_caps(caps).map_err(|_| gst::FlowError::NotNegotiated)?);
                }
                let mark = format.as_ref().and_then(|f| f.with_view(buffer, read_mark).ok()).flatten();
                let mut seen = store.lock();
                if seen.len() < room {
                    seen.push(Seen { at, pts: buffer.pts().map(gst::ClockTime::nseconds), mark });
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build();
        appsink.set_callbacks(callbacks);
        let link = |e: gst::glib::BoolError| MediaError::Link { what: "the glass", reason: e.to_string() };
        let bin = gst::Bin::new();
        bin.add(&appsink).map_err(link)?;
        let pad = appsink.static_pad("sink").ok_or(MediaError::Missing { element: "appsink".into() })?;
        let ghost = gst::GhostPad::with_target(&pad).map_err(link)?;
        bin.add_pad(&ghost).map_err(link)?;
        Ok((SinkPipeline::new(bin, live)?, Self(seen)))
    }

    /// Takes out what was seen, in order.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.lock())
    }
}

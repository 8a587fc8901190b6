//! What the buses of the pipelines say, in words.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use gstreamer as gst;
use gstreamer::prelude::*;

/// Longest wait for the message that explains a failed state change.
const ERROR_FOLLOWS: Duration = Duration::from_millis(500);

/// The messages of a pipeline. One stream for the whole run: it takes messages off the bus before they are asked for.
pub type Bus = Pin<Box<dyn Stream<Item = gst::Message> + Send>>;

/// The messages of `pipeline`.
pub fn bus_of(pipeline: &gst::Pipeline) -> Bus {
    match pipeline.bus() {
        Some(bus) => Box::pin(bus.stream()),
        // A pipeline always has a bus; without one there would be nothing to wait for.
        None => Box::pin(futures::stream::pending()),
    }
}

/// The error behind a state change that failed at once; `otherwise` if the bus has none.
pub async fn first_error(bus: &mut Bus, otherwise: &str) -> String {
    let search = async {
        while let Some(message) = bus.next().await {
            if let gst::MessageView::Error(e) = message.view() {
                return error_text(e);
            }
        }
        otherwise.to_owned()
    };
    tokio::time::timeout(ERROR_FOLLOWS, search).await.unwrap_or_else(|_| otherwise.to_owned())
}

/// Waits until the sink has the end of the stream.
///
/// # Errors
/// What the sink says instead.
pub async fn end_of_stream(bus: &mut Bus) -> Result<(), String> {
    while let Some(message) = bus.next().await {
        match message.view() {
            gst::MessageView::Eos(_) => return Ok(()),
            gst::MessageView::Error(e) => return Err(error_text(e)),
            _ => {}
        }
    }
    Err("the sink's bus was closed".into())
}

/// What a `missing-plugin` message of GStreamer's plugin helpers asks for, in words.
pub fn missing_plugin(message: &gst::message::Element) -> Option<String> {
    let s = message.structure().filter(|s| s.name() == "missing-plugin")?;
    s.get::<String>("name").ok()
}

/// An error with the element it comes from.
pub fn error_text(e: &gst::message::Error) -> String {
    let element = e.src().map(|s| s.name().to_string()).unwrap_or_default();
    tracing::debug!("{element}: {:?}", e.debug());
    format!("{} ({element})", e.error())
}

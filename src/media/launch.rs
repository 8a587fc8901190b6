//! From a bound template to GStreamer elements, and which Debian package has an element.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use parking_lot::Mutex;

use super::template::{Bound, Kind, Setting, TemplateError};

/// Debian and Ubuntu packages and the elements in them that templates and decoders ask for.
const PACKAGES: &[(&str, &[&str])] = &[
    (
        "libgstreamer1.0-0",
        &[
            "capsfilter",
            "fakesink",
            "fakesrc",
            "filesink",
            "filesrc",
            "identity",
            "queue",
            "tee",
            "multiqueue",
            "valve",
        ],
    ),
    (
        "gstreamer1.0-plugins-base",
        &[
            "appsink",
            "appsrc",
            "decodebin",
            "decodebin3",
            "uridecodebin",
            "parsebin",
            "videoconvert",
            "videoscale",
            "videorate",
            "videotestsrc",
            "oggdemux",
            "theoradec",
            "compositor",
            "tcpclientsrc",
            "tcpserversink",
            "rawvideoparse",
        ],
    ),
    ("gstreamer1.0-x", &["ximagesink", "xvimagesink"]),
    ("gstreamer1.0-gl", &["glimagesink", "glupload", "gldownload", "glcolorconvert"]),
    (
        "gstreamer1.0-plugins-good",
        &[
            "autovideosink",
            "avidemux",
            "avimux",
            "deinterlace",
            "flvdemux",
            "jpegdec",
            "jpegenc",
            "matroskademux",
            "matroskamux",
            "mp4mux",
            "multifilesrc",
            "pngdec",
            "pngenc",
            "qtdemux",
            "qtmux",
            "rtpbin",
            "rtph264depay",
            "rtph264pay",
            "rtph265depay",
            "rtpjitterbuffer",
            "rtpjpegdepay",
            "rtpmp2tdepay",
            "rtpmp2tpay",
            "rtspsrc",
            "udpsink",
            "udpsrc",
            "v4l2sink",
            "v4l2src",
            "videobox",
            "videocrop",
            "vp8dec",
            "vp8enc",
            "vp9dec",
            "vp9enc",
            "webmmux",
            "wavparse",
            "y4menc",
        ],
    ),
    (
        "gstreamer1.0-plugins-bad",
        &[
            "decklinkvideosink",
            "decklinkvideosrc",
            "fbdevsink",
            "h264parse",
            "h265parse",
            "kmssink",
            "mpegtsmux",
            "mpegvideoparse",
            "openh264dec",
            "openh264enc",
            "openjpegdec",
            "srtsink",
            "srtsrc",
            "tsdemux",
            "tsparse",
            "waylandsink",
            "x265enc",
            "mxfdemux",
            "av1parse",
            "y4mdec",
        ],
    ),
    ("gstreamer1.0-plugins-ugly", &["asfdemux", "mpeg2dec", "x264enc"]),
];

/// The Debian or Ubuntu package that has `element`; `None` if it is not one of those this program speaks of.
pub fn package_of(element: &str) -> Option<&'static str> {
    let listed =
        PACKAGES.iter().find(|(_, elements)| elements.contains(&element)).map(|(package, _)| *package);
    listed.or_else(|| {
        let prefixes = [
            ("avdec_", "gstreamer1.0-libav"),
            ("avenc_", "gstreamer1.0-libav"),
            ("avdemux_", "gstreamer1.0-libav"),
            ("vaapi", "gstreamer1.0-vaapi"),
            ("nvh26", "gstreamer1.0-plugins-bad"),
        ];
        prefixes.iter().find(|(prefix, _)| element.starts_with(prefix)).map(|(_, package)| *package)
    })
}

/// Whether GStreamer has `element` here. GStreamer must be initialised.
pub fn has_element(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

impl Bound {
    /// Builds the elements: a bin with one ghost pad, `src` for a source and `sink` for a sink.
    ///
    /// # Errors
    /// An element that is not installed, with the package that has it; anything else GStreamer refuses.
    pub fn launch(&self) -> Result<gst::Bin, TemplateError> {
        let refused = |what: String| TemplateError::Launch { origin: self.origin.clone(), what };
        gst::init().map_err(|e| refused(e.to_string()))?;
        for element in &self.factories {
            if !has_element(element) {
                return Err(TemplateError::NoElement {
                    element: element.clone(),
                    package: package_of(element),
                    origin: self.origin.clone(),
                });
            }
        }
        // GStreamer's own ghosting takes the first pad that is not linked yet, which in a source is the one that waits
        // for a decoder's output; so the pad is made here, on the element at the open end.
        let bin = gst::parse::bin_from_description_with_name_full(
            &self.description,
            false,
            &self.kind.to_string(),
            None,
            gst::ParseFlags::FATAL_ERRORS,
        )
        .map_err(|e| refused(e.to_string()))?
        .downcast::<gst::Bin>()
        .map_err(|_| refused("the description is not a bin".to_owned()))?;
        keep_links(&bin);
        for setting in &self.settings {
            apply(&bin, setting).map_err(refused)?;
        }
        let (name, direction) = match self.kind {
            Kind::Source => ("src", gst::PadDirection::Src),
            Kind::Sink => ("sink", gst::PadDirection::Sink),
        };
        let open_end = || {
            let element = bin.by_name(&self.terminal)?;
            let open = element.pads().into_iter().find(|p| p.direction() == direction && !p.is_linked());
            // A muxer or a tee makes its pads on request.
            open.or_else(|| element.compatible_pad(&gst::Pad::new(opposite(direction)), None))
        };
        let pad = open_end().ok_or_else(|| {
            let which = if self.kind == Kind::Source { "last" } else { "first" };
            refused(format!("its {which} element has no open {name} pad; add a videoconvert there"))
        })?;
        let ghost =
            gst::GhostPad::builder_with_target(&pad).map_err(|e| refused(e.to_string()))?.name(name).build();
        bin.add_pad(&ghost).map_err(|e| refused(e.to_string()))?;
        Ok(bin)
    }
}

/// Links pads that come again to where the first of them was linked.
///
/// gst-launch's syntax links a pad that appears later (of rtspsrc, a demuxer, decodebin) once and then stops listening.
/// A source that is started again, or a stream that begins anew, makes new pads, and they would stay loose.
fn keep_links(bin: &gst::Bin) {
    for element in bin.iterate_recurse().into_iter().flatten() {
        let makes_pads = |t: gst::PadTemplate| {
            t.direction() == gst::PadDirection::Src && t.presence() == gst::PadPresence::Sometimes
        };
        if !element.pad_template_list().into_iter().any(makes_pads) {
            continue;
        }
        let targets: Arc<Mutex<Vec<glib::WeakRef<gst::Pad>>>> = Arc::default();
        // Runs after the parser's own handler, which was connected first.
        element.connect_pad_added(move |_, pad| {
            if let Some(peer) = pad.peer() {
                let mut known = targets.lock();
                if !known.iter().any(|t| t.upgrade().as_ref() == Some(&peer)) {
                    known.push(peer.downgrade());
                }
                return;
            }
            let known: Vec<gst::Pad> = targets.lock().iter().filter_map(glib::WeakRef::upgrade).collect();
            // A pad of another kind (sound) is refused by its caps and stays loose, as at the first time.
            for target in known.iter().filter(|t| !t.is_linked()) {
                if pad.link(target).is_ok() {
                    break;
                }
            }
        });
    }
}

fn opposite(direction: gst::PadDirection) -> gst::PadDirection {
    match direction {
        gst::PadDirection::Src => gst::PadDirection::Sink,
        _ => gst::PadDirection::Src,
    }
}

/// Sets one free-text value on its element.
fn apply(bin: &gst::Bin, setting: &Setting) -> Result<(), String> {
    let Setting { element: name, factory, property, value } = setting;
    let element = bin
        .by_name(name)
        .filter(|e| e.factory().is_some_and(|f| f.name() == factory.as_str()))
        .ok_or_else(|| format!("there is no {factory} named {name}"))?;
    let spec =
        element.find_property(property).ok_or_else(|| format!("{factory} has no property {property:?}"))?;
    let flags = spec.flags();
    if !flags.contains(glib::ParamFlags::WRITABLE) || flags.contains(glib::ParamFlags::CONSTRUCT_ONLY) {
        return Err(format!("the property {property:?} of {factory} cannot be set"));
    }
    let value = if spec.value_type() == glib::Type::STRING {
        value.to_value()
    } else {
        glib::Value::deserialize_with_pspec(value, &spec).map_err(|_| {
            format!("the property {property:?} of {factory} takes {}, not this text", spec.value_type())
        })?
    };
    element.set_property_from_value(property, &value);
    Ok(())
}

//! The templates that are built in, and a user's beside them: each can be launched with every value it offers.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use sonomask::media::launch::package_of;
use sonomask::media::template::{Kind, Live, Template, TemplateError, alternatives, builtin_names};

use super::{bound, builtin, required};

#[test]
fn every_builtin_launches_with_one_ghost_pad_and_only_known_packages() {
    gst::init().unwrap();
    for kind in [Kind::Source, Kind::Sink] {
        for name in builtin_names(kind) {
            let template = builtin(kind, name);
            assert!(!template.doc().is_empty(), "{name}");
            for element in template.elements() {
                for element in alternatives(&element) {
                    assert!(package_of(element).is_some(), "{name}: no package for {element}");
                }
            }
            let bin = template
                .bind(&required(&template))
                .unwrap()
                .launch()
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            let (pads, pad) = match kind {
                Kind::Source => (bin.src_pads(), "src"),
                Kind::Sink => (bin.sink_pads(), "sink"),
            };
            assert_eq!(pads.iter().map(|p| p.name().to_string()).collect::<Vec<_>>(), [pad], "{name}");
            assert_eq!(bin.pads().len(), 1, "{name} has pads on both sides");
        }
    }
}

#[test]
fn every_word_of_every_enum_is_accepted_by_its_element() {
    gst::init().unwrap();
    for kind in [Kind::Source, Kind::Sink] {
        for name in builtin_names(kind) {
            let template = builtin(kind, name);
            for spec in template.params() {
                let sonomask::media::template::ParamType::Enum(words) = &spec.ty else { continue };
                for word in words {
                    let mut params = required(&template);
                    params.set(&spec.name, word.as_str(), "test");
                    match template.bind(&params).unwrap().launch() {
                        Ok(_) => {}
                        // Not every machine has every window system; the hint must still be right.
                        Err(TemplateError::NoElement { package: Some(_), .. }) => {}
                        Err(e) => panic!("{name}.{} = {word}: {e}", spec.name),
                    }
                }
            }
        }
    }
}

#[test]
fn live_and_recording_sources_are_told_apart() {
    assert!(!bound(Kind::Source, "file", "path = 'x'").is_live());
    assert!(bound(Kind::Source, "v4l2", "").is_live());
    assert_eq!(builtin(Kind::Source, "test").live(), &Live::Param("is_live".to_owned()));
    assert!(bound(Kind::Source, "test", "").is_live());
    assert!(!bound(Kind::Source, "test", "is_live = false").is_live());
    let recording = bound(Kind::Sink, "record-mp4", "path = 'out.mp4'");
    assert_eq!(recording.records(), Some(Path::new("out.mp4")));
    assert_eq!(bound(Kind::Sink, "null", "").records(), None);
}

#[test]
fn elements_that_only_some_values_need_are_told_with_the_value() {
    let display = builtin(Kind::Sink, "display");
    assert_eq!(display.elements(), ["autovideosink", "videoconvert", "waylandsink"]);
    let choice = |element: &str, setting: &str| (element.to_owned(), setting.to_owned());
    let mut found = display.elements_by_choice();
    found.sort();
    let expected = [
        choice("glimagesink", "output = \"gl\""),
        choice("kmssink", "output = \"kms\""),
        choice("ximagesink", "output = \"x11\""),
        choice("xvimagesink", "output = \"xv\""),
    ];
    assert_eq!(found, expected);
    let mkv = builtin(Kind::Sink, "record-mkv").elements_by_choice();
    assert_eq!(mkv, [choice("avenc_ffv1", "codec = \"ffv1\"")]);
    let udp = builtin(Kind::Source, "udp").elements_by_choice();
    for element in ["rtph265depay", "rtpjpegdepay", "rtpmp2tdepay"] {
        assert!(udp.iter().any(|(e, _)| e == element), "{udp:?}");
    }
    assert!(builtin(Kind::Sink, "null").elements_by_choice().is_empty());
}

#[test]
fn a_users_template_is_found_and_shadows_a_builtin() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = [dir.path().join("absent"), dir.path().to_owned()];
    std::fs::write(dir.path().join("sink-null.launch"), "# Mine.\nfakesink\n").unwrap();
    std::fs::write(dir.path().join("sink-own.launch"), "identity ! fakesink\n").unwrap();
    assert_eq!(Template::find(Kind::Sink, "null", &dirs).unwrap().doc(), "Mine.");
    assert_eq!(Template::find(Kind::Sink, "own", &dirs).unwrap().elements(), ["fakesink", "identity"]);
    assert!(!Template::find(Kind::Sink, "null", &[]).unwrap().doc().contains("Mine"));
    assert_eq!(Template::all(Kind::Sink, &dirs).len(), 7);
    let missing = Template::find(Kind::Sink, "nil", &dirs).unwrap_err().to_string();
    assert!(missing.contains("no sink named \"nil\"; there are display, null, own, record-mkv"), "{missing}");
    assert!(matches!(Template::find(Kind::Sink, "../null", &dirs), Err(TemplateError::NotFound { .. })));
}

#[test]
fn rtp_and_srt_reach_their_sources() {
    gst::init().unwrap();
    for (sink, sink_toml, source, source_toml) in [
        ("rtp", "host = '127.0.0.1'\nport = 47311", "udp", "port = 47311\naddress = '127.0.0.1'"),
        ("srt", "uri = 'srt://127.0.0.1:47312'", "srt", "uri = 'srt://127.0.0.1:47312?mode=listener'"),
    ] {
        let receiver = gst::Pipeline::new();
        let appsink = gst_app::AppSink::builder().sync(false).build();
        let bin = bound(Kind::Source, source, source_toml).launch().unwrap();
        receiver.add_many([bin.upcast_ref::<gst::Element>(), appsink.upcast_ref()]).unwrap();
        bin.link(&appsink).unwrap();
        receiver.set_state(gst::State::Playing).unwrap();
        let sender = gst::Pipeline::new();
        let test = bound(Kind::Source, "test", "width = 160\nheight = 120").launch().unwrap();
        let out = bound(Kind::Sink, sink, sink_toml).launch().unwrap();
        sender.add_many([test.upcast_ref::<gst::Element>(), out.upcast_ref()]).unwrap();
        test.link(&out).unwrap();
        sender.set_state(gst::State::Playing).unwrap();
        for _ in 0..10 {
            let sample = appsink.try_pull_sample(gst::ClockTime::from_seconds(20));
            let sample = sample.unwrap_or_else(|| panic!("{sink}: nothing arrived"));
            assert_eq!(sample.caps().unwrap().structure(0).unwrap().get::<i32>("width").unwrap(), 160);
        }
        sender.set_state(gst::State::Null).unwrap();
        receiver.set_state(gst::State::Null).unwrap();
    }
}

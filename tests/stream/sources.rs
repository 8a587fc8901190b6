//! Sources that change their size, format or rate on the way, or break: what was good before stays good.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use sonomask::cine::{CineError, CineFrame, CineReader, Timing};
use sonomask::media::template::{Kind, Params, Template};
use sonomask::media::{Pace, SourcePipeline};
use sonomask::phantom::{PhantomConfig, PhantomReader};
use sonomask::pipeline::{Ended, run};
use sonomask::segment::SegmentError;
use sonomask::state::Reset;

use super::pts_of;
use crate::support::{
    OracleFactory, Out, Playback, Setup, assert_conserved, assert_masks_true, block_on, frames_of,
    phantom_config,
};

/// Eight frames, and eight larger ones after them.
fn growing() -> (PhantomConfig, Playback) {
    let small = phantom_config(8);
    let large = PhantomConfig { width: 200, height: 140, ..phantom_config(8) };
    let mut frames = std::collections::VecDeque::new();
    for config in [&small, &large] {
        let offset = if config.width == 200 { pts_of(&small, 8) } else { 0 };
        frames.extend(frames_of(config).into_iter().map(|mut frame| {
            frame.pts.0 += offset;
            frame
        }));
    }
    (small, Playback { frames, then: None })
}

#[test]
fn a_change_of_size_begins_a_new_epoch() {
    let (small, frames) = growing();
    // The stand-in answers with the truth of the smaller phantom, which does not fit the larger frames.
    let (finished, out) = Setup::default().reader(Box::new(frames), OracleFactory::new(&small, |_| Ok(())));
    assert_conserved(&finished, &out);
    assert_eq!(finished.report.resets, 1);
    assert_eq!(out.len(), 16);
    assert!(out[..8].iter().all(|o| o.caps.contains("160") && !o.regions.is_empty()));
    assert!(out[8..].iter().all(|o| o.caps.contains("200") && o.rgb.width == 200));
    assert!(
        out[8..].iter().all(|o| o.regions.is_empty()),
        "a mask of another size is never drawn or attached"
    );
}

#[test]
fn a_stream_that_begins_again_while_the_model_is_down_is_another_one() {
    let (small, frames) = growing();
    // It fails on the last of the small frames: the next that it sees is a large one.
    let factory = OracleFactory::new(&small, |call| match call {
        7 => Err(SegmentError::Other("no".into())),
        _ => Ok(()),
    });
    Setup::default().reader(Box::new(frames), factory.clone());
    let told = [None, None, Some(Reset::Model), Some(Reset::Stream)];
    assert_eq!(*factory.forgotten.lock(), told);
}

#[test]
fn a_change_of_format_begins_a_new_epoch_and_keeps_every_mask() {
    let config = phantom_config(10);
    let mut frames = frames_of(&config);
    for frame in frames.iter_mut().skip(5) {
        frame.data = frame.data.iter().flat_map(|&v| [v, v, v, 255]).collect();
        frame.format = sonomask::frame::PixelFormat::Rgbx;
    }
    let setup = Setup { gray: true, ..Setup::default() };
    let (finished, out) =
        setup.reader(Box::new(Playback { frames, then: None }), OracleFactory::new(&config, |_| Ok(())));
    assert_conserved(&finished, &out);
    assert_eq!((finished.report.resets, out.len()), (1, 10));
    assert!(
        out[..5].iter().all(|o| o.caps.contains("GRAY8")) && out[5..].iter().all(|o| o.caps.contains("RGBx"))
    );
    for (i, o) in out.iter().enumerate() {
        assert!(!o.regions.is_empty() && o.regions.iter().all(|r| r.1 == i as u64));
    }
    assert_masks_true(&out, &config);
}

#[test]
fn a_source_that_breaks_keeps_the_frames_before() {
    let config = phantom_config(6);
    let playback = Playback { frames: frames_of(&config), then: Some("the disk is gone".into()) };
    let (finished, out) = Setup::default().reader(
        Box::new(playback),
        OracleFactory::new(&config, |_| {
            std::thread::sleep(Duration::from_millis(60));
            Ok(())
        }),
    );
    assert_conserved(&finished, &out);
    assert_eq!(out.len(), 6, "frames before the break are good");
    assert!(
        matches!(&finished.report.ended, Ended::Failed(r) if r.contains("the disk is gone")),
        "{:?}",
        finished.report.ended
    );
}

#[test]
fn a_source_whose_first_frame_cannot_be_read_says_why() {
    let config = phantom_config(1);
    let playback = Playback { frames: Default::default(), then: Some("the disk is gone".into()) };
    let (finished, out) =
        Setup::default().reader(Box::new(playback), OracleFactory::new(&config, |_| Ok(())));
    assert!(out.is_empty());
    assert!(
        matches!(&finished.report.ended, Ended::Failed(r) if r.contains("the disk is gone")),
        "{:?}",
        finished.report.ended
    );
}

/// Panics where the frames of its inner reader end.
struct Panicking(Playback);

impl CineReader for Panicking {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn frames(&self) -> usize {
        self.0.frames()
    }
    fn timing(&self) -> Timing {
        self.0.timing()
    }
    fn next_frame(&mut self) -> Result<Option<CineFrame>, CineError> {
        let frame = self.0.next_frame()?;
        assert!(frame.is_some(), "deliberate panic of the test");
        Ok(frame)
    }
}

#[test]
fn a_reader_that_panics_keeps_the_frames_before() {
    let config = phantom_config(3);
    let reader = Panicking(Playback { frames: frames_of(&config), then: None });
    let (finished, out) = Setup::default().reader(Box::new(reader), OracleFactory::new(&config, |_| Ok(())));
    assert_conserved(&finished, &out);
    assert_eq!(out.len(), 3);
    assert!(
        matches!(&finished.report.ended, Ended::Failed(r) if r.contains("internal check")),
        "{:?}",
        finished.report.ended
    );
}

/// Gives a cine reader's frames another rate from the `from`-th on.
fn change_rate(source: &SourcePipeline, from: u32) {
    let pad =
        source.pipeline().by_name("reader").and_then(|e| e.static_pad("src")).expect("the reader's pad");
    let seen = AtomicU32::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
        if seen.fetch_add(1, Ordering::SeqCst) == from {
            let mut caps = pad.current_caps().expect("caps");
            caps.make_mut().set("framerate", gst::Fraction::new(60, 1));
            assert!(pad.push_event(gst::event::Caps::new(&caps)));
        }
        gst::PadProbeReturn::Ok
    });
}

#[test]
fn a_change_of_rate_alone_begins_a_new_epoch_and_keeps_every_mask() {
    gst::init().expect("GStreamer starts");
    let config = phantom_config(20);
    let reader = Box::new(PhantomReader::new(config.clone()).expect("a phantom"));
    let source = SourcePipeline::from_reader(reader, Pace::Fast, false).expect("a source");
    change_rate(&source, 12);
    let (finished, out) = Setup::default().source(source, OracleFactory::new(&config, |_| Ok(())));
    assert_conserved(&finished, &out);
    assert_eq!((finished.report.resets, out.len()), (1, 20));
    for (i, o) in out.iter().enumerate() {
        assert_eq!(o.caps.contains("framerate=(fraction)60/1"), i >= 12, "frame {i}: {}", o.caps);
        assert_eq!(o.pts, Some(pts_of(&config, i as u64)), "times stay the source's own");
        assert!(!o.regions.is_empty() && o.regions.iter().all(|r| r.1 == i as u64 && r.2 == 0));
    }
    assert_masks_true(&out, &config);
}

/// The built-in template `name` with these parameters.
fn template(kind: Kind, name: &str, toml: &str) -> gst::Bin {
    let params = Params::from_table(&toml.parse().expect("TOML"), Path::new(""), "test");
    let template = Template::builtin(kind, name).expect("there is one").expect("it parses");
    template.bind(&params).and_then(|bound| bound.launch()).expect("a bin")
}

/// What a player sees of a recording that `record` made of `source`, which had to go well.
#[track_caller]
fn recorded(record: &str, codec: &str, source: SourcePipeline) -> Vec<Out> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = format!("path = '{}'", dir.path().join("recorded").display());
    let setup = || Setup { max_restarts: 0, ..Setup::default() };
    let blind = || OracleFactory::new(&phantom_config(1), |_| Err(SegmentError::Other("blind".into())));
    let sink = template(Kind::Sink, record, &format!("{codec}\n{path}"));
    let run = run(setup().plan(source, sink, blind()), |_| {}, std::future::pending());
    assert_eq!(block_on(run).expect("a run").report.ended, Ended::EndOfStream, "{record} {codec}");
    let file = template(Kind::Source, "file", &path);
    let file = SourcePipeline::from_bin(file, false, Pace::Fast, true).expect("a source");
    setup().source(file, blind()).1
}

#[test]
fn a_recording_goes_on_when_the_source_changes_its_rate_and_its_format() {
    gst::init().expect("GStreamer starts");
    let config = phantom_config(15);
    for (record, codec) in [("record-mkv", ""), ("record-mkv", "codec = 'ffv1'"), ("record-mp4", "")] {
        let mut frames = frames_of(&config);
        for frame in frames.iter_mut().skip(10) {
            frame.data = frame.data.iter().flat_map(|&v| [v, v, v, 255]).collect();
            frame.format = sonomask::frame::PixelFormat::Rgbx;
        }
        let reader = Box::new(Playback { frames, then: None });
        let source = SourcePipeline::from_reader(reader, Pace::Fast, true).expect("a source");
        change_rate(&source, 5);
        let out = recorded(record, codec, source);
        assert_eq!(out.len(), 15, "{record} {codec}");
        assert!(out.iter().all(|o| o.caps == out[0].caps), "{record} {codec}: a file has one format");
        for (i, o) in out.iter().enumerate() {
            let error = o.pts.expect("a time").abs_diff(pts_of(&config, i as u64));
            // Half a tick of either file's clock.
            assert!(error <= 5_556, "{record} {codec}: frame {i} is {error} ns off");
            assert_eq!(o.stamp, Some(i as u64), "{record} {codec}");
        }
    }
}

#[test]
fn pixels_that_are_not_square_stay_the_sources() {
    gst::init().expect("GStreamer starts");
    for (record, codec) in [("record-mkv", ""), ("record-mkv", "codec = 'ffv1'"), ("record-mp4", "")] {
        let text = "videotestsrc num-buffers=3 pattern=white ! \
                    video/x-raw,format=I420,width=180,height=144,framerate=25/1,pixel-aspect-ratio=12/11 ! identity";
        let bin = gst::parse::bin_from_description(text, true).expect("a bin");
        let source = SourcePipeline::from_bin(bin, false, Pace::Fast, false).expect("a source");
        let out = recorded(record, codec, source);
        assert_eq!(out.len(), 3, "{record} {codec}");
        for o in &out {
            assert_eq!((o.rgb.width, o.rgb.height), (180, 144), "{record} {codec}");
            // Square pixels would need borders.
            let corners = [o.rgb.pixel(1, 1), o.rgb.pixel(178, 142)];
            assert!(corners.iter().flatten().all(|v| *v > 200), "{record} {codec}: {corners:?}");
        }
        // A player is told of them; Matroska knows the shape to the next whole pixel of the picture's width.
        assert!(
            !out[0].caps.contains("pixel-aspect-ratio=(fraction)1/1"),
            "{record} {codec}: {}",
            out[0].caps
        );
    }
}

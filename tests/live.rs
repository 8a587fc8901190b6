//! Live sources: latency, formats, clocks, metas, and a sink or a model that cannot keep up.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;
use sonomask::cine::CineReader;
use sonomask::media::{Pace, SourcePipeline};
use sonomask::overlay::Style;
use sonomask::phantom::PhantomReader;
use sonomask::pipeline::{DisplayMode, Ended, QueueMode, Snapshot, run};
use support::*;

fn bin(description: &str) -> gst::Bin {
    gst::init().expect("GStreamer starts");
    // Caps cannot stand at the end of a bin.
    gst::parse::bin_from_description(&format!("{description} ! identity"), true)
        .expect("a description that parses")
}

/// A source of these elements; `live` where they say so.
fn source(description: &str) -> SourcePipeline {
    let live = description.contains("is-live=true");
    let pace = if live { Pace::Realtime } else { Pace::Fast };
    SourcePipeline::from_bin(bin(description), live, pace, false).expect("a source")
}

fn live() -> Setup {
    Setup { display: DisplayMode::Latest, queue: QueueMode::Latest, pace: Pace::Realtime, ..Setup::default() }
}

/// Answers nothing: these tests are about the stream.
fn blind() -> Arc<OracleFactory> {
    OracleFactory::new(&phantom_config(1), |_| Err(sonomask::segment::SegmentError::Other("blind".into())))
}

#[test]
fn the_latency_query_is_answered_truthfully() {
    let source = source(
        "videotestsrc is-live=true num-buffers=40 ! video/x-raw,format=I420,width=160,height=120,framerate=20/1",
    );
    let (sink, out) = collect();
    let probe = sink.by_name("probe").and_then(|e| e.static_pad("sink")).expect("the probe's pad");
    let answers = Arc::new(Mutex::new(Vec::new()));
    let seen = answers.clone();
    let finished = block_on(run(
        live().plan(source, sink, blind()),
        move |_| {
            let mut query = gst::query::Latency::new();
            // Asked of the appsrc: a sink that does not sync answers for itself that it is not live.
            if probe.peer_query(&mut query) {
                seen.lock().push(query.result());
            }
        },
        std::future::pending(),
    ))
    .expect("a run");
    assert_conserved(&finished, &out.lock());
    let answers = answers.lock();
    let (is_live, min, _) = answers.iter().rev().find(|a| a.0).copied().expect("a live answer");
    assert!(is_live);
    // One frame of the source (50 ms) and the 20 ms that this plan declares for itself.
    assert!(min >= gst::ClockTime::from_mseconds(70), "{min}");
    let p999 = finished.report.capture_to_push_ms.p999;
    let own = min.mseconds() as f64 - 50.0;
    assert!(own + 10.0 >= p999.floor() || p999 < 20.0, "declared {own} ms, measured {p999} ms");
}

#[test]
fn every_format_passes_without_a_detour() {
    for (format, width, height) in [
        ("I420", 320, 240),
        ("NV12", 322, 242),
        ("RGBA", 101, 77),
        ("BGRx", 320, 240),
        ("BGRA", 99, 50),
        ("RGBx", 64, 64),
        ("I420", 161, 121),
        ("NV12", 161, 121),
        ("GRAY8", 163, 90),
    ] {
        let source = bin(&format!(
            "videotestsrc num-buffers=6 ! video/x-raw,format={format},width={width},height={height},framerate=25/1"
        ));
        let source = SourcePipeline::from_bin(source, false, Pace::Fast, true).expect("a source");
        let setup = Setup { style: Style::default(), max_restarts: 0, ..Setup::default() };
        let (finished, out) = setup.source(source, blind());
        assert_conserved(&finished, &out);
        assert_eq!(finished.report.ended, Ended::EndOfStream, "{format}");
        assert_eq!(out.len(), 6, "{format}");
        assert!(out.iter().all(|o| o.caps.contains(&format!("format=(string){format}"))), "{}", out[0].caps);
    }
}

#[test]
fn other_formats_are_converted() {
    let source =
        source("videotestsrc num-buffers=3 ! video/x-raw,format=UYVY,width=64,height=64 ! videoconvert");
    let (finished, out) = Setup::default().source(source, blind());
    assert_conserved(&finished, &out);
    assert_eq!(out.len(), 3);
}

#[test]
fn reference_timestamps_come_out_unchanged() {
    let source =
        bin("videotestsrc num-buffers=4 ! video/x-raw,format=I420,width=64,height=64 ! identity name=stamp");
    let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
    let pad = source.by_name("stamp").and_then(|e| e.static_pad("src")).expect("a pad");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let at = buffer.pts().unwrap_or_default() + gst::ClockTime::from_seconds(1_700_000_000);
            gst::ReferenceTimestampMeta::add(buffer.make_mut(), &unix, at, gst::ClockTime::NONE);
        }
        gst::PadProbeReturn::Ok
    });
    let source = SourcePipeline::from_bin(source, false, Pace::Fast, false).expect("a source");
    let (finished, out) = Setup::default().source(source, blind());
    assert_conserved(&finished, &out);
    assert!(out.iter().all(|o| o.reference_timestamps == 1));
}

/// As of a trimmed file, or of a transport stream that has run for an hour.
#[test]
fn times_count_from_the_start_of_the_sources_segment() {
    let start = gst::ClockTime::from_seconds(3600);
    let source = bin(
        "videotestsrc num-buffers=5 ! video/x-raw,format=I420,width=64,height=64,framerate=25/1 ! identity name=late",
    );
    let pad = source.by_name("late").and_then(|e| e.static_pad("src")).expect("a pad");
    pad.add_probe(gst::PadProbeType::DATA_DOWNSTREAM, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            // The first frame begins half of itself before the segment.
            let at = buffer.pts().map(|pts| pts + start - gst::ClockTime::from_mseconds(20));
            buffer.make_mut().set_pts(at);
        }
        if let Some(event) = info.event_mut()
            && event.type_() == gst::EventType::Segment
        {
            let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
            segment.set_start(start);
            segment.set_time(start);
            *event = gst::event::Segment::new(&segment);
        }
        gst::PadProbeReturn::Ok
    });
    let source = SourcePipeline::from_bin(source, false, Pace::Fast, false).expect("a source");
    let (finished, out) = Setup::default().source(source, blind());
    assert_conserved(&finished, &out);
    let times: Vec<_> = out.iter().filter_map(|o| o.pts).map(|t| t / 1_000_000).collect();
    assert_eq!(times, [0, 20, 60, 100, 140]);
}

#[test]
fn a_slow_sink_costs_counted_frames_not_latency() {
    let source = source(
        "videotestsrc is-live=true num-buffers=60 ! video/x-raw,format=I420,width=64,height=64,framerate=30/1",
    );
    let setup = Setup { slow_sink: Some(Duration::from_millis(120)), ..live() };
    let (finished, _) = setup.source(source, blind());
    let f = finished.report.frames;
    assert_eq!(f.entered, f.out + f.dropped, "{f:?}");
    assert!(f.dropped_display > 15, "{f:?}");
}

#[test]
fn interrupting_a_live_run_counts_what_was_under_way() {
    let config = phantom_config(2000);
    let reader = Box::new(PhantomReader::new(config.clone()).expect("a phantom"));
    assert!(reader.frames() == 2000);
    let source = SourcePipeline::from_reader(reader, Pace::Realtime, false).expect("a source");
    let setup = Setup { patience: Some(Duration::from_millis(700)), ..live() };
    let (finished, out) = setup.source(source, OracleFactory::new(&config, |_| Ok(())));
    assert_eq!(finished.report.ended, Ended::Interrupted);
    let f = finished.report.frames;
    assert_eq!(f.entered, f.out + f.dropped, "{f:?}");
    assert!(f.out >= 10 && f.out <= 30, "{f:?}");
    assert!(out.len() <= f.out as usize);
}

#[test]
fn a_sink_that_takes_nothing_does_not_keep_a_stopped_run_from_ending() {
    // Frames a second, and how many came before the stop: more than there is room for, or no more than the appsrc holds.
    for (display, rate, enough) in
        [(DisplayMode::Paired, 30, 20), (DisplayMode::Latest, 30, 20), (DisplayMode::Latest, 2, 2)]
    {
        let source = source(&format!(
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=64,framerate={rate}/1"
        ));
        // Full after one frame, and nobody pulls.
        let sink =
            gst::parse::bin_from_description("appsink max-buffers=1 sync=false", true).expect("a sink");
        let plan = Setup { display, ..live() }.plan(source, sink, blind());
        let stop = tokio::sync::Notify::new();
        let observe = |now: &Snapshot| {
            if now.frames.entered >= enough {
                stop.notify_one();
            }
        };
        let finished = block_on(async {
            tokio::time::timeout(Duration::from_secs(40), run(plan, observe, stop.notified())).await
        });
        let finished = finished.expect("it ends").expect("a run");
        let Ended::Failed(reason) = &finished.report.ended else { panic!("{:?}", finished.report.ended) };
        assert!(reason.contains("within 5 s"), "{reason}");
        let f = finished.report.frames;
        assert_eq!(f.entered, f.out + f.dropped, "{f:?}");
        assert!(f.entered >= enough, "{f:?}");
    }
}

#[test]
fn a_source_without_frames_is_an_error() {
    let source = source("videotestsrc num-buffers=0 ! video/x-raw,format=I420");
    let (finished, _) = Setup::default().source(source, blind());
    assert!(
        matches!(&finished.report.ended, Ended::Failed(r) if r.contains("no frame")),
        "{:?}",
        finished.report.ended
    );
}

#[test]
fn garbage_is_one_clear_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("garbage.mp4");
    std::fs::write(&file, [0x5a; 5000]).expect("a file");
    let source = source(&format!("filesrc location={} ! decodebin ! videoconvert", file.display()));
    let (finished, _) = Setup::default().source(source, blind());
    let Ended::Failed(reason) = &finished.report.ended else { panic!("{:?}", finished.report.ended) };
    assert!(!reason.is_empty(), "{reason}");
    assert_eq!(finished.report.frames.entered, 0);
}

#[test]
fn a_lost_source_is_started_again_as_a_new_epoch() {
    let source = source(
        "videotestsrc is-live=true do-timestamp=true ! video/x-raw,format=I420,width=64,height=64,framerate=30/1 \
                      ! identity error-after=15",
    );
    let setup = Setup {
        reconnect: Some(Duration::from_millis(150)),
        patience: Some(Duration::from_secs(3)),
        ..live()
    };
    let (finished, out) = setup.source(source, blind());
    assert_eq!(finished.report.ended, Ended::Interrupted);
    let f = finished.report.frames;
    assert_eq!(f.entered, f.out + f.dropped, "{f:?}");
    assert!(finished.report.resets >= 2, "{} restarts", finished.report.resets);
    assert!(f.entered > 30, "frames go on after the loss: {f:?}");
    assert!(out.windows(2).all(|w| w[0].pts < w[1].pts), "one clock and one base time over all restarts");
}

#[test]
fn without_reconnecting_a_lost_source_ends_the_run() {
    let source = source(
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=64 ! identity error-after=10",
    );
    let (finished, _) = live().source(source, blind());
    assert!(matches!(finished.report.ended, Ended::Failed(_)), "{:?}", finished.report.ended);
    let f = finished.report.frames;
    assert_eq!(f.entered, f.out + f.dropped, "{f:?}");
}

/// A camera whose frames 15 to 59 never arrive: one and a half seconds of silence.
fn interrupted_camera(format: &str) -> SourcePipeline {
    let source = bin(&format!(
        "videotestsrc is-live=true num-buffers=90 pattern=white ! video/x-raw,format={format},width=161,height=121,framerate=30/1 \
         ! valve name=gate"
    ));
    let gate = source.by_name("gate").expect("the gate");
    let pad = gate.static_pad("sink").expect("a pad");
    let (gate, seen) = (gate.downgrade(), AtomicU32::new(0));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let silent = (15..60).contains(&seen.fetch_add(1, Ordering::SeqCst));
        if let Some(gate) = gate.upgrade() {
            gate.set_property("drop", silent);
        }
        gst::PadProbeReturn::Ok
    });
    SourcePipeline::from_bin(source, true, Pace::Realtime, true).expect("a source")
}

/// Of a white picture only a slate has black or gray in its corner.
fn is_slate(out: &Out) -> bool {
    out.rgb.pixel(2, 2).iter().all(|v| *v < 100)
}

#[test]
fn a_silent_source_shows_no_signal_until_frames_come_again() {
    for format in ["I420", "RGBA", "GRAY8"] {
        let setup = Setup { no_signal: Some(Duration::from_millis(300)), max_restarts: 0, ..live() };
        let (finished, out) = setup.source(interrupted_camera(format), blind());
        assert_conserved(&finished, &out);
        let f = finished.report.frames;
        assert_eq!((f.entered, f.out, f.dropped), (45, 45, 0), "{format}: slates are no frames: {f:?}");
        assert_eq!(finished.report.resets, 0, "{format}");
        let slates: Vec<usize> = (0..out.len()).filter(|&i| is_slate(&out[i])).collect();
        assert_eq!(slates.len() as u64, f.slates, "{format}");
        // At 0.3, 0.8 and 1.3 s of silence; one fewer where the machine is slow.
        assert!((2..=3).contains(&slates.len()), "{format}: {slates:?}");
        assert!(
            slates.iter().enumerate().all(|(i, at)| *at == 15 + i),
            "{format}: after the last frame before the silence, and none once frames come again: {slates:?}"
        );
        assert!(out.iter().all(|o| o.caps == out[0].caps), "{format}: a slate has the stream's caps");
        assert!(out.windows(2).all(|w| w[0].pts < w[1].pts), "{format}: times rise");
        assert!(
            out[15].rgb != out[14].rgb && out[15].rgb.data.iter().any(|v| *v > 200),
            "there is text on it"
        );
    }
}

/// Frames that nothing is drawn on go past the compositor, which has to speak up nevertheless.
#[test]
fn a_silent_source_that_merely_passes_shows_no_signal_as_well() {
    let (sink, out) = collect();
    let setup = Setup { no_signal: Some(Duration::from_millis(300)), ..live() };
    let mut plan = setup.plan(interrupted_camera("I420"), sink, blind());
    plan.model = None;
    let finished = block_on(run(plan, |_| {}, std::future::pending())).expect("a run");
    let out = out.lock();
    assert_conserved(&finished, &out);
    let slates: Vec<usize> = (0..out.len()).filter(|&i| is_slate(&out[i])).collect();
    // At 0.3, 0.8 and 1.3 s of silence; one fewer where the machine is slow.
    assert!((2..=3).contains(&slates.len()), "{slates:?}");
    assert!(slates.iter().enumerate().all(|(i, at)| *at == 15 + i), "{slates:?}");
}

#[test]
fn silence_is_left_alone_where_no_slate_is_wanted() {
    let setup = Setup { max_restarts: 0, ..live() };
    let (finished, out) = setup.source(interrupted_camera("I420"), blind());
    assert_conserved(&finished, &out);
    assert_eq!((finished.report.frames.slates, out.len()), (0, 45));
    // A recording ends its silence by itself, however slow its reader is.
    let config = phantom_config(3);
    let slow = Setup {
        no_signal: Some(Duration::from_millis(100)),
        slow_sink: Some(Duration::from_millis(400)),
        ..Setup::default()
    };
    let (finished, out) = slow.phantom(&config, OracleFactory::new(&config, |_| Ok(())));
    assert_conserved(&finished, &out);
    assert_eq!((finished.report.frames.slates, out.len()), (0, 3));
}

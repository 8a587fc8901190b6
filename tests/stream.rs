//! The running system, end to end through real GStreamer, on the phantom.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use sonomask::cine::{CineError, CineFrame, CineReader, Timing};
use sonomask::media::template::{Kind, Params, Template};
use sonomask::media::{Pace, SourcePipeline};
use sonomask::overlay::Style;
use sonomask::phantom::{Phantom, PhantomConfig, PhantomReader};
use sonomask::pipeline::{DisplayMode, Ended, QueueMode, run};
use sonomask::segment::SegmentError;
use sonomask::state::Reset;
use support::*;

fn pts_of(config: &PhantomConfig, index: u64) -> u64 {
    Phantom::new(config.clone()).expect("a phantom").pts(index).0
}

#[test]
fn paired_recording_gives_every_frame_its_own_mask() {
    let config = phantom_config(40);
    let (finished, out) = Setup::default().phantom(&config, OracleFactory::new(&config, |_| Ok(())));
    assert_conserved(&finished, &out);
    assert_eq!(finished.report.ended, Ended::EndOfStream);
    let f = finished.report.frames;
    assert_eq!((f.entered, f.out, f.segmented, f.passed_through), (40, 40, 40, 0));
    for (i, o) in out.iter().enumerate() {
        let i = i as u64;
        assert_eq!(o.pts, Some(pts_of(&config, i)), "PTS out equals PTS in");
        assert_eq!(o.duration, Some(pts_of(&config, i + 1) - pts_of(&config, i)));
        assert_eq!(o.stamp, Some(i), "the picture is the frame its PTS says");
        assert!(!o.regions.is_empty());
        assert!(
            o.regions.iter().all(|(_, frame, age, _)| *frame == i && *age == 0),
            "frame {i}: {:?}",
            o.pts
        );
    }
    assert_masks_true(&out, &config);
}

#[test]
fn drawn_pixels_are_those_of_the_frames_own_truth() {
    let config = PhantomConfig { stamp: true, ..phantom_config(12) };
    let style = Style { fill: true, fill_alpha: 1.0, ..Style::off() };
    let (_, drawn) =
        Setup { style, ..Setup::default() }.phantom(&config, OracleFactory::new(&config, |_| Ok(())));
    let (_, plain) = Setup::default().phantom(&config, OracleFactory::new(&config, |_| Ok(())));
    assert_eq!(drawn.len(), 12);
    for (d, p) in drawn.iter().zip(&plain) {
        let mut changed = 0;
        for y in 0..d.rgb.height {
            for x in 0..d.rgb.width {
                let masked = d.regions.iter().any(|(.., m)| m.get(x, y));
                // Chroma of a 2x2 block is shared with its neighbours, luma is not: green carries most of it.
                let near = d.regions.iter().any(|(.., m)| {
                    (x.saturating_sub(1)..=x + 1).any(|x| (y.saturating_sub(1)..=y + 1).any(|y| m.get(x, y)))
                });
                if !near {
                    assert_eq!(d.rgb.pixel(x, y), p.rgb.pixel(x, y), "({x},{y}) lies outside every mask");
                }
                changed += usize::from(masked && d.rgb.pixel(x, y) != p.rgb.pixel(x, y));
            }
        }
        let area: usize = d.regions.iter().map(|(.., m)| m.area()).sum();
        assert!(area > 100 && changed * 100 >= area * 98, "{changed} of {area} masked pixels were drawn");
    }
}

#[test]
fn latest_mode_keeps_the_source_rate_and_ages_its_masks() {
    let config = phantom_config(60);
    let factory = OracleFactory::new(&config, |_| {
        std::thread::sleep(Duration::from_millis(70));
        Ok(())
    });
    let setup = Setup {
        display: DisplayMode::Latest,
        queue: QueueMode::Latest,
        pace: Pace::Realtime,
        max_mask_age: Duration::from_millis(150),
        ..Setup::default()
    };
    let (finished, out) = setup.phantom(&config, factory);
    assert_conserved(&finished, &out);
    let f = finished.report.frames;
    assert_eq!((f.entered, f.out), (60, 60), "no frame waits for the model: {f:?}");
    assert!(f.segmented < 45 && f.not_segmented > 10, "{f:?}");
    assert_masks_true(&out, &config);
    let mut aged = 0;
    for o in &out {
        let shown = o.stamp.expect("a readable stamp");
        for (_, frame, age, _) in &o.regions {
            assert!(*frame <= shown);
            assert!(*age <= 150_000_000, "age {age}");
            assert_eq!(*age == 0, *frame == shown);
            aged += u32::from(*age > 0);
        }
    }
    assert!(aged > 20, "{aged} aged masks");
}

#[test]
fn an_old_mask_is_withdrawn() {
    let config = phantom_config(45);
    // Answers for the first frame, then is busy for longer than the mask may live.
    let factory = OracleFactory::new(&config, |call| {
        std::thread::sleep(Duration::from_millis(if call == 0 { 0 } else { 900 }));
        Ok(())
    });
    let setup = Setup {
        display: DisplayMode::Latest,
        queue: QueueMode::Latest,
        pace: Pace::Realtime,
        max_mask_age: Duration::from_millis(200),
        ..Setup::default()
    };
    let (finished, out) = setup.phantom(&config, factory);
    assert_conserved(&finished, &out);
    // On a busy machine the first answer is not that of the first frame.
    let first = out.iter().flat_map(|o| &o.regions).map(|r| r.1).min().expect("an answer");
    let with_first: Vec<u64> =
        out.iter().filter(|o| o.regions.iter().any(|r| r.1 == first)).filter_map(|o| o.stamp).collect();
    assert!(
        with_first.iter().all(|&i| i <= first + 10),
        "the mask of frame {first} is still on frame {with_first:?}"
    );
    assert!(finished.report.frames.passed_through > 10, "{:?}", finished.report.frames);
}

#[test]
fn paired_live_drops_what_the_model_cannot_take_and_counts_it() {
    let config = phantom_config(45);
    let factory = OracleFactory::new(&config, |_| {
        std::thread::sleep(Duration::from_millis(90));
        Ok(())
    });
    let setup = Setup { queue: QueueMode::Latest, pace: Pace::Realtime, ..Setup::default() };
    let (finished, out) = setup.phantom(&config, factory);
    assert_conserved(&finished, &out);
    let f = finished.report.frames;
    assert_eq!(f.entered, 45);
    assert!(f.dropped_model >= 15, "{f:?}");
    assert!(out.iter().all(|o| o.regions.iter().all(|r| Some(r.1) == o.stamp && r.2 == 0)));
    assert!(out.windows(2).all(|w| w[0].pts < w[1].pts), "order is kept");
}

#[test]
fn a_model_that_never_answered_has_nothing_to_forget() {
    let config = phantom_config(8);
    for (bad, expected) in [(0, vec![None, None]), (3, vec![None, None, Some(Reset::Model)])] {
        let factory = OracleFactory::new(&config, move |call| match call == bad {
            true => Err(SegmentError::Other("no".into())),
            false => Ok(()),
        });
        let (finished, _) = Setup::default().phantom(&config, factory.clone());
        assert_eq!(finished.report.frames.passed_through, 1);
        assert_eq!(*factory.forgotten.lock(), expected, "the {bad}-th frame fails");
    }
}

/// A recording in which the model fails on its sixth frame loses that frame's masks, and nothing else.
#[track_caller]
fn one_bad_frame(mischief: impl Fn(u32) -> Result<(), SegmentError> + Send + Sync + 'static, reason: &str) {
    let config = phantom_config(20);
    one_bad_frame_of(&config, OracleFactory::new(&config, mischief), reason);
}

#[track_caller]
fn one_bad_frame_of(config: &PhantomConfig, factory: Arc<OracleFactory>, reason: &str) {
    // A backtrace of the panic may take half a second on a loaded machine.
    let setup = Setup { watchdog: Duration::from_secs(2), ..Setup::default() };
    let (finished, out) = setup.phantom(config, factory);
    assert_conserved(&finished, &out);
    let f = finished.report.frames;
    assert_eq!((f.entered, f.out, f.passed_through), (20, 20, 1), "{f:?}");
    let bare: Vec<_> = out.iter().filter(|o| o.regions.is_empty()).filter_map(|o| o.stamp).collect();
    assert_eq!(bare, [5]);
    assert_masks_true(&out, config);
    let events = &finished.report.ai_off;
    assert_eq!(events.len(), 1, "the reason is noted once: {events:?}");
    assert!(events[0].reason.contains(reason), "{events:?}");
}

#[test]
fn a_panic_passes_one_frame_through() {
    one_bad_frame(
        |call| if call == 5 { panic!("deliberate panic of the test") } else { Ok(()) },
        "deliberate panic",
    );
}

#[test]
fn a_panic_after_the_answer_passes_one_frame_through() {
    let config = phantom_config(20);
    let afterwards = |call| if call == 5 { panic!("deliberate panic of the test") } else { Ok(()) };
    let factory = OracleFactory::with(&config, Arc::new(|_| Ok(())), Arc::new(afterwards));
    one_bad_frame_of(&config, factory, "deliberate panic");
}

#[test]
fn an_error_passes_one_frame_through() {
    one_bad_frame(
        |call| if call == 5 { Err(SegmentError::Other("out of memory".into())) } else { Ok(()) },
        "out of memory",
    );
}

#[test]
fn non_finite_logits_pass_one_frame_through() {
    one_bad_frame(
        |call| if call == 5 { Err(SegmentError::NonFinite { what: "logits", class: 0 }) } else { Ok(()) },
        "non-finite logits",
    );
}

#[test]
fn a_stuck_worker_is_replaced() {
    one_bad_frame(
        |call| {
            if call == 5 {
                std::thread::sleep(Duration::from_secs(8));
            }
            Ok(())
        },
        "stuck",
    );
}

#[test]
fn a_model_that_never_works_leaves_the_whole_video() {
    let config = phantom_config(30);
    let setup = Setup { max_restarts: 2, ..Setup::default() };
    let factory = OracleFactory::new(&config, |_| Err(SegmentError::Other("broken".into())));
    let (finished, out) = setup.phantom(&config, factory.clone());
    assert_conserved(&finished, &out);
    assert_eq!(finished.report.frames.out, 30);
    assert_eq!(finished.report.frames.passed_through, 30);
    assert_eq!(factory.makes.load(Ordering::SeqCst), 3, "one start and two restarts");
}

#[test]
fn a_live_picture_does_not_wait_for_a_model_that_hangs() {
    let config = phantom_config(45);
    let factory = OracleFactory::new(&config, |call| {
        if call == 3 {
            std::thread::sleep(Duration::from_secs(4));
        }
        Ok(())
    });
    let setup = Setup {
        display: DisplayMode::Latest,
        queue: QueueMode::Latest,
        pace: Pace::Realtime,
        watchdog: Duration::from_millis(300),
        ..Setup::default()
    };
    let (finished, out) = setup.phantom(&config, factory);
    assert_conserved(&finished, &out);
    assert_eq!(finished.report.frames.out, 45);
    // 45 frames at 30 frames/s: the run takes 1.5 s however long the model hangs.
    assert!(
        finished.report.ai_off.iter().any(|e| e.reason.contains("stuck")),
        "{:?}",
        finished.report.ai_off
    );
    assert!(out.iter().rev().take(5).any(|o| !o.regions.is_empty()), "masks come back after the restart");
}

#[test]
#[cfg(target_os = "linux")]
fn the_model_gives_way_to_a_live_picture_and_to_no_recording() {
    // SAFETY: it takes numbers alone; 0 is the calling thread.
    let niceness = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let config = phantom_config(10);
    for (queue, more) in [(QueueMode::Latest, 10), (QueueMode::Lossless, 0)] {
        let seen = Arc::new(AtomicI32::new(-1));
        let of_model = seen.clone();
        let factory = OracleFactory::new(&config, move |_| {
            of_model.store(niceness(), Ordering::SeqCst);
            Ok(())
        });
        Setup { queue, pace: Pace::Realtime, ..Setup::default() }.phantom(&config, factory);
        assert_eq!(seen.load(Ordering::SeqCst), (niceness() + more).min(19), "{queue:?}");
    }
}

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

/// A display that lags behind the model shows each frame the newest mask that is not of a later frame.
#[test]
fn a_slow_display_still_finds_masks_of_its_frames() {
    let config = phantom_config(40);
    let setup = Setup {
        display: DisplayMode::Latest,
        queue: QueueMode::Latest,
        pace: Pace::Realtime,
        max_mask_age: Duration::from_secs(5),
        slow_sink: Some(Duration::from_millis(80)),
        ..Setup::default()
    };
    let (finished, out) = setup.phantom(&config, OracleFactory::new(&config, |_| Ok(())));
    let f = finished.report.frames;
    assert_eq!(f.entered, f.out + f.dropped, "{f:?}");
    assert!(f.dropped_display > 5, "{f:?}");
    // On a busy machine the first answer comes late.
    let after: Vec<_> = out.iter().skip_while(|o| o.regions.is_empty()).collect();
    let bare = after.iter().filter(|o| o.regions.is_empty()).count();
    assert!(after.len() > 5 && bare == 0, "{bare} of {} frames, {} in all", after.len(), out.len());
    assert_masks_true(&out, &config);
}

/// With the model off, a paired live stream into a slow sink loses frames, not seconds.
#[test]
fn a_slow_sink_does_not_make_a_paired_live_stream_late() {
    let config = phantom_config(60);
    let setup = Setup {
        queue: QueueMode::Latest,
        pace: Pace::Realtime,
        max_restarts: 0,
        slow_sink: Some(Duration::from_millis(150)),
        ..Setup::default()
    };
    let factory = OracleFactory::new(&config, |_| Err(SegmentError::Other("broken".into())));
    let (finished, _) = setup.phantom(&config, factory);
    let f = finished.report.frames;
    assert_eq!(f.entered, f.out + f.dropped, "{f:?}");
    // Of 60 frames in two seconds the sink takes about 14, and at most a handful may wait.
    assert!(f.out < 30 && f.dropped_display > 20, "{f:?}");
    assert_eq!(finished.report.ai_off.len(), 1, "one failure is one event");
}

/// A sink that keeps up with nobody gets every frame of a recording, on the straight way past the compositor, too.
#[test]
fn a_slow_sink_takes_every_frame_of_a_recording_without_a_model() {
    let config = phantom_config(40);
    let setup = Setup { max_restarts: 0, slow_sink: Some(Duration::from_millis(15)), ..Setup::default() };
    let factory = OracleFactory::new(&config, |_| Err(SegmentError::Other("broken".into())));
    let (finished, out) = setup.phantom(&config, factory);
    assert_conserved(&finished, &out);
    let stamps: Vec<_> = out.iter().map(|o| o.stamp).collect();
    assert_eq!(stamps, (0..40).map(Some).collect::<Vec<_>>(), "every frame, in order");
    assert_eq!(finished.report.capture_to_push_ms.count, 40, "every frame's times are recorded");
}

/// libtorch itself refuses the memory: the error of its allocator, through the real worker.
#[test]
fn a_model_that_gets_no_memory_turns_the_ai_off() {
    let config = phantom_config(20);
    let setup = Setup { max_restarts: 0, ..Setup::default() };
    let factory = OracleFactory::new(&config, |call| {
        // Four pebibytes: more than any address space has.
        let floats = if call < 5 { 1 } else { 1 << 50 };
        let _held = tch::Tensor::f_zeros([floats], (tch::Kind::Float, tch::Device::Cpu))?;
        Ok(())
    });
    let (finished, out) = setup.phantom(&config, factory);
    assert_conserved(&finished, &out);
    let f = finished.report.frames;
    assert_eq!((f.out, f.segmented, f.passed_through), (20, 5, 15), "{f:?}");
    assert_eq!(finished.report.ended, Ended::EndOfStream);
    assert!(out[5..].iter().all(|o| o.regions.is_empty()));
    let [event] = &finished.report.ai_off[..] else { panic!("{:?}", finished.report.ai_off) };
    assert!(event.reason.contains("allocate memory"), "{}", event.reason);
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

/// What waits for the model when a run is stopped was dropped: the model is not asked for it any more, however long the sink takes.
#[test]
fn a_stopped_run_asks_the_model_for_nothing_more() {
    let config = phantom_config(40);
    let stop = Arc::new(tokio::sync::Notify::new());
    let of_model = stop.clone();
    let factory = OracleFactory::new(&config, move |call| {
        // Others wait behind it, because the sink is slower than the model.
        if call == 4 {
            of_model.notify_one();
        }
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    });
    let (sink, out) = collect();
    let pad = sink.by_name("probe").and_then(|e| e.static_pad("sink")).expect("the probe's pad");
    pad.add_probe(gst::PadProbeType::BUFFER, |_, _| {
        std::thread::sleep(Duration::from_millis(800));
        gst::PadProbeReturn::Ok
    });
    let reader = Box::new(PhantomReader::new(config.clone()).expect("a phantom"));
    let source = SourcePipeline::from_reader(reader, Pace::Fast, false).expect("a source");
    let plan = Setup::default().plan(source, sink, factory.clone());
    let finished = block_on(run(plan, |_| {}, stop.notified())).expect("a run");
    assert_eq!(finished.report.ended, Ended::Interrupted);
    assert_conserved(&finished, &out.lock());
    let calls = factory.calls.load(Ordering::SeqCst);
    // The fifth, and one or two more where the machine is slow; three wait in the queue.
    assert!((5..=7).contains(&calls), "{calls} frames");
}

#[test]
fn a_plan_that_never_plays_ends() {
    let config = phantom_config(40);
    let (sink, _) = collect();
    let reader = Box::new(PhantomReader::new(config.clone()).expect("a phantom"));
    let source = SourcePipeline::from_reader(reader, Pace::Fast, false).expect("a source");
    drop(Setup::default().plan(source, sink, OracleFactory::new(&config, |_| Ok(()))));
}

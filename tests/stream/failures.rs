//! A model that fails, hangs, gets no memory or is stopped: the video goes on, and what was lost is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use sonomask::media::{Pace, SourcePipeline};
use sonomask::phantom::{PhantomConfig, PhantomReader};
use sonomask::pipeline::{DisplayMode, Ended, QueueMode, run};
use sonomask::segment::SegmentError;
use sonomask::state::Reset;

use crate::support::{
    OracleFactory, Setup, assert_conserved, assert_masks_true, block_on, collect, phantom_config,
};

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

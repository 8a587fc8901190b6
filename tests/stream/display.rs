//! Which frames leave and which masks they carry, when the model or the display is fast or slow.

use std::time::Duration;

use sonomask::media::Pace;
use sonomask::overlay::Style;
use sonomask::phantom::PhantomConfig;
use sonomask::pipeline::{DisplayMode, Ended, QueueMode};
use sonomask::segment::SegmentError;

use super::pts_of;
use crate::support::{OracleFactory, Setup, assert_conserved, assert_masks_true, phantom_config};

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

//! What changes from frame to frame: pulse, motion, speckle, cuts and freezes, the same at every repetition.

use sonomask::mask::Mask;
use sonomask::phantom::{FrameRange, PhantomClass, PhantomConfig, PhantomFrame, read_stamp};

use super::{grown, level, phantom, sector, small, still, truth};

/// Pearson correlation of the gray levels of `a` at `x + dx` with those of `b` at `x`, over a rectangle of `b`.
fn correlation(
    a: &PhantomFrame,
    b: &PhantomFrame,
    width: usize,
    dx: isize,
    xs: [usize; 2],
    ys: [usize; 2],
) -> f64 {
    let mut pairs = Vec::new();
    for y in ys[0]..ys[1] {
        for x in xs[0]..xs[1] {
            let from = x.checked_add_signed(dx).unwrap();
            pairs.push((f64::from(a.image[y * width + from]), f64::from(b.image[y * width + x])));
        }
    }
    let n = pairs.len() as f64;
    let (ma, mb) = (pairs.iter().map(|p| p.0).sum::<f64>() / n, pairs.iter().map(|p| p.1).sum::<f64>() / n);
    let sum = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>();
    let cov = sum(&|p| (p.0 - ma) * (p.1 - mb));
    cov / (sum(&|p| (p.0 - ma).powi(2)) * sum(&|p| (p.1 - mb).powi(2))).sqrt()
}

#[test]
fn equal_settings_give_equal_bytes_in_any_order() {
    for config in [small(), PhantomConfig { stamp: true, scene_cut: Some(5), ..sector() }] {
        let mut first = phantom(&config);
        let forward: Vec<_> = (0..8).map(|i| first.frame(i)).collect();
        let mut second = phantom(&config);
        for i in [7, 0, 3, 3, 6, 1, 5] {
            assert!(second.frame(i) == forward[i as usize], "frame {i} differs when asked for out of order");
        }
        assert!(forward.windows(2).all(|w| w[0].image != w[1].image), "two frames in a row are the same");
        let other = phantom(&PhantomConfig { seed: config.seed + 1, ..config }).frame(0);
        assert_ne!(other.image, forward[0].image);
        assert_ne!(other.truth, forward[0].truth, "another seed is another patient");
    }
}

#[test]
fn the_vessel_pulsates_with_the_heart_rate() {
    // 60 beats a minute at 20 frames a second: a period of 20 frames, exactly.
    let config = PhantomConfig { pulse_bpm: 60.0, fps: 20.0, ..still() };
    let p = phantom(&config);
    let area = |i: u64, class: usize| p.truth(i)[class].mask.area();
    let areas: Vec<usize> = (0..40).map(|i| area(i, 1)).collect();
    assert_eq!(areas[..20], areas[20..]);
    let (min, max) = (*areas.iter().min().unwrap(), *areas.iter().max().unwrap());
    // 12 % in radius are 25.4 % in area; the rest is counting pixels.
    let growth = max as f64 / min as f64;
    assert!((growth - 1.254).abs() < 0.02, "area grows by {growth:.3}");
    // Rises for a quarter of the beat, falls for the rest, once.
    assert_eq!((areas[0], areas[5]), (min, max));
    assert!(areas[..6].is_sorted() && areas[5..20].iter().rev().is_sorted(), "{areas:?}");
    assert!((0..20).all(|i| area(i, 2) == area(0, 2)), "bone does not pulsate");
    let flat = phantom(&PhantomConfig { pulse_fraction: 0.0, ..config });
    assert_eq!(flat.truth(0), flat.truth(5));
}

#[test]
fn speckle_and_truth_move_with_the_tissue() {
    // 240 rows for 40 mm: 6 px a millimetre. At a quarter of the cycle the probe is 2 mm to the right.
    let config = PhantomConfig { motion_mm: 2.0, motion_hz: 1.0, fps: 4.0, ..still() };
    let mut p = phantom(&config);
    let (a, b) = (p.frame(0), p.frame(1));
    let (xs, ys) = ([90, 200], [60, 130]);
    // Axially the probe has moved too: 0.4 mm times sin(1.7 * 90 deg), 1.1 px. Compare where the rows agree best.
    let shifted = |dx: isize, dy: usize| {
        let mut moved = b.clone();
        moved.image.rotate_right(dy * config.width);
        correlation(&a, &moved, config.width, dx, xs, ys)
    };
    let best = (-20..=20)
        .flat_map(|dx| (0..3).map(move |dy| (dx, dy)))
        .max_by(|&l, &r| shifted(l.0, l.1).total_cmp(&shifted(r.0, r.1)))
        .unwrap();
    assert_eq!(best, (12, 1), "correlation {:.3}", shifted(best.0, best.1));
    assert!(shifted(12, 1) > 0.9, "tissue loses its speckle on the way: {:.3}", shifted(12, 1));
    assert!(shifted(0, 0) < 0.5, "speckle stays where it was: {:.3}", shifted(0, 0));

    for class in [PhantomClass::Nerve, PhantomClass::Vessel] {
        let (before, after) = (truth(&a, class), truth(&b, class));
        let mut moved = Mask::empty(config.width, config.height);
        for y in 0..config.height {
            for x in 0..config.width {
                moved.set(x, y, before.get(x + 12, y + 1));
            }
        }
        let (with, without) = (moved.dice(after).unwrap(), before.dice(after).unwrap());
        assert!(with > 0.99 && without < 0.9, "{class:?}: Dice {with:.3} moved, {without:.3} not moved");
    }
}

#[test]
fn speckle_decorrelates_only_when_asked() {
    let area = ([100, 220], [40, 75]);
    let after = |rate: f64| {
        let config = PhantomConfig { decorrelation_rate: rate, ..still() };
        let mut p = phantom(&config);
        let (a, b) = (p.frame(0), p.frame(30));
        correlation(&a, &b, config.width, 0, area.0, area.1)
    };
    let (none, some, all) = (after(0.0), after(0.5), after(5.0));
    assert!(none > 0.98, "without decorrelation only noise changes: {none:.3}");
    assert!(some < none - 0.1 && all < some - 0.1, "{none:.3} {some:.3} {all:.3}");
}

#[test]
fn out_of_the_plane_the_vessel_slides_the_nerve_ends_and_speckle_is_another() {
    // A quarter of its motion after 10 frames: 0.6 * 1.25 Hz * 1/3 s.
    let config = PhantomConfig { out_of_plane_mm: 8.0, motion_hz: 1.25, ..still() };
    let (mut moving, mut at_rest) = (phantom(&config), phantom(&still()));
    assert!(moving.frame(0) == at_rest.frame(0), "it begins in the plane");
    let areas = |frame: &PhantomFrame| PhantomClass::ALL.map(|class| truth(frame, class).area());
    let (start, half, far) = (moving.frame(0), moving.frame(4), moving.frame(10));
    let ([nerve, vessel, bone], [smaller, ..], [gone, same, still_there]) =
        (areas(&start), areas(&half), areas(&far));
    assert!(smaller > 0 && smaller < nerve * 9 / 10, "{nerve} to {smaller}");
    assert_eq!((gone, still_there), (0, bone));
    assert!(same.abs_diff(vessel) < vessel / 20, "{vessel} to {same}");
    let middle = |frame: &PhantomFrame| {
        let bounds = truth(frame, PhantomClass::Vessel).bounds().unwrap().corners();
        (bounds[0] + bounds[2]) / 2.0
    };
    // 8 mm * 0.4 at the scale of the picture.
    let scale = config.height as f32 / config.depth_mm as f32;
    let slid = (middle(&far) - middle(&start)) / scale;
    assert!((slid - 3.2).abs() < 0.4, "{slid} mm");
    // Picture and truth slide together: the lumen is dark where the truth says.
    let lumen = truth(&far, PhantomClass::Vessel);
    let around = grown(lumen, 12);
    let dark = level(&far, config.width, |x, y| lumen.get(x, y));
    let bright = level(&far, config.width, |x, y| around.get(x, y) && !lumen.get(x, y));
    assert!(dark < 0.6 * bright, "{dark} inside, {bright} around");
    let alike = |b: &PhantomFrame| correlation(&start, b, config.width, 0, [100, 220], [40, 75]);
    let (same, another) = (alike(&at_rest.frame(4)), alike(&half));
    assert!(same > 0.98 && another < 0.5, "{same:.3} {another:.3}");
}

#[test]
fn a_scene_cut_brings_another_patient() {
    let plain = still();
    let config = PhantomConfig { scene_cut: Some(4), ..plain.clone() };
    let (mut uncut, mut cut) = (phantom(&plain), phantom(&config));
    assert!(uncut.frame(3) == cut.frame(3));
    let (a, b) = (cut.frame(3), cut.frame(4));
    for class in [PhantomClass::Nerve, PhantomClass::Vessel] {
        assert_eq!(truth(&a, class).dice(truth(&b, class)), Some(0.0), "{class:?} changes sides");
        assert!(truth(&b, class).area() > 400);
    }
    assert!(correlation(&a, &b, config.width, 0, [100, 220], [40, 75]) < 0.3);
}

#[test]
fn a_frozen_picture_stays_and_only_its_stamp_goes_on() {
    let freeze = Some(FrameRange { start: 3, end: 6 });
    let (mut live, mut frozen) = (phantom(&small()), phantom(&PhantomConfig { freeze, ..small() }));
    let held = live.frame(3);
    for index in 3..6 {
        let f = frozen.frame(index);
        assert!(f.image == held.image && f.truth == held.truth && f.index == index, "frame {index}");
    }
    for index in [2, 6] {
        assert!(frozen.frame(index) == live.frame(index), "frame {index}");
    }
    let config = PhantomConfig { freeze, stamp: true, ..small() };
    let mut stamped = phantom(&config);
    for index in 3..6 {
        let image = stamped.image(index);
        assert_eq!(read_stamp(&image, config.width, config.width, config.height), Some(index));
    }
}

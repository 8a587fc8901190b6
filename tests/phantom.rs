//! The phantom from outside: is it reproducible, and does its truth describe its picture?

#![allow(clippy::unwrap_used)]

use sonomask::mask::Mask;
use sonomask::phantom::{
    FrameRange, Geometry, Occlusion, Phantom, PhantomClass, PhantomConfig, PhantomFrame, read_stamp,
};

/// Small enough for quick tests, large enough for every structure.
fn small() -> PhantomConfig {
    PhantomConfig { width: 320, height: 240, ..PhantomConfig::default() }
}

fn sector() -> PhantomConfig {
    PhantomConfig { geometry: Geometry::Sector, ..small() }
}

/// Nothing moves and nothing decorrelates.
fn still() -> PhantomConfig {
    PhantomConfig { motion_mm: 0.0, pulse_bpm: 0.0, decorrelation_rate: 0.0, ..small() }
}

fn phantom(config: &PhantomConfig) -> Phantom {
    Phantom::new(config.clone()).unwrap()
}

fn truth(frame: &PhantomFrame, class: PhantomClass) -> &Mask {
    &frame.truth.iter().find(|t| t.class == class).unwrap().mask
}

/// Mean gray level of the pixels for which `wanted` holds.
fn level(frame: &PhantomFrame, width: usize, wanted: impl Fn(usize, usize) -> bool) -> f64 {
    let picked: Vec<f64> = frame
        .image
        .iter()
        .enumerate()
        .filter(|(i, _)| wanted(i % width, i / width))
        .map(|(_, &v)| f64::from(v))
        .collect();
    assert!(picked.len() > 50, "only {} pixels to average", picked.len());
    picked.iter().sum::<f64>() / picked.len() as f64
}

/// Pixels at most `by` px away from the mask, in the four directions.
fn grown(mask: &Mask, by: usize) -> Mask {
    let mut out = mask.clone();
    for y in 0..mask.height() {
        for x in (0..mask.width()).filter(|&x| mask.get(x, y)) {
            for d in 1..=by {
                out.set(x + d, y, true);
                out.set(x.wrapping_sub(d), y, true);
                out.set(x, y + d, true);
                out.set(x, y.wrapping_sub(d), true);
            }
        }
    }
    out
}

/// Pixels at least `by` px inside the mask, in the four directions.
fn shrunk(mask: &Mask, by: usize) -> Mask {
    let mut out = mask.clone();
    for y in 0..mask.height() {
        for x in 0..mask.width() {
            let inside = (1..=by).all(|d| {
                mask.get(x + d, y)
                    && mask.get(x.wrapping_sub(d), y)
                    && mask.get(x, y + d)
                    && mask.get(x, y.wrapping_sub(d))
            });
            out.set(x, y, mask.get(x, y) && inside);
        }
    }
    out
}

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
fn truth_describes_the_picture() {
    let classes = PhantomClass::ALL;
    for (base, seed) in [(small(), 1), (small(), 2), (sector(), 3), (sector(), 4)] {
        let config = PhantomConfig { seed, ..base };
        let w = config.width;
        for index in [0, 9, 40] {
            let f = phantom(&config).frame(index);
            assert_eq!(f.truth.iter().map(|t| t.class).collect::<Vec<_>>(), classes);
            let masks: Vec<&Mask> = classes.iter().map(|&c| truth(&f, c)).collect();
            for (i, m) in masks.iter().enumerate() {
                assert_eq!((m.width(), m.height()), (config.width, config.height));
                assert!(m.area() > 400, "{:?} has {} px in frame {index}", classes[i], m.area());
                for other in &masks[i + 1..] {
                    assert!(m.data().iter().zip(other.data()).all(|(a, b)| a & b == 0), "masks overlap");
                }
            }
            let [nerve, vessel, bone] = [masks[0], masks[1], masks[2]];

            // The lumen is black to its border; beyond wall and border there is tissue.
            let core = shrunk(vessel, 2);
            let lumen = level(&f, w, |x, y| core.get(x, y));
            let (inner, outer) = (grown(vessel, 8), grown(vessel, 16));
            let tissue = level(&f, w, |x, y| outer.get(x, y) && !inner.get(x, y) && !nerve.get(x, y));
            assert!(
                lumen < 8.0 && tissue > 60.0,
                "seed {seed} frame {index}: lumen {lumen:.1}, tissue {tissue:.1}"
            );

            // The nerve is brighter than the muscle around it.
            let (inner, outer, wall) = (grown(nerve, 3), grown(nerve, 14), grown(vessel, 8));
            let inside = level(&f, w, |x, y| nerve.get(x, y));
            let around = level(&f, w, |x, y| outer.get(x, y) && !inner.get(x, y) && !wall.get(x, y));
            assert!(
                inside > around + 12.0,
                "seed {seed} frame {index}: nerve {inside:.1}, around {around:.1}"
            );

            // The cortex is nearly white, the tissue above it is not, and below is shadow.
            let cortex = level(&f, w, |x, y| bone.get(x, y));
            let bounds = bone.bounds().unwrap();
            let middle = usize::midpoint(bounds.x0, bounds.x1);
            let top = (0..config.height).find(|&y| bone.get(middle, y)).unwrap();
            let column = |x: usize| x.abs_diff(middle) < 12;
            let above = level(&f, w, |x, y| column(x) && (top - 20..top - 6).contains(&y));
            let below = level(&f, w, |x, y| column(x) && (top + 18..top + 30).contains(&y));
            assert!(
                cortex > 200.0 && above < 140.0 && below < 15.0,
                "seed {seed} frame {index}: cortex {cortex:.1}, above {above:.1}, shadow {below:.1}"
            );
        }
    }
}

#[test]
fn the_lumen_ends_in_the_picture_where_its_mask_ends() {
    for config in [small(), sector()] {
        let mut p = phantom(&config);
        for index in [0, 10, 33] {
            let f = p.frame(index);
            let mask = truth(&f, PhantomClass::Vessel);
            let (inner, outer) = (grown(mask, 8), grown(mask, 16));
            let tissue = level(&f, config.width, |x, y| outer.get(x, y) && !inner.get(x, y));
            let b = mask.bounds().unwrap();
            let middle = (usize::midpoint(b.x0, b.x1), usize::midpoint(b.y0, b.y1));
            for (dx, dy) in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
                // Eleven rays side by side: from the middle to the first pixel of half the tissue's level, and to the
                // first beyond the mask. A single ray may leave through a dark speckle.
                let mut misses: Vec<isize> = (-5..=5)
                    .map(|side: isize| {
                        let place = |step: isize| {
                            let (x, y) = (dx * step + dy * side, dy * step + dx * side);
                            (middle.0.wrapping_add_signed(x), middle.1.wrapping_add_signed(y))
                        };
                        let wall = |&s: &isize| {
                            let (x, y) = place(s);
                            f64::from(f.image[y * config.width + x]) > tissue / 2.0
                        };
                        let outside = |&s: &isize| !mask.get(place(s).0, place(s).1);
                        (0..40).find(wall).unwrap() - (0..40).find(outside).unwrap()
                    })
                    .collect();
                misses.sort_unstable();
                // The beam smears the wall into the lumen, by its half width of about 2 px; never the other way.
                let miss = misses[5];
                assert!(
                    (-2..=1).contains(&miss),
                    "{:?} frame {index} towards {dx} {dy}: the wall is {miss} px beyond the mask",
                    config.geometry
                );
            }
        }
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
fn an_occluded_class_is_gone_from_picture_and_truth() {
    for (base, class) in [
        (small(), PhantomClass::Nerve),
        (sector(), PhantomClass::Vessel),
        (sector(), PhantomClass::Bone),
        (small(), PhantomClass::Bone),
    ] {
        let occlusion = Some(Occlusion { start: 10, end: 20, class });
        let (mut clear, mut hidden) = (phantom(&base), phantom(&PhantomConfig { occlusion, ..base.clone() }));
        for index in [9, 20] {
            assert!(clear.frame(index) == hidden.frame(index), "frame {index} is not occluded");
        }
        for index in [10, 15, 19] {
            let (open, shut) = (clear.frame(index), hidden.frame(index));
            let mask = truth(&open, class);
            assert_eq!(truth(&shut, class).area(), 0, "{class:?} in frame {index}");
            let left = level(&shut, base.width, |x, y| mask.get(x, y) && y > base.height / 4);
            assert!(left < 12.0, "{class:?} still shows in frame {index}: level {left:.1}");
            // What is left of the other classes is where it was, and shows.
            for other in PhantomClass::ALL.into_iter().filter(|&c| c != class) {
                let (before, after) = (truth(&open, other), truth(&shut, other));
                assert!(before.data().iter().zip(after.data()).all(|(b, a)| a <= b));
                if other == PhantomClass::Bone && after.area() > 100 {
                    let core = shrunk(after, 1);
                    assert!(level(&shut, base.width, |x, y| core.get(x, y)) > 190.0);
                }
            }
        }
    }
    let occlusion = Some(Occlusion { start: 0, end: 1, class: PhantomClass::Nerve });
    let f = phantom(&PhantomConfig { occlusion, ..small() }).frame(0);
    assert!(truth(&f, PhantomClass::Vessel).area() > 400, "the vessel is beside the lost lines");
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

#[test]
fn nothing_is_drawn_beside_the_scanned_area() {
    let config = sector();
    let f = phantom(&config).frame(0);
    let (w, h) = (config.width, config.height);
    for (x, y) in [(0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1)] {
        for (dx, dy) in [(0, 0), (20, 0), (0, 20), (20, 20)] {
            let (x, y) = (x.abs_diff(dx), y.abs_diff(dy));
            assert_eq!(f.image[y * w + x], 0, "pixel {x} {y}");
        }
    }
    // Half the sector's width is (radius + depth) sin 35 deg = 31.5 mm, so a pixel is 0.197 mm; the corners of the face
    // rise 15 (1 - cos 35 deg) mm = 13.8 px above its middle; all is centred, which puts that middle in row 25.5.
    let middle = |y: usize| &f.image[y * w + w / 2 - 4..][..9];
    assert!(middle(24).iter().all(|&v| v == 0), "above the face: {:?}", middle(24));
    assert!(middle(27).iter().all(|&v| v > 60), "under the face: {:?}", middle(27));
    // A linear array 40 mm wide at 40 mm depth leaves 40 px free on either side of 320 x 240.
    let f = phantom(&small()).frame(0);
    let edge = |x: usize| level(&f, w, |px, _| px == x);
    assert!(edge(38) == 0.0 && edge(281) == 0.0, "{} {}", edge(38), edge(281));
    assert!(edge(41) > 30.0 && edge(278) > 30.0, "{} {}", edge(41), edge(278));
}

#[test]
fn truth_ends_with_the_scanned_area() {
    // So narrow and so far moved that structures leave the view.
    let config =
        PhantomConfig { linear_width_mm: 24.0, motion_mm: 10.0, motion_hz: 1.0, fps: 8.0, ..still() };
    let p = phantom(&config);
    let (half, middle) = (12 * config.height / 40, config.width / 2);
    let mut cut_off = 0;
    for index in 0..8 {
        for t in p.truth(index) {
            if let Some(b) = t.mask.bounds() {
                assert!(b.x0 >= middle - half && b.x1 <= middle + half, "frame {index} {:?}: {b:?}", t.class);
                cut_off += usize::from(b.x0 <= middle - half + 1 || b.x1 >= middle + half - 1);
            }
        }
    }
    assert!(cut_off > 4, "{cut_off} masks met the border");
}

#[test]
fn gain_range_and_attenuation_do_what_they_say() {
    let tissue = |config: &PhantomConfig, rows: [usize; 2]| {
        let f = phantom(config).frame(0);
        level(&f, config.width, |x, y| (45..60).contains(&x) && (rows[0]..rows[1]).contains(&y))
    };
    // 80 dB in 255 levels: 6 dB are 19 levels, where nothing clips.
    let base = PhantomConfig { dynamic_range_db: 80.0, attenuation_db: 0.0, ..still() };
    let (plain, louder) =
        (tissue(&base, [40, 130]), tissue(&PhantomConfig { gain_db: 6.0, ..base.clone() }, [40, 130]));
    assert!((louder - plain - 6.0 * 255.0 / 80.0).abs() < 1.5, "{plain:.1} to {louder:.1}");
    // 20 dB over the depth: at seven tenths of it, 14 dB less; more would sink into the receiver's noise.
    let damped = PhantomConfig { attenuation_db: 20.0, gain_db: 10.0, ..base.clone() };
    let bright = PhantomConfig { gain_db: 10.0, ..base };
    let loss = tissue(&bright, [156, 180]) - tissue(&damped, [156, 180]);
    assert!((loss - 14.0 * 255.0 / 80.0).abs() < 2.0, "at 0.7 of the depth {loss:.1} levels are lost");
}

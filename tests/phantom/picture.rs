//! The picture and its truth: what a mask says is there, what is dark or bright, and where the picture ends.

use sonomask::mask::Mask;
use sonomask::phantom::{Occlusion, PhantomClass, PhantomConfig};

use super::{grown, level, phantom, sector, small, still, truth};

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

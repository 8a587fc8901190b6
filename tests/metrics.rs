//! What an evaluation counts, against answers by hand and by looking at every pair of pixels.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use proptest::prelude::*;
use sonomask::eval::{Overlap, Presence, bootstrap, centroid_error, hd95, presence_auc};
use sonomask::mask::Mask;

fn drawn(rows: &[&str]) -> Mask {
    let data = rows.iter().flat_map(|row| row.bytes().map(|b| u8::from(b == b'#'))).collect();
    Mask::new(rows[0].len(), rows.len(), data).unwrap()
}

#[test]
fn overlap_by_hand() {
    let mask = drawn(&["##..", "##..", "...."]);
    let truth = drawn(&[".##.", ".##.", ".##."]);
    let found = Overlap::of(&mask, &truth).unwrap();
    assert_eq!(found, Overlap { both: 2, extra: 2, missed: 4 });
    assert_eq!(found.dice(), Some(0.4));
    assert_eq!(found.iou(), Some(0.25));
    let nothing = Mask::empty(4, 3);
    let empty = Overlap::of(&nothing, &nothing).unwrap();
    assert_eq!((empty.dice(), empty.iou(), empty.is_present()), (None, None, false));
    assert_eq!(Overlap::of(&nothing, &truth).unwrap().dice(), Some(0.0));
    assert_eq!(Overlap::of(&mask, &nothing).unwrap().dice(), Some(0.0));
    assert_eq!(Overlap::of(&mask, &Mask::empty(3, 4)), None);
    let mut sum = found;
    sum += Overlap::of(&truth, &truth).unwrap();
    assert_eq!(sum.dice(), Some(16.0 / 22.0), "over all pixels, not a mean of means");
}

#[test]
fn presence_by_hand() {
    let mut seen = Presence::default();
    assert_eq!((seen.sensitivity(), seen.specificity()), (None, None));
    for (there, said) in [(true, true), (true, true), (true, false), (false, false), (false, true)] {
        seen.add(there, said);
    }
    assert_eq!(seen.sensitivity(), Some(2.0 / 3.0));
    assert_eq!(seen.specificity(), Some(0.5));
    // Of six pairs three are in order, one is equal.
    assert_eq!(presence_auc(&[0.9, 0.5, 0.2], &[0.5, 0.3]), Some(3.5 / 6.0));
    assert_eq!(presence_auc(&[0.9], &[]), None);
}

#[test]
fn distances_by_hand() {
    let one = drawn(&["#....", ".....", "....."]);
    let other = drawn(&[".....", ".....", "...#."]);
    assert_eq!(hd95(&one, &other, (1.0, 1.0)), Some(13f64.sqrt()));
    assert_eq!(hd95(&one, &other, (2.0, 0.5)), Some(37f64.sqrt()));
    assert_eq!(centroid_error(&one, &other, (2.0, 0.5)), Some(37f64.sqrt()));
    let whole = drawn(&["#####", "#####", "#####"]);
    assert_eq!(hd95(&whole, &whole, (1.0, 1.0)), Some(0.0));
    assert_eq!(centroid_error(&whole, &drawn(&["##...", "##...", "##..."]), (1.0, 1.0)), Some(1.5));
    for (a, b) in [(&one, &Mask::empty(5, 3)), (&Mask::empty(5, 3), &one)] {
        assert_eq!(hd95(a, b, (1.0, 1.0)), None);
        assert_eq!(centroid_error(a, b, (1.0, 1.0)), None);
    }
    assert_eq!(hd95(&one, &Mask::empty(3, 5), (1.0, 1.0)), None);
}

/// The definition, pixel by pixel.
fn slow_hd95(a: &Mask, b: &Mask, (sx, sy): (f64, f64)) -> Option<f64> {
    let outline = |m: &Mask| {
        let inside = |x: i64, y: i64| {
            (0..m.width() as i64).contains(&x)
                && (0..m.height() as i64).contains(&y)
                && m.get(x as usize, y as usize)
        };
        let mut found = Vec::new();
        for y in 0..m.height() as i64 {
            for x in 0..m.width() as i64 {
                let around = [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)];
                if inside(x, y) && !around.iter().all(|&(x, y)| inside(x, y)) {
                    found.push((x as f64 * sx, y as f64 * sy));
                }
            }
        }
        found
    };
    let (a, b) = (outline(a), outline(b));
    let near = |p: &(f64, f64), all: &[(f64, f64)]| {
        all.iter().map(|q| (p.0 - q.0).hypot(p.1 - q.1)).fold(f64::INFINITY, f64::min)
    };
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let mut all: Vec<f64> = a.iter().map(|p| near(p, &b)).chain(b.iter().map(|p| near(p, &a))).collect();
    all.sort_by(f64::total_cmp);
    let place = 0.95 * (all.len() - 1) as f64;
    let (low, high) = (all[place.floor() as usize], all[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

proptest! {
    #[test]
    fn the_fast_distance_is_the_slow_one(
        w in 1usize..14, h in 1usize..14, seed in any::<u64>(), full in 1u64..9,
        spacing in (0.2f64..3.0, 0.2f64..3.0),
    ) {
        let mut state = seed;
        let mut mask = || {
            let data = (0..w * h).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                u8::from((state >> 33) % 10 < full)
            });
            Mask::new(w, h, data.collect()).unwrap()
        };
        let (a, b) = (mask(), mask());
        match (hd95(&a, &b, spacing), slow_hd95(&a, &b, spacing)) {
            (Some(fast), Some(slow)) => prop_assert!((fast - slow).abs() < 1e-9, "{fast} {slow}"),
            (fast, slow) => prop_assert_eq!(fast, slow),
        }
    }
}

#[test]
fn the_interval_holds_the_mean_and_narrows() {
    let few: Vec<f64> = (0..20).map(|i| f64::from(i % 5) / 4.0).collect();
    let many: Vec<f64> = (0..2000).map(|i| f64::from(i % 5) / 4.0).collect();
    let (a, b) = (bootstrap(&few, 1).unwrap(), bootstrap(&many, 1).unwrap());
    for i in [a, b] {
        assert!(i.low < 0.5 && 0.5 < i.high && (i.mean - 0.5).abs() < 1e-12, "{i:?}");
    }
    // The deviation of a value is 0.3536: 1.96 of its standard errors on either side.
    let half = 1.96 * (0.125f64 / 20.0).sqrt();
    assert!(((a.high - a.low) / (2.0 * half) - 1.0).abs() < 0.1, "{a:?}");
    assert!(((b.high - b.low) / (a.high - a.low) - 0.1).abs() < 0.02, "{a:?} {b:?}");
    assert_eq!(bootstrap(&few, 1), Some(a));
    assert_eq!(bootstrap(&[], 1), None);
    assert_eq!(
        bootstrap(&[0.25], 1).unwrap(),
        sonomask::eval::Interval { mean: 0.25, low: 0.25, high: 0.25 }
    );
}

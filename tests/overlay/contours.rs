//! How far lines reach: closed, smooth, no wider than asked, and for any mask never out of the picture.

use std::time::Duration;

use proptest::prelude::*;
use sonomask::frame::{PixelFormat, YuvColor};
use sonomask::mask::Mask;
use sonomask::overlay::{Drawable, Overlay, Style};
use sonomask::state::AiState;

use super::{COLORS, Picture, aged, classes, disc, draw, only, paired, speckle};

/// Distance from the centre of `(x, y)` to the nearest edge between an inside and an outside pixel of a disc.
fn from_circle(x: usize, y: usize, (cx, cy): (f32, f32), r: f32) -> f32 {
    ((x as f32 + 0.5 - cx).hypot(y as f32 + 0.5 - cy) - r).abs()
}

#[test]
fn the_contour_is_closed_smooth_and_no_wider_than_asked() {
    let (w, h, centre, r) = (200, 200, (101.3, 97.8), 60.0);
    // At 200 lines a width of 10.8 is 3 pixels.
    let style = Style { contour_width: 10.8, ..only(false, true) };
    let base = Picture::from_rgb(PixelFormat::Gray8, (w, h), COLORS[0], 0, |_, _| [0; 3]);
    let p = paired(vec![disc(w, h, centre, r)]);
    let out = draw(style.clone(), &base, Drawable::Paired(&p), &AiState::Live);
    let ink = *out.planes[0].0.iter().max().unwrap();
    let (mut partial, mut full) = (0, 0);
    for y in 0..h {
        for x in 0..w {
            let v = out.planes[0].0[y * w + x];
            let d = from_circle(x, y, centre, r);
            // Half the width, half a pixel of blur, and less than a pixel between the circle and its pixels.
            if d > 3.0 {
                assert_eq!(v, 0, "{d} pixels away");
            }
            if d < 0.5 {
                assert!(v > ink / 2, "the line is broken at {x},{y}: {v}");
            }
            full += usize::from(v == ink);
            partial += usize::from(v > 0 && v < ink);
        }
    }
    assert!(partial > 300, "{partial} partly covered pixels");
    assert!(full > 500, "{full} fully covered pixels");

    // A pixel outline walks in steps; a smoothed one has the same coverage wherever the circle has the same slope.
    // Along the diagonal, coverage must be neither all nor nothing.
    let diagonal: Vec<u8> = (0..w).map(|i| out.planes[0].0[i * w + i]).filter(|&v| v > 0).collect();
    assert!(diagonal.iter().any(|&v| v < ink) && diagonal.contains(&ink), "{diagonal:?}");

    // The line keeps the outside from the inside: a flood from the corner over undrawn pixels never gets in.
    let mut seen = vec![false; w * h];
    let mut todo = vec![(0usize, 0usize)];
    while let Some((x, y)) = todo.pop() {
        if std::mem::replace(&mut seen[y * w + x], true) {
            continue;
        }
        for (nx, ny) in [(x + 1, y), (x.wrapping_sub(1), y), (x, y + 1), (x, y.wrapping_sub(1))] {
            if nx < w && ny < h && out.planes[0].0[ny * w + nx] == 0 && !seen[ny * w + nx] {
                todo.push((nx, ny));
            }
        }
    }
    assert!(!seen[97 * w + 101], "the contour is open");

    // The aged contour is not closed: it is dashed, about half of it there.
    let a = aged(vec![disc(w, h, centre, r)], Duration::from_millis(50));
    let dashed = draw(style, &base, Drawable::Aged(&a), &AiState::Live);
    let on_line = |p: &Picture| {
        let near = (0..w * h).filter(|i| from_circle(i % w, i / w, centre, r) < 0.5);
        near.map(|i| (p.planes[0].0[i] > ink / 2) as usize).sum::<usize>() as f64
    };
    let part = on_line(&dashed) / on_line(&out);
    assert!((0.4..0.8).contains(&part), "{part} of the line is drawn");
}

#[test]
fn single_pixels_and_holes_have_contours() {
    let base = Picture::from_rgb(PixelFormat::Gray8, (60, 60), COLORS[0], 0, |_, _| [0; 3]);
    let mut mask = disc(60, 60, (30.0, 30.0), 22.0);
    for y in 24..36 {
        for x in 24..36 {
            mask.set(x, y, false);
        }
    }
    mask.set(0, 0, true);
    let out = draw(only(false, true), &base, Drawable::Paired(&paired(vec![mask])), &AiState::Live);
    let at = |x: usize, y: usize| out.planes[0].0[y * 60 + x];
    assert!(at(0, 0) > 60, "the single pixel in the corner");
    assert!(at(24, 30) > 60 || at(23, 30) > 60, "the left side of the hole");
    assert_eq!(at(30, 30), 0, "the middle of the hole");
}

#[test]
fn a_mask_of_noise_is_drawn_within_its_limits() {
    // Every other pixel: more outlines than are ever drawn. The fill is still there.
    let (w, h) = (1280, 720);
    let data = (0..w * h).map(|i| ((i % w + i / w) % 2) as u8).collect();
    let p = paired(vec![Mask::new(w, h, data).unwrap()]);
    let base = Picture::from_rgb(PixelFormat::Gray8, (w, h), COLORS[0], 0, |_, _| [0; 3]);
    let out = draw(only(true, true), &base, Drawable::Paired(&p), &AiState::Live);
    let inside = out.planes[0].0[1];
    assert!(inside > 0 && inside < 120, "{inside}");
    assert_eq!(out.planes[0].0[0], 0);
    // One long outline among the noise survives it.
    let mut mask = disc(w, h, (640.0, 360.0), 200.0);
    for y in (0..100).step_by(2) {
        for x in (0..w).step_by(2) {
            mask.set(x, y, true);
        }
    }
    for x in (0..w).step_by(2) {
        mask.set(x, 700, true);
    }
    let out = draw(only(false, true), &base, Drawable::Paired(&paired(vec![mask])), &AiState::Live);
    assert!(out.planes[0].0[360 * w + 440] > 150);
}

fn any_style() -> impl Strategy<Value = Style> {
    (any::<[bool; 6]>(), 0.0f32..=1.0, 0.5f32..16.0, 0.5f32..4.0).prop_map(
        |(s, fill_alpha, contour_width, text_scale)| Style {
            fill: s[0],
            contour: s[1],
            labels: s[2],
            legend: s[3],
            status: s[4],
            mark: s[5],
            fill_alpha,
            contour_width,
            text_scale,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Any size, stride, format, style and mask: no panic, nothing written outside the rows, cached = fresh.
    #[test]
    fn drawing_stays_inside_the_picture(
        (width, height, bits) in (1usize..70, 1usize..70).prop_flat_map(|(w, h)| {
            (Just(w), Just(h), proptest::collection::vec(any::<bool>(), w * h))
        }),
        blob in (-10.0f32..80.0, -10.0f32..80.0, 0.0f32..50.0),
        padding in 0usize..9,
        format in proptest::sample::select(PixelFormat::ALL.to_vec()),
        style in any_style(),
        age in proptest::option::of(0u64..500),
    ) {
        let noise = Mask::new(width, height, bits.iter().map(|&b| u8::from(b)).collect()).unwrap();
        let masks = vec![disc(width, height, (blob.0, blob.1), blob.2), noise];
        let base = Picture::from_rgb(format, (width, height), YuvColor::default(), padding, speckle);
        let (p, a) = (paired(masks.clone()), aged(masks, Duration::from_millis(age.unwrap_or(0))));
        let what = if age.is_some() { Drawable::Aged(&a) } else { Drawable::Paired(&p) };
        let mut overlay = Overlay::new(style, classes());
        let (mut first, mut second) = (base.clone(), base.clone());
        overlay.draw(&mut first.view_mut(), what, &AiState::Live).unwrap();
        overlay.draw(&mut second.view_mut(), what, &AiState::Live).unwrap();
        prop_assert!(first.padding_intact());
        prop_assert_eq!(first, second);
    }

    /// Without fill, pixels farther from the mask's border than the line reaches keep every bit.
    #[test]
    fn the_contour_keeps_to_its_width(
        (width, height) in (8usize..60, 8usize..60),
        blob in (0.0f32..60.0, 0.0f32..60.0, 1.0f32..25.0),
        contour_width in 10.0f32..16.0,
    ) {
        let mask = disc(width, height, (blob.0, blob.1), blob.2);
        let base = Picture::from_rgb(PixelFormat::Gray8, (width, height), YuvColor::default(), 0, speckle);
        let style = Style { contour_width, ..only(false, true) };
        let out = draw(style, &base, Drawable::Paired(&paired(vec![mask.clone()])), &AiState::Live);
        let px = (contour_width * height as f32 / 720.0).max(1.0);
        // Half the line and half a pixel of blur, 1 pixel for corners that are smoothed, 0.71 from a crack to its pixel.
        let reach = (0.5 * px + 0.5 + 1.0 + 0.71).ceil() as isize;
        for y in 0..height as isize {
            for x in 0..width as isize {
                let i = y as usize * width + x as usize;
                let inside = |x: isize, y: isize| x >= 0 && y >= 0 && mask.get(x as usize, y as usize);
                let here = inside(x, y);
                let near = (-reach..=reach).any(|dy| (-reach..=reach).any(|dx| inside(x + dx, y + dy) != here));
                prop_assert!(near || out.planes[0].0[i] == base.planes[0].0[i], "{},{}", x, y);
            }
        }
    }
}

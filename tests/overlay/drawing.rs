//! What is drawn into the picture: exactly the pixels of the mask, the same in every format, as the style says.

use std::time::Duration;

use sonomask::frame::PixelFormat;
use sonomask::mask::Mask;
use sonomask::overlay::{ClassStyle, Drawable, Overlay, OverlayError, Style};
use sonomask::state::AiState;

use super::{COLORS, Picture, aged, classes, disc, draw, only, paired, speckle};

#[test]
fn fill_changes_exactly_the_pixels_of_the_mask() {
    for format in PixelFormat::ALL {
        let base = Picture::from_rgb(format, (61, 47), COLORS[0], 5, |_, _| [30, 30, 30]);
        // The region reaches the last row and column, where chroma blocks are smaller.
        let mask = disc(61, 47, (52.0, 38.0), 13.0);
        let p = paired(vec![mask.clone()]);
        let out = draw(only(true, false), &base, Drawable::Paired(&p), &AiState::Live);
        let step = if format.packed_rgb().is_some() { 4 } else { 1 };
        for y in 0..47 {
            for x in 0..61 {
                let at = y * base.planes[0].1 + step * x;
                let changed = base.planes[0].0[at..at + step] != out.planes[0].0[at..at + step];
                assert_eq!(changed, mask.get(x, y), "{format:?} at {x},{y}");
            }
        }
        if matches!(format, PixelFormat::I420 | PixelFormat::Nv12) {
            for y in 0..24 {
                for x in 0..31 {
                    let touched = (0..4).any(|i| mask.get(2 * x + i % 2, 2 * y + i / 2));
                    let at = |p: &Picture| match format {
                        PixelFormat::I420 => {
                            let i = y * p.planes[1].1 + x;
                            (p.planes[1].0[i], p.planes[2].0[i])
                        }
                        _ => {
                            let i = y * p.planes[1].1 + 2 * x;
                            (p.planes[1].0[i], p.planes[1].0[i + 1])
                        }
                    };
                    assert_eq!(at(&base) != at(&out), touched, "{format:?} chroma at {x},{y}");
                }
            }
        }
    }
}

#[test]
fn the_fill_is_the_blend_that_its_alpha_says() {
    let base = Picture::from_rgb(PixelFormat::Rgba, (32, 32), COLORS[0], 0, |_, _| [100, 20, 200]);
    let p = paired(vec![disc(32, 32, (16.0, 16.0), 9.0)]);
    for alpha in [0.25f32, 0.5, 1.0] {
        let style = Style { fill_alpha: alpha, ..only(true, false) };
        let got = draw(style, &base, Drawable::Paired(&p), &AiState::Live).rgb().pixel(16, 16);
        for ((got, from), to) in got.into_iter().zip([100.0, 20.0, 200.0]).zip(ClassStyle::palette(0)) {
            let wanted: f32 = from + (f32::from(to) - from) * alpha;
            assert!((f32::from(got) - wanted).abs() <= 1.0, "alpha {alpha}: {got} for {wanted}");
        }
    }
}

#[test]
fn nothing_changes_with_everything_off_or_without_opacity() {
    let p = paired(vec![disc(61, 47, (30.0, 20.0), 13.0)]);
    let a = aged(vec![disc(61, 47, (30.0, 20.0), 13.0)], Duration::from_millis(90));
    for format in PixelFormat::ALL {
        let base = Picture::from_rgb(format, (61, 47), COLORS[0], 3, speckle);
        for what in [Drawable::Paired(&p), Drawable::Aged(&a), Drawable::Nothing] {
            for style in [Style::off(), Style { fill_alpha: 0.0, ..only(true, false) }] {
                assert_eq!(draw(style, &base, what, &AiState::Off("gone".into())), base, "{format:?}");
            }
        }
    }
}

#[test]
fn formats_agree_after_conversion_to_rgb() {
    // Picture and mask are constant over 2x2 blocks, so that chroma subsampling loses nothing. What is left is rounding:
    // of the base to YUV, of the ink, and of the blend, each worth at most about 1.5 levels of RGB.
    let rgb = |x: usize, y: usize| speckle(x / 2 * 3, y / 2 * 5);
    let mut mask = Mask::empty(64, 48);
    for y in 10..30 {
        for x in 12..40 {
            mask.set(x, y, true);
        }
    }
    let p = paired(vec![mask]);
    let style = Style { fill_alpha: 0.5, ..only(true, false) };
    let reference = Picture::from_rgb(PixelFormat::Rgba, (64, 48), COLORS[0], 0, rgb);
    let reference = draw(style.clone(), &reference, Drawable::Paired(&p), &AiState::Live).rgb();
    for format in PixelFormat::ALL.into_iter().filter(|f| *f != PixelFormat::Gray8) {
        for color in COLORS {
            let base = Picture::from_rgb(format, (64, 48), color, 0, rgb);
            let got = draw(style.clone(), &base, Drawable::Paired(&p), &AiState::Live).rgb();
            let worst = got.data.iter().zip(&reference.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            let limit = if format.packed_rgb().is_some() { 0 } else { 4 };
            assert!(worst <= limit, "{format:?} {color:?}: {worst} levels off");
        }
    }
}

#[test]
fn chroma_is_blended_by_the_covered_part_of_its_block() {
    // One pixel of a block of four, of two at the edge, of one in the corner.
    let base = Picture::from_rgb(PixelFormat::I420, (33, 33), COLORS[0], 0, |_, _| [0; 3]);
    let ink = i32::from(draw_pixel(&base, (32, 32)).0);
    assert!((ink - 128).abs() > 60, "{ink}");
    for (at, parts) in [((10, 10), 4), ((11, 10), 4), ((11, 11), 4), ((32, 4), 2), ((7, 32), 2)] {
        let (u, others) = draw_pixel(&base, at);
        let wanted = 128.0 + f64::from(ink - 128) / f64::from(parts);
        assert!((f64::from(u) - wanted).abs() <= 1.0, "{at:?}: {u} for {wanted}");
        assert!(others, "{at:?}: another block changed");
    }
}

/// U of the block of `at` after this pixel alone was filled, and whether all other blocks kept theirs.
fn draw_pixel(base: &Picture, at: (usize, usize)) -> (u8, bool) {
    let mut mask = Mask::empty(base.width, base.height);
    mask.set(at.0, at.1, true);
    let style = Style { fill_alpha: 1.0, ..only(true, false) };
    let out = draw(style, base, Drawable::Paired(&paired(vec![mask])), &AiState::Live);
    let block = at.1 / 2 * base.planes[1].1 + at.0 / 2;
    let u = out.planes[1].0[block];
    let same =
        out.planes[1].0.iter().zip(&base.planes[1].0).enumerate().all(|(i, (a, b))| i == block || a == b);
    (u, same)
}

#[test]
fn planar_and_semi_planar_are_the_same_drawing() {
    for (w, h) in [(160, 120), (161, 121)] {
        for color in COLORS {
            let mask = disc(w, h, (80.0, 60.0), 31.5);
            let p = paired(vec![mask]);
            let drawn = |format| {
                let base = Picture::from_rgb(format, (w, h), color, 0, speckle);
                draw(Style::default(), &base, Drawable::Paired(&p), &AiState::Live).rgb()
            };
            assert_eq!(drawn(PixelFormat::I420), drawn(PixelFormat::Nv12));
        }
    }
}

#[test]
fn limited_range_luma_stays_in_range() {
    let base = Picture::from_rgb(PixelFormat::I420, (320, 240), COLORS[0], 0, |x, _| {
        if x < 160 { [0; 3] } else { [255; 3] }
    });
    let p = paired(vec![disc(320, 240, (160.0, 120.0), 60.0)]);
    let out = draw(Style::default(), &base, Drawable::Paired(&p), &AiState::Off("no device".into()));
    assert_ne!(base, out);
    assert!(out.planes[0].0.iter().all(|&y| (16..=235).contains(&y)));
    assert!(out.planes[1].0.iter().chain(&out.planes[2].0).all(|&c| (16..=240).contains(&c)));
}

#[test]
fn the_fourth_byte_and_the_padding_are_left_alone() {
    let p = paired(vec![disc(203, 151, (100.0, 70.0), 55.0)]);
    for format in PixelFormat::ALL {
        let base = Picture::from_rgb(format, (203, 151), COLORS[0], 13, speckle);
        let out = draw(Style::default(), &base, Drawable::Paired(&p), &AiState::Delayed);
        assert_ne!(base, out);
        assert!(out.padding_intact(), "{format:?}");
        if format.packed_rgb().is_some() {
            for line in out.planes[0].0.chunks(out.planes[0].1) {
                assert!(line[..4 * 203].chunks(4).all(|px| px[3] == 77), "{format:?}");
            }
        }
    }
}

#[test]
fn a_mask_of_another_size_is_refused() {
    let base = Picture::from_rgb(PixelFormat::I420, (64, 48), COLORS[0], 0, speckle);
    let p = paired(vec![disc(64, 48, (30.0, 20.0), 9.0), disc(64, 47, (30.0, 20.0), 9.0)]);
    let mut out = base.clone();
    let result = Overlay::new(only(true, true), classes()).draw(
        &mut out.view_mut(),
        Drawable::Paired(&p),
        &AiState::Live,
    );
    let wanted = OverlayError::MaskSize { class: 1, mask: (64, 47), frame: (64, 48) };
    assert_eq!(result, Err(wanted));
    assert!(wanted.to_string().contains("64x47"), "{wanted}");
    assert_eq!(out, base);
}

#[test]
fn the_cache_draws_what_a_fresh_overlay_draws() {
    let small = |format| Picture::from_rgb(format, (200, 150), COLORS[0], 0, speckle);
    let one = paired(vec![disc(200, 150, (90.0, 80.0), 30.0)]);
    // The same identity, other pixels: an identity alone must not be taken for the same mask.
    let other = paired(vec![disc(200, 150, (120.0, 60.0), 20.0), disc(200, 150, (50.0, 60.0), 20.0)]);
    let old = aged(vec![disc(200, 150, (90.0, 80.0), 30.0)], Duration::from_millis(40));
    let mut overlay = Overlay::new(Style::default(), classes());
    let script = [
        (PixelFormat::I420, Drawable::Paired(&one), AiState::Live),
        (PixelFormat::I420, Drawable::Paired(&one), AiState::Live),
        (PixelFormat::I420, Drawable::Paired(&other), AiState::Live),
        (PixelFormat::I420, Drawable::Aged(&old), AiState::Delayed),
        (PixelFormat::Bgrx, Drawable::Aged(&old), AiState::Delayed),
        (PixelFormat::Bgrx, Drawable::Nothing, AiState::Off("hung".into())),
        (PixelFormat::Nv12, Drawable::Paired(&one), AiState::Starting),
        (PixelFormat::I420, Drawable::Paired(&one), AiState::Live),
    ];
    for (step, (format, what, state)) in script.into_iter().enumerate() {
        let base = small(format);
        let mut out = base.clone();
        overlay.draw(&mut out.view_mut(), what, &state).unwrap();
        assert_eq!(out, draw(Style::default(), &base, what, &state), "step {step}");
    }
    // Another size or colorimetry with the same overlay.
    let nothing = Picture::from_rgb(PixelFormat::I420, (97, 81), COLORS[1], 0, speckle);
    let mut out = nothing.clone();
    overlay.draw(&mut out.view_mut(), Drawable::Nothing, &AiState::Live).unwrap();
    assert_eq!(out, draw(Style::default(), &nothing, Drawable::Nothing, &AiState::Live));
}

#[test]
fn style_is_read_and_checked() {
    let style: Style = toml::from_str("fill_alpha = 0.4\nlegend = false").unwrap();
    assert_eq!(style, Style { fill_alpha: 0.4, legend: false, ..Style::default() });
    for (text, wanted) in [
        ("fill_alpha = 1.5", "expected 0 to 1"),
        ("contour_width = 0.0", "0.5 to 16 pixels at 720 lines"),
        ("text_scale = nan", "expected 0.5 to 4"),
        ("colour = 3", "unknown field `colour`"),
    ] {
        let error = toml::from_str::<Style>(text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let class: ClassStyle = toml::from_str("name = 'nerve'\ncolor = [1, 2, 3]").unwrap();
    assert_eq!(class, ClassStyle { name: "nerve".into(), color: [1, 2, 3] });
}

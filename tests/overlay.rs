//! What the overlay promises, checked on the pixels.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sonomask::frame::{
    CaptureTime, FrameId, FrameMeta, ImageView, ImageViewMut, PixelFormat, Plane, PlaneMut, Pts, Rgb,
    YuvColor, YuvMatrix,
};
use sonomask::mask::{Aged, ClassMask, Mask, Paired, Segmentation};
use sonomask::overlay::{
    ClassStyle, Drawable, Overlay, OverlayError, SheetError, Style, Tile, contact_sheet, draw_slate,
};
use sonomask::stage::StageTimes;
use sonomask::state::AiState;

/// An owned picture in any format, with `padding` extra bytes per row that hold a known value.
#[derive(Clone, PartialEq, Debug)]
struct Picture {
    format: PixelFormat,
    width: usize,
    height: usize,
    color: YuvColor,
    planes: Vec<(Vec<u8>, usize)>,
}

const PADDING: u8 = 0xA5;

impl Picture {
    fn new(format: PixelFormat, width: usize, height: usize, color: YuvColor, padding: usize) -> Self {
        let planes = format
            .planes(width, height)
            .into_iter()
            .map(|(row, rows)| (vec![PADDING; (row + padding) * rows], row + padding))
            .collect();
        Self { format, width, height, color, planes }
    }

    /// The picture with `rgb` at each pixel; chroma is the mean of its block.
    fn from_rgb(
        format: PixelFormat,
        (width, height): (usize, usize),
        color: YuvColor,
        padding: usize,
        rgb: impl Fn(usize, usize) -> [u8; 3],
    ) -> Self {
        let mut p = Self::new(format, width, height, color, padding);
        let yuv = |x: usize, y: usize| {
            let (kr, kb) = color.matrix.weights();
            let [r, g, b] = rgb(x, y).map(f32::from);
            let l = kr * r + (1.0 - kr - kb) * g + kb * b;
            let (o, s, c) =
                if color.full_range { (0.0, 1.0, 1.0) } else { (16.0, 219.0 / 255.0, 224.0 / 255.0) };
            [o + l * s, 128.0 + (b - l) / (2.0 - 2.0 * kb) * c, 128.0 + (r - l) / (2.0 - 2.0 * kr) * c]
        };
        for y in 0..height {
            for x in 0..width {
                match format.packed_rgb() {
                    Some(order) => {
                        let at = y * p.planes[0].1 + 4 * x;
                        for (k, v) in order.into_iter().zip(rgb(x, y)) {
                            p.planes[0].0[at + k] = v;
                        }
                        p.planes[0].0[at + 3] = 77;
                    }
                    None if format == PixelFormat::Gray8 => {
                        let at = y * p.planes[0].1 + x;
                        p.planes[0].0[at] = rgb(x, y)[1];
                    }
                    None => {
                        let at = y * p.planes[0].1 + x;
                        p.planes[0].0[at] = yuv(x, y)[0].round() as u8;
                        if x % 2 == 0 && y % 2 == 0 {
                            let (mut u, mut v, mut n) = (0.0, 0.0, 0.0);
                            for (bx, by) in [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)] {
                                if bx < width && by < height {
                                    (u, v, n) = (u + yuv(bx, by)[1], v + yuv(bx, by)[2], n + 1.0);
                                }
                            }
                            let (u, v) = ((u / n).round() as u8, (v / n).round() as u8);
                            if format == PixelFormat::I420 {
                                let at = y / 2 * p.planes[1].1 + x / 2;
                                (p.planes[1].0[at], p.planes[2].0[at]) = (u, v);
                            } else {
                                let at = y / 2 * p.planes[1].1 + x;
                                (p.planes[1].0[at], p.planes[1].0[at + 1]) = (u, v);
                            }
                        }
                    }
                }
            }
        }
        p
    }

    fn view_mut(&mut self) -> ImageViewMut<'_> {
        let planes =
            self.planes.iter_mut().map(|(d, stride)| PlaneMut { data: d, stride: *stride }).collect();
        ImageViewMut::new(self.format, self.width, self.height, self.color, planes).expect("planes that fit")
    }

    fn rgb(&self) -> Rgb {
        let planes = self.planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
        Rgb::from(
            &ImageView::new(self.format, self.width, self.height, self.color, planes)
                .expect("planes that fit"),
        )
    }

    fn padding_intact(&self) -> bool {
        self.format.planes(self.width, self.height).iter().zip(&self.planes).all(
            |(&(row, _), (data, stride))| {
                data.chunks(*stride).all(|line| line[row.min(line.len())..].iter().all(|&b| b == PADDING))
            },
        )
    }
}

fn meta(seq: u64, capture: CaptureTime) -> FrameMeta {
    FrameMeta { id: FrameId { epoch: 0, seq }, pts: Some(Pts(seq)), duration: None, capture }
}

fn segmentation(masks: Vec<Mask>) -> Arc<Segmentation> {
    let masks = masks
        .into_iter()
        .enumerate()
        .map(|(class, mask)| ClassMask { class, mask, score: 0.93, presence: 1.0, logits: None })
        .collect();
    Arc::new(Segmentation {
        frame: meta(0, CaptureTime::now()),
        masks,
        times: StageTimes::default(),
        remark: None,
    })
}

fn paired(masks: Vec<Mask>) -> Paired {
    let s = segmentation(masks);
    Paired::new(&s.frame.clone(), s).expect("its own frame")
}

fn aged(masks: Vec<Mask>, age: Duration) -> Aged {
    let s = segmentation(masks);
    let then = s.frame.capture;
    let now = CaptureTime { mono: then.mono + age, wall: then.wall + age };
    Aged::new(&meta(4, now), s, age).expect("a later frame")
}

fn disc(width: usize, height: usize, (cx, cy): (f32, f32), r: f32) -> Mask {
    let mut m = Mask::empty(width, height);
    for y in 0..height {
        for x in 0..width {
            m.set(x, y, (x as f32 + 0.5 - cx).hypot(y as f32 + 0.5 - cy) < r);
        }
    }
    m
}

fn classes() -> Vec<ClassStyle> {
    vec![ClassStyle::new("nerve", 0), ClassStyle::new("vessel", 1)]
}

fn draw(style: Style, picture: &Picture, what: Drawable<'_>, state: &AiState) -> Picture {
    let mut out = picture.clone();
    Overlay::new(style, classes()).draw(&mut out.view_mut(), what, state).expect("masks of the frame's size");
    out
}

fn speckle(x: usize, y: usize) -> [u8; 3] {
    let v = (40 + (x * 7 + y * 13 + x * y) % 120) as u8;
    [v, v.saturating_add(9), v / 2]
}

fn only(fill: bool, contour: bool) -> Style {
    Style { fill, contour, ..Style::off() }
}

const COLORS: [YuvColor; 3] = [
    YuvColor { matrix: YuvMatrix::Bt601, full_range: false },
    YuvColor { matrix: YuvMatrix::Bt709, full_range: true },
    YuvColor { matrix: YuvMatrix::Bt2020, full_range: false },
];

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
fn aged_is_not_paired_in_any_part() {
    let mask = || vec![disc(320, 240, (200.0, 120.0), 60.0)];
    let base = Picture::from_rgb(PixelFormat::I420, (320, 240), COLORS[0], 0, speckle);
    let (p, a) = (paired(mask()), aged(mask(), Duration::from_millis(120)));
    let status = Style { status: true, ..Style::off() };
    for style in [only(true, false), only(false, true), status, Style::default()] {
        let one = draw(style.clone(), &base, Drawable::Paired(&p), &AiState::Live);
        let other = draw(style.clone(), &base, Drawable::Aged(&a), &AiState::Live);
        assert_ne!(one, other, "{style:?}");
    }
    // The age is printed: another age, another picture.
    let older = aged(mask(), Duration::from_millis(121));
    let style = Style { status: true, ..Style::off() };
    assert_ne!(
        draw(style.clone(), &base, Drawable::Aged(&a), &AiState::Live),
        draw(style, &base, Drawable::Aged(&older), &AiState::Live)
    );
}

#[test]
fn every_state_has_its_own_status() {
    let base = Picture::from_rgb(PixelFormat::Gray8, (640, 480), COLORS[0], 0, speckle);
    let style = Style { status: true, ..Style::off() };
    let states = [
        AiState::Starting,
        AiState::Live,
        AiState::Delayed,
        AiState::Off(String::new()),
        AiState::Off("watchdog: no answer for 2 s".into()),
    ];
    let drawn: Vec<_> = states.iter().map(|s| draw(style.clone(), &base, Drawable::Nothing, s)).collect();
    for (i, a) in drawn.iter().enumerate() {
        assert_ne!(*a, base);
        for b in &drawn[..i] {
            assert_ne!(a, b);
        }
        // It stays at the top.
        assert!(a.planes[0].0[640 * 80..] == base.planes[0].0[640 * 80..]);
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
fn labels_do_not_cover_each_other() {
    // Three regions with their tops at one point: their labels must go to three places.
    let (w, h) = (640, 480);
    let masks: Vec<_> = [20.0, 30.0, 40.0].map(|r| disc(w, h, (320.0, 200.0 + r), r)).into();
    let base = Picture::from_rgb(PixelFormat::Gray8, (w, h), COLORS[0], 0, |_, _| [255; 3]);
    let changed = |masks: Vec<Mask>| {
        let style = Style { labels: true, ..Style::off() };
        let out = draw(style, &base, Drawable::Paired(&paired(masks)), &AiState::Live);
        out.planes[0].0.iter().filter(|&&v| v != 255).count()
    };
    let alone: Vec<_> = masks.iter().map(|m| changed(vec![m.clone()])).collect();
    let three = changed(masks);
    // "class 2" is wider than "nerve", so the sum is a lower bound for three separate boxes.
    assert!(three >= alone.iter().sum::<usize>(), "{three} pixels for {alone:?}");
}

#[test]
fn odd_names_and_tiny_frames_do_no_harm() {
    let names = ["神経", "N. médian żółć", "", "a\u{301}\n\t\0", &"x".repeat(10_000), "👩🏽‍⚕️"];
    let classes: Vec<_> = names.iter().enumerate().map(|(i, n)| ClassStyle::new(*n, i)).collect();
    for (w, h) in [(1, 1), (2, 1), (1, 9), (7, 5), (33, 17), (320, 240)] {
        for format in PixelFormat::ALL {
            let mut p = Picture::from_rgb(format, (w, h), COLORS[0], 1, speckle);
            let masks = (0..8).map(|i| disc(w, h, (i as f32 * 3.0, 4.0), 3.0)).collect();
            let s = paired(masks);
            let mut overlay =
                Overlay::new(Style { text_scale: f32::NAN, ..Style::default() }, classes.clone());
            for state in [AiState::Starting, AiState::Off("ü".repeat(9000))] {
                overlay.draw(&mut p.view_mut(), Drawable::Paired(&s), &state).unwrap();
            }
            assert!(p.padding_intact());
        }
    }
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

#[test]
fn contact_sheets_show_every_tile_unchanged() {
    let tile = |w: usize, h: usize, v: u8| Rgb { width: w, height: h, data: vec![v; 3 * w * h] };
    let tiles = [tile(60, 40, 200), tile(60, 40, 90), tile(30, 20, 150)];
    let list: Vec<_> = tiles.iter().map(|image| Tile { image, caption: "frame 12  0.400s" }).collect();
    let sheet = contact_sheet(&list, 2).unwrap();
    assert!(sheet.width > 120 && sheet.height > 80);
    for (v, n) in [(200u8, 2400), (90, 2400), (150, 600)] {
        assert!(sheet.data.chunks_exact(3).filter(|p| *p == [v; 3]).count() >= n);
    }
    let plain: Vec<_> = tiles.iter().map(|image| Tile { image, caption: "" }).collect();
    assert_ne!(contact_sheet(&plain, 2).unwrap(), sheet);

    assert_eq!(contact_sheet(&[], 2), Err(SheetError::Empty));
    assert_eq!(contact_sheet(&list, 0), Err(SheetError::Empty));
    let broken = Rgb { width: 9, height: 9, data: vec![0; 9] };
    let result = contact_sheet(&[Tile { image: &broken, caption: "" }], 1);
    assert_eq!(result, Err(SheetError::Tile { index: 0, width: 9, height: 9, found: 9 }));
    let wide = tile(40_000, 1, 0);
    assert!(matches!(contact_sheet(&[Tile { image: &wide, caption: "" }], 1), Err(SheetError::Image(_))));
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

#[test]
fn a_slate_leaves_nothing_of_the_picture() {
    for format in PixelFormat::ALL {
        for (w, h) in [(320, 240), (161, 121), (24, 18)] {
            let slate = |level: u8, silent: u64| {
                let color = YuvColor::default();
                let mut p =
                    Picture::from_rgb(format, (w, h), color, 5, |x, y| [level, (x * 7) as u8, (y * 5) as u8]);
                draw_slate(&mut p.view_mut(), Duration::from_secs(silent));
                p
            };
            let one = slate(10, 1);
            assert_eq!(
                one,
                slate(200, 1),
                "{format:?} {w}x{h}: every pixel is covered, padding and alpha are not"
            );
            let bright = one.rgb().data.iter().filter(|v| **v > 200).count();
            assert!(bright > 20, "{format:?} {w}x{h}: it has text");
            assert_eq!(one != slate(10, 22), w > 100, "{format:?} {w}x{h}: it says for how long");
        }
    }
}

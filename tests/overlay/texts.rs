//! What is written on a picture or beside it: ages, states, labels, slates and the captions of contact sheets.

use std::time::Duration;

use sonomask::frame::{PixelFormat, Rgb, YuvColor};
use sonomask::mask::Mask;
use sonomask::overlay::{ClassStyle, Drawable, Overlay, SheetError, Style, Tile, contact_sheet, draw_slate};
use sonomask::state::AiState;

use super::{COLORS, Picture, aged, disc, draw, only, paired, speckle};

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

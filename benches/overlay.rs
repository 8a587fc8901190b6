//! Cost of drawing three classes of about 5 % of the frame each: from the cache, as `latest` mode does for most frames,
//! and with a new mask each time, as `paired` mode does. And of what an untrained network answers: nearly the whole frame, in holes
//! and islands.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use sonomask::frame::{CaptureTime, FrameId, FrameMeta, ImageViewMut, PixelFormat, PlaneMut, YuvColor};
use sonomask::mask::{Aged, ClassMask, Mask, Paired, Segmentation};
use sonomask::overlay::{ClassStyle, Drawable, Overlay, Style};
use sonomask::stage::StageTimes;
use sonomask::state::AiState;

/// An ellipse with a wavy border that covers about 5 % of the frame.
fn region(width: usize, height: usize, (cx, cy): (f32, f32)) -> Mask {
    let mut mask = Mask::empty(width, height);
    let r = (0.05 * (width * height) as f32 / std::f32::consts::PI).sqrt();
    for y in 0..height {
        for x in 0..width {
            let (dx, dy) = (x as f32 - cx * width as f32, y as f32 - cy * height as f32);
            mask.set(x, y, (0.8 * dx).hypot(1.25 * dy) < r * (1.0 + 0.08 * (7.0 * dy.atan2(dx)).sin()));
        }
    }
    mask
}

fn regions(width: usize, height: usize) -> Vec<Mask> {
    [(0.25, 0.4), (0.6, 0.3), (0.7, 0.7)].map(|at| region(width, height, at)).into()
}

/// Nine tenths of the frame, with a hole of about 30 pixels wherever two waves meet.
fn nearly_all(width: usize, height: usize) -> Vec<Mask> {
    let mut mask = Mask::empty(width, height);
    for y in 0..height {
        for x in 0..width {
            mask.set(x, y, (x as f32 / 12.0).sin() + (y as f32 / 11.0).cos() < 1.1);
        }
    }
    vec![mask]
}

fn segmentation(masks: Vec<Mask>) -> Arc<Segmentation> {
    let frame = FrameMeta {
        id: FrameId { epoch: 0, seq: 0 },
        pts: None,
        duration: None,
        capture: CaptureTime::now(),
    };
    let masks = masks.into_iter().enumerate().map(|(class, mask)| ClassMask {
        class,
        mask,
        score: 0.9,
        presence: 1.0,
        logits: None,
    });
    Arc::new(Segmentation { frame, masks: masks.collect(), times: StageTimes::default(), remark: None })
}

fn overlay(c: &mut Criterion) {
    for (name, width, height) in [("720p", 1280, 720), ("1080p", 1920, 1080)] {
        for format in [PixelFormat::I420, PixelFormat::Rgba] {
            let mut data: Vec<_> = format
                .planes(width, height)
                .into_iter()
                .map(|(row, rows)| (vec![90; row * rows], row))
                .collect();
            let planes = data.iter_mut().map(|(data, stride)| PlaneMut { data, stride: *stride }).collect();
            let Ok(mut image) = ImageViewMut::new(format, width, height, YuvColor::default(), planes) else {
                continue;
            };
            let classes: Vec<_> = ["nerve", "vessel", "bone"]
                .into_iter()
                .enumerate()
                .map(|(i, n)| ClassStyle::new(n, i))
                .collect();
            let mut overlay = Overlay::new(Style::default(), classes);
            let group = format!("overlay/{name}/{format:?}");

            let s = segmentation(regions(width, height));
            let Ok(one) = Paired::new(&s.frame, s.clone()) else { continue };
            c.bench_function(&format!("{group}/paired, cached"), |b| {
                b.iter(|| overlay.draw(black_box(&mut image), Drawable::Paired(&one), &AiState::Live));
            });

            let ages: Vec<_> = (0..2u64)
                .filter_map(|ms| {
                    let mut later = s.frame;
                    later.capture.mono += Duration::from_millis(100 + ms);
                    Aged::new(&later, s.clone(), Duration::from_secs(1))
                })
                .collect();
            c.bench_function(&format!("{group}/aged, cached but for the age"), |b| {
                let mut aged = ages.iter().cycle();
                b.iter(|| {
                    let what = aged.next().map_or(Drawable::Nothing, Drawable::Aged);
                    overlay.draw(black_box(&mut image), what, &AiState::Live)
                });
            });

            for (what, masks) in
                [("new mask", regions as fn(_, _) -> _), ("new mask of nearly all", nearly_all)]
            {
                let both = [0; 2].map(|_| segmentation(masks(width, height)));
                let both: Vec<_> =
                    both.iter().filter_map(|s| Paired::new(&s.frame, s.clone()).ok()).collect();
                c.bench_function(&format!("{group}/paired, {what}"), |b| {
                    let mut masks = both.iter().cycle();
                    b.iter(|| {
                        let what = masks.next().map_or(Drawable::Nothing, Drawable::Paired);
                        overlay.draw(black_box(&mut image), what, &AiState::Live)
                    });
                });
            }
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    overlay(&mut criterion);
    criterion.final_summary();
}

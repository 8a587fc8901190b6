//! The mark in a picture that tells its frame and time.

use std::sync::Arc;

use sonomask::bench::{Mark, draw_mark, read_mark};
use sonomask::frame::{
    CaptureTime, FrameId, FrameMeta, ImageView, ImageViewMut, PixelFormat, Plane, PlaneMut, YuvColor,
};
use sonomask::mask::{ClassMask, Mask, Paired, Segmentation};
use sonomask::overlay::{ClassStyle, Drawable, Overlay, Style};
use sonomask::stage::StageTimes;
use sonomask::state::AiState;

/// A gray picture with a mark becomes I420 of limited range as videoconvert makes it, is drawn over with masks, banner and legend,
/// and still tells its frame and time.
#[test]
fn a_mark_survives_conversion_and_overlay() {
    for (w, h) in [(320, 240), (640, 480), (1280, 720)] {
        let mark = Mark { frame: 123_456, micros: 987_654_321_012 };
        let mut gray: Vec<u8> = (0..w * h).map(|i| (i * 7919 % 200) as u8).collect();
        let planes = vec![PlaneMut { data: &mut gray, stride: w }];
        let mut image = ImageViewMut::new(PixelFormat::Gray8, w, h, YuvColor::default(), planes).unwrap();
        draw_mark(&mut image, mark).unwrap();
        for covered in [0.0, 0.5, 1.0] {
            let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
            let mut y: Vec<u8> =
                gray.iter().map(|&v| (16.0 + f64::from(v) * 219.0 / 255.0).round() as u8).collect();
            let (mut u, mut v) = (vec![128_u8; cw * ch], vec![128_u8; cw * ch]);
            let planes = vec![
                PlaneMut { data: &mut y, stride: w },
                PlaneMut { data: &mut u, stride: cw },
                PlaneMut { data: &mut v, stride: cw },
            ];
            let mut drawn = ImageViewMut::new(PixelFormat::I420, w, h, YuvColor::default(), planes).unwrap();
            overlay(&mut drawn, covered);
            let view = drawn.as_view();
            assert_eq!(read_mark(&view), Some(mark), "{w}x{h}, {covered} covered");
        }
        let blank = vec![90_u8; w * h];
        let planes = vec![Plane { data: &blank, stride: w }];
        let blank = ImageView::new(PixelFormat::Gray8, w, h, YuvColor::default(), planes).unwrap();
        assert_eq!(read_mark(&blank), None);
    }
}

/// Draws a mask over so large a share of the picture, from its right edge, with everything else that a stream shows.
fn overlay(image: &mut ImageViewMut<'_>, covered: f64) {
    let (w, h) = (image.as_view().width(), image.as_view().height());
    let data = (0..w * h).map(|i| u8::from((i % w) as f64 >= (1.0 - covered) * w as f64)).collect();
    let meta = FrameMeta { id: FrameId::default(), pts: None, duration: None, capture: CaptureTime::now() };
    let found =
        ClassMask { class: 0, mask: Mask::new(w, h, data).unwrap(), score: 0.9, presence: 1.0, logits: None };
    let segmentation =
        Segmentation { frame: meta, masks: vec![found], times: StageTimes::default(), remark: None };
    let paired = Paired::new(&meta, Arc::new(segmentation)).unwrap();
    let mut overlay = Overlay::new(Style::default(), vec![ClassStyle::new("a structure with a name", 0)]);
    overlay.draw(image, Drawable::Paired(&paired), &AiState::Live).unwrap();
}

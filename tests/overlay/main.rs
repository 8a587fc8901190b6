//! What the overlay promises, checked on the pixels.

mod contours;
mod drawing;
mod texts;

use std::sync::Arc;
use std::time::Duration;

use sonomask::frame::{
    CaptureTime, FrameId, FrameMeta, ImageView, ImageViewMut, PixelFormat, Plane, PlaneMut, Pts, Rgb,
    YuvColor, YuvMatrix,
};
use sonomask::mask::{Aged, ClassMask, Mask, Paired, Segmentation};
use sonomask::overlay::{ClassStyle, Drawable, Overlay, Style};
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

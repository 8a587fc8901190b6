//! A frame seen in several ways, of whose answers the mean is taken: as many times as long, and on average a little better
//! (`benches/results/training.md`).

use std::f64::consts::PI;

use tch::{Kind, TchError, Tensor};

use super::preprocess::Placement;
use super::said::Said;

/// Most views of a frame, itself among them.
pub const MAX_VIEWS: usize = WAYS.len();

/// Probabilities are kept so far from 0 and 1 that their logits have three digits in `f32`: nearer to 1 a probability has few left.
const CERTAIN: f64 = 1e-4;

/// One way to see a picture, about its centre: no further from how it is than what predictors learn from by default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// Left and right are exchanged, before everything else.
    mirrored: bool,
    zoom: f64,
    /// Clockwise.
    degrees: f64,
}

const fn way(mirrored: bool, zoom: f64, degrees: f64) -> Way {
    Way { mirrored, zoom, degrees }
}

/// All ways, in the order in which they are taken; the first is the picture as it is.
const WAYS: [Way; 8] = [
    way(false, 1.0, 0.0),
    way(true, 1.0, 0.0),
    way(false, 1.2, 0.0),
    way(true, 1.0, 10.0),
    way(false, 1.0, -10.0),
    way(true, 1.2, 0.0),
    way(false, 1.0, 10.0),
    way(true, 1.0, -10.0),
];

impl Way {
    /// The ways of `views` views but the first, which is the picture as it is.
    pub fn others(views: usize) -> &'static [Self] {
        WAYS.get(1..views.min(MAX_VIEWS)).unwrap_or_default()
    }

    /// `[a, b, c, d]`: a place of the view that is `(x, y)` from the centre shows what is `(a x + b y, c x + d y)` from it, in pixels of
    /// the input. What is turned is the frame, which the input may show stretched.
    fn matrix(self, placement: &Placement) -> [f64; 4] {
        let (sin, cos) = (self.degrees * PI / 180.0).sin_cos();
        let side = if self.mirrored { -1.0 } else { 1.0 };
        let wider = placement.stretch();
        [side * cos, side * sin * wider, -sin / wider, cos].map(|v| v / self.zoom)
    }

    /// The other way round.
    fn inverse(self, placement: &Placement) -> [f64; 4] {
        let [a, b, c, d] = self.matrix(placement);
        let det = a * d - b * c;
        [d / det, -b / det, -c / det, a / det]
    }

    /// A network's input `[1, 3, S, S]` in this view: black (each channel's darkest value) where nothing is seen, the padding as it was.
    ///
    /// # Errors
    /// libtorch's.
    pub fn seen(self, input: &Tensor, placement: &Placement) -> Result<Tensor, TchError> {
        let part = picture(input, placement)?;
        let black = part.f_amin([2i64, 3], true)?;
        // From black on, so that the sampler's zero is black.
        let view = moved(&padded(&part.f_sub(&black)?, input)?, self.matrix(placement), placement)?;
        padded(&picture(&view, placement)?.f_add(&black)?, input)
    }

    /// What was said of this view, `[B, C, n, n]` at any size, as of the picture; 0 where the view does not show it.
    ///
    /// # Errors
    /// libtorch's.
    pub fn back(self, said: &Tensor, placement: &Placement) -> Result<Tensor, TchError> {
        moved(said, self.inverse(placement), placement)
    }

    /// How much of each place of the picture this view shows, `[1, 1, h, w]` at the size of `said`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn shown(self, said: &Tensor, placement: &Placement) -> Result<Tensor, TchError> {
        let whole = picture(said, placement)?.f_narrow(0, 0, 1)?.f_narrow(1, 0, 1)?.f_ones_like()?;
        self.back(&padded(&whole, said)?, placement)
    }
}

/// The picture's part of `[B, C, h, w]`.
fn picture(of: &Tensor, placement: &Placement) -> Result<Tensor, TchError> {
    let (_, _, h, w) = of.size4()?;
    let (width, height) = placement.cells([h, w]);
    of.f_narrow(2, 0, height)?.f_narrow(3, 0, width)
}

/// The picture's part in a plane like `whole`, with 0 in the padding.
fn padded(part: &Tensor, whole: &Tensor) -> Result<Tensor, TchError> {
    let ((_, _, h, w), (_, _, height, width)) = (whole.size4()?, part.size4()?);
    part.f_constant_pad_nd([0, w - width, 0, h - height])
}

/// Samples `[B, C, n, n]`, between cells in proportion, about the picture's centre; 0 outside.
fn moved(of: &Tensor, [a, b, c, d]: [f64; 4], placement: &Placement) -> Result<Tensor, TchError> {
    let (batch, _, h, w) = of.size4()?;
    // The sampler's coordinates go from -1 to 1 along each side; made on the device, which is waited for by nothing.
    let along = |cells: i64, scaled: usize| -> Result<Tensor, TchError> {
        let centre = scaled as f64 / placement.side.max(1) as f64 - 1.0;
        let places = Tensor::f_arange(cells, (Kind::Float, of.device()))?.f_add_scalar(0.5)?;
        places.f_mul_scalar(2.0 / cells.max(1) as f64)?.f_sub_scalar(1.0 + centre)
    };
    let (x, y) =
        (along(w, placement.scaled.0)?.f_unsqueeze(0)?, along(h, placement.scaled.1)?.f_unsqueeze(1)?);
    let sum = |by_x: f64, by_y: f64, scaled: usize| -> Result<Tensor, TchError> {
        let centre = scaled as f64 / placement.side.max(1) as f64 - 1.0;
        x.f_mul_scalar(by_x)?.f_add(&y.f_mul_scalar(by_y)?)?.f_add_scalar(centre)
    };
    let grid = [sum(a, b, placement.scaled.0)?, sum(c, d, placement.scaled.1)?];
    let grid = Tensor::f_stack(&grid, -1)?.f_unsqueeze(0)?.f_expand([batch, h, w, 2], false)?;
    of.f_grid_sampler_2d(&grid, 0, 0, false)
}

/// What is said of some classes in several views.
#[derive(Debug, Default)]
pub struct Views {
    /// Sums: `said.logits` are of probabilities.
    sums: Option<Sums>,
    count: f64,
}

#[derive(Debug)]
struct Sums {
    /// Of the probabilities, in `logits`; of the scores and of the logits of presence.
    said: Said,
    /// How much of each place was shown, `[1, 1, h, w]`.
    shown: Tensor,
}

/// 0, or NaN where a class has a logit that is no number, `[B, 1, 1, 1]`: what lies outside of a view or is made a probability would hide it.
fn fault(logits: &Tensor) -> Result<Tensor, TchError> {
    logits.f_mul_scalar(0.0)?.f_sum_dim_intlist(&[1i64, 2, 3][..], true, Kind::Float)
}

impl Views {
    /// Adds what is said in the view `way`: of the same classes each time, in the same order.
    ///
    /// # Errors
    /// libtorch's.
    pub fn add(&mut self, way: Way, placement: &Placement, said: Said) -> Result<(), TchError> {
        let logits = said.logits.f_to_kind(Kind::Float)?;
        let shown = way.shown(&logits, placement)?;
        // What is said of the padding is not of the picture.
        let part = padded(&picture(&logits.f_sigmoid()?, placement)?, &logits)?;
        let logits = way.back(&part, placement)?.f_add(&fault(&logits)?)?;
        let said = Said { logits, iou: column(&said.iou)?, object_score: columns(&said)?, ..said };
        self.count += 1.0;
        self.sums = Some(match self.sums.take() {
            None => Sums { said, shown },
            Some(sums) => Sums { said: sum(sums.said, &said)?, shown: sums.shown.f_add(&shown)? },
        });
        Ok(())
    }

    /// Takes the mean of what is said in these views and of the picture as it is, which is in `said`.
    ///
    /// # Errors
    /// A class of which nothing was said in the views, libtorch's.
    pub fn mean(&self, said: Said) -> Result<Said, TchError> {
        let Some(sums) = &self.sums else { return Ok(said) };
        let logits = said.logits.f_to_kind(Kind::Float)?;
        let own = Said {
            logits: logits.f_sigmoid()?.f_add(&fault(&logits)?)?,
            iou: column(&said.iou)?,
            object_score: columns(&said)?,
            ..said
        };
        let all = sum(sums.said.about(&own.classes)?, &own)?;
        let mean = all.logits.f_div(&sums.shown.f_add_scalar(1.0)?)?;
        let count = self.count + 1.0;
        Ok(Said {
            logits: mean.f_clamp(CERTAIN, 1.0 - CERTAIN)?.f_logit(None::<f64>)?,
            iou: all.iou.f_div_scalar(count)?,
            object_score: all.object_score.map(|score| score.f_div_scalar(count)).transpose()?,
            alone: own.alone,
            classes: own.classes,
        })
    }
}

/// `[B, 1]` or `[B]` as `[B, 1]`.
fn column(of: &Tensor) -> Result<Tensor, TchError> {
    of.f_to_kind(Kind::Float)?.f_reshape([-1, 1])
}

fn columns(of: &Said) -> Result<Option<Tensor>, TchError> {
    of.object_score.as_ref().map(column).transpose()
}

/// The sum of all numbers, of the same classes.
fn sum(of: Said, other: &Said) -> Result<Said, TchError> {
    let scores = of.object_score.as_ref().zip(other.object_score.as_ref());
    Ok(Said {
        logits: of.logits.f_add(&other.logits)?,
        iou: of.iou.f_add(&other.iou)?,
        object_score: scores.map(|(a, b)| a.f_add(b)).transpose()?,
        ..of
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// A disc at `(x, y)` of `[1, 1, 64, 64]`.
    fn disc(x: f64, y: f64, r: f64) -> Tensor {
        let values: Vec<f32> = (0..64 * 64)
            .map(|i| f64::hypot(f64::from(i % 64) + 0.5 - x, f64::from(i / 64) + 0.5 - y) < r)
            .map(|inside| if inside { 1.0 } else { 0.0 })
            .collect();
        Tensor::from_slice(&values).reshape([1, 1, 64, 64])
    }

    /// Centre and sum of what is there.
    fn centre(of: &Tensor) -> (f64, f64, f64) {
        let at = Tensor::arange(64, (Kind::Float, Device::Cpu)) + 0.5;
        let sum = of.sum(Kind::Float).double_value(&[]);
        let x = (of * at.view([1, 1, 1, 64])).sum(Kind::Float).double_value(&[]) / sum;
        let y = (of * at.view([1, 1, 64, 1])).sum(Kind::Float).double_value(&[]) / sum;
        (x, y, sum)
    }

    #[test]
    fn each_way_moves_things_as_it_says_and_back() {
        // A picture of 64 x 40 in an input of 64, its centre at (32, 20).
        let placement = Placement::new(640, 400, 64);
        let there = disc(40.0, 16.0, 5.0);
        for (way, x, y) in [
            (WAYS[0], 40.0, 16.0),
            (WAYS[1], 24.0, 16.0),
            (WAYS[2], 32.0 + 8.0 * 1.2, 20.0 - 4.0 * 1.2),
            // 8 to the right and 4 up: mirrored, then turned clockwise by 10 degrees.
            (WAYS[3], 32.0 - 8.0 * 0.9848 + 4.0 * 0.1736, 20.0 - 8.0 * 0.1736 - 4.0 * 0.9848),
        ] {
            let seen = way.seen(&there.expand([1, 3, 64, 64], false), &placement).unwrap();
            let one = seen.narrow(1, 0, 1);
            let (sx, sy, area) = centre(&one);
            assert!((sx - x).abs() < 0.1 && (sy - y).abs() < 0.1, "{way:?}: {sx} {sy}, expected {x} {y}");
            let bigger = way.zoom * way.zoom * there.sum(Kind::Float).double_value(&[]);
            assert!((area / bigger - 1.0).abs() < 0.05, "{way:?}: {area}, expected {bigger}");
            let (bx, by, _) = centre(&way.back(&one, &placement).unwrap());
            assert!((bx - 40.0).abs() < 0.1 && (by - 16.0).abs() < 0.1, "{way:?}: back at {bx} {by}");
        }
    }

    #[test]
    fn a_stretched_frame_is_turned_as_it_is() {
        // 1280 x 640 in a square: a pixel of the frame is twice as high as wide there.
        let placement = Placement::square(1280, 640, 64);
        let turn = way(false, 1.0, 10.0);
        // 8 cells, or 160 pixels of the frame, to the right of the centre: turned clockwise in the frame by 10 degrees.
        let (x, y) = (160.0 * 0.9848 / 20.0, 160.0 * 0.1736 / 10.0);
        let there = disc(40.0, 32.0, 5.0);
        let seen = turn.seen(&there.expand([1, 3, 64, 64], false), &placement).unwrap().narrow(1, 0, 1);
        let (sx, sy, _) = centre(&seen);
        assert!(
            (sx - 32.0 - x).abs() < 0.1 && (sy - 32.0 - y).abs() < 0.1,
            "{sx} {sy}, expected 32 + {x}, 32 + {y}"
        );
        let (bx, by, _) = centre(&turn.back(&seen, &placement).unwrap());
        assert!((bx - 40.0).abs() < 0.1 && (by - 32.0).abs() < 0.1, "back at {bx} {by}");
    }

    #[test]
    fn nothing_is_darker_than_black_and_the_padding_stays() {
        let placement = Placement::new(640, 400, 64);
        // A bright picture, -2 at its darkest, and padding of 0.
        let input = Tensor::full([1, 3, 64, 64], 1.0, (Kind::Float, Device::Cpu));
        let _ = input.narrow(2, 20, 3).narrow(3, 31, 3).fill_(-2.0);
        let _ = input.narrow(2, 40, 24).fill_(0.0);
        for &way in Way::others(MAX_VIEWS) {
            let seen = way.seen(&input, &placement).unwrap();
            let padding = seen.narrow(2, 40, 24).abs().max().double_value(&[]);
            assert_eq!(padding, 0.0, "{way:?}");
            let picture = seen.narrow(2, 0, 40);
            let (darkest, brightest) = (picture.min().double_value(&[]), picture.max().double_value(&[]));
            assert!(darkest > -2.0001 && brightest < 1.0001, "{way:?}: {darkest} to {brightest}");
            // A turn brings what is not there into two corners.
            let corners = [(0, 0), (0, 63), (39, 0), (39, 63)].map(|(y, x)| seen.double_value(&[0, 0, y, x]));
            let black = corners.iter().filter(|v| **v < -1.9).count();
            assert_eq!(black > 0, way.degrees != 0.0, "{way:?}: {corners:?}");
        }
    }

    /// Of `classes` a probability everywhere, a score and a logit of presence.
    fn said(classes: &[usize], p: f64, iou: f64, object_score: Option<f64>) -> Said {
        let n = classes.len() as i64;
        let full = |size: &[i64], v: f64| Tensor::full(size, v, (Kind::Float, Device::Cpu));
        Said {
            classes: classes.to_vec(),
            logits: full(&[n, 1, 64, 64], (p / (1.0 - p)).ln()),
            iou: full(&[n, 1], iou),
            object_score: object_score.map(|v| full(&[n, 1], v)),
            alone: true,
        }
    }

    #[test]
    fn the_mean_is_of_what_each_view_shows() {
        let placement = Placement::square(64, 64, 64);
        let mut views = Views::default();
        // A closer view: it says nothing of the border.
        views.add(WAYS[2], &placement, said(&[0, 1], 0.8, 0.5, Some(2.0))).unwrap();
        let mean = views.mean(said(&[1], 0.2, 0.9, Some(0.9))).unwrap();
        let at = |x: i64, y: i64| mean.logits.sigmoid().double_value(&[0, 0, y, x]);
        assert!((at(32, 32) - 0.5).abs() < 1e-5 && (at(1, 1) - 0.2).abs() < 1e-5);
        assert!((mean.iou.double_value(&[0, 0]) - 0.7).abs() < 1e-6);
        assert!((mean.object_score.unwrap().double_value(&[0, 0]) - 1.45).abs() < 1e-6);
        // Two views, of classes that say different things, asked for in another order.
        let both =
            Said::together(&[said(&[0], 0.5, 0.2, None), said(&[1], 0.8, 0.5, None)]).unwrap().unwrap();
        views.add(WAYS[1], &placement, both).unwrap();
        let mean = views.mean(said(&[1, 0], 0.2, 0.5, None)).unwrap();
        let of = |row: i64| mean.logits.sigmoid().double_value(&[row, 0, 32, 32]);
        assert!((of(0) - 0.6).abs() < 1e-5 && (of(1) - 0.5).abs() < 1e-5);
        assert!((mean.iou.double_value(&[1, 0]) - 0.4).abs() < 1e-6 && mean.object_score.is_none());
        assert!(views.mean(said(&[2], 0.2, 0.5, None)).is_err());
    }

    #[test]
    fn what_is_no_number_is_not_hidden() {
        let placement = Placement::new(640, 400, 64);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            // In a corner that a closer view shows nowhere, and in the padding.
            for (y, x) in [(0, 0), (63, 63)] {
                let spoilt = || {
                    let spoilt = said(&[0, 1], 0.5, 0.5, None);
                    let _ = spoilt.logits.narrow(0, 1, 1).narrow(2, y, 1).narrow(3, x, 1).fill_(bad);
                    spoilt
                };
                let good = || said(&[0, 1], 0.5, 0.5, None);
                for (view, own) in [(spoilt(), good()), (good(), spoilt())] {
                    let mut views = Views::default();
                    views.add(WAYS[2], &placement, view).unwrap();
                    let mean = views.mean(own).unwrap().logits;
                    let finite = |row: i64| mean.get(row).isfinite().all().int64_value(&[]) == 1;
                    assert!(finite(0) && !finite(1), "{bad} at {x}, {y}");
                }
            }
        }
    }

    #[test]
    fn as_many_ways_as_views_but_the_first() {
        assert!(Way::others(1).is_empty() && Way::others(0).is_empty());
        assert_eq!((Way::others(2), Way::others(99).len()), (&WAYS[1..2], MAX_VIEWS - 1));
    }
}

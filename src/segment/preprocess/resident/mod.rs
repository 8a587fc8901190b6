//! Preprocessing where the network is: the bytes of a frame are sent as they are, once, and become the input there.

mod color;
mod scale;
mod staging;

use tch::{Device, TchError, Tensor};

use self::scale::Scaler;
use self::staging::Staging;
use super::{Placement, Preprocess};
use crate::frame::ImageView;
use crate::segment::MAX_INPUT_SIZE;
use crate::segment::graph::Lane;

pub use staging::settle;

/// Makes inputs of frames on a device. What depends on their size is made for the second frame of it, and kept until it changes.
#[derive(Debug)]
pub struct Resident {
    how: Preprocess,
    device: Device,
    staging: Staging,
    /// Where the last frame lay, and what makes the input of such frames, if there was a second one and it is made here.
    scaler: Option<(Placement, Prepared)>,
}

#[derive(Debug)]
enum Prepared {
    NotYet,
    OnCpu,
    Here(Scaler),
}

impl Resident {
    /// For a network on `device` that is fed as `how` says.
    pub fn new(how: Preprocess, device: Device) -> Self {
        Self { how, device, staging: Staging::new(device), scaler: None }
    }

    /// Sends frames by `lane` from here on, past what is queued on the device. Where it fails they go on
    /// without it.
    pub fn send_by(&mut self, lane: Box<dyn Lane>) {
        self.staging.send_by(lane);
    }

    /// The bytes of `view` on the device, as [`Resident::input`] takes them. The next frame may take their
    /// place.
    ///
    /// # Errors
    /// libtorch's.
    pub fn send(&mut self, view: &ImageView<'_>) -> Result<Tensor, TchError> {
        self.staging.send(color::len(view), |bytes| color::write(view, bytes))
    }

    /// What was sent has been used.
    pub fn settled(&mut self) {
        self.staging.settled();
    }

    /// Whether a frame is taken; else the CPU makes its input ([`Preprocess::input`]), as it does for the first of a size.
    ///
    /// # Errors
    /// libtorch's.
    pub fn takes(&mut self, view: &ImageView<'_>, side: usize) -> Result<bool, TchError> {
        if !(1..=MAX_INPUT_SIZE).contains(&side) {
            return Ok(false);
        }
        let placement = self.how.place(view.width(), view.height(), side);
        match &mut self.scaler {
            Some((known, prepared)) if *known == placement => {
                if let Prepared::NotYet = prepared {
                    let made = Scaler::new(self.how, &placement, self.device)?;
                    *prepared = made.map_or(Prepared::OnCpu, Prepared::Here);
                }
                Ok(matches!(prepared, Prepared::Here(_)))
            }
            _ => {
                self.scaler = Some((placement, Prepared::NotYet));
                Ok(false)
            }
        }
    }

    /// The input `[1, 3, side, side]` that the `bytes` of a frame become, if it is the one that
    /// [`Resident::takes`] has taken last. They are those of the last [`Resident::send`], and are not read
    /// again.
    ///
    /// # Errors
    /// libtorch's; a frame that was not taken.
    pub fn input(&mut self, view: &ImageView<'_>, bytes: &Tensor) -> Result<(Tensor, Placement), TchError> {
        let Some((placement, Prepared::Here(scaler))) = &self.scaler else {
            return Err(TchError::Shape("frames of this size are prepared on the CPU".into()));
        };
        // Numbers of another type, so in memory of their own.
        let pixels = color::rgb(view, bytes)?;
        self.staging.used();
        Ok((scaler.input(&pixels, placement)?, *placement))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PixelFormat, Plane, Rgb, YuvColor};
    use crate::segment::graph::{GraphError, Rehearsal};

    /// Speckle on a slope, so that neither ranges nor sums are trivial.
    fn picture(width: usize, height: usize) -> Rgb {
        let value = |i: usize| {
            let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
            (20 + (x * 90 / width + y * 60 / height) + (i * 7919 + c * 31) % 83) as u8
        };
        Rgb { width, height, data: (0..width * height * 3).map(value).collect() }
    }

    /// Input of the CPU and of this, for a frame of so many pixels.
    fn both(how: Preprocess, (w, h): (usize, usize), side: usize) -> Option<(Tensor, Tensor)> {
        let rgb = picture(w, h);
        let data = rgb.to_rgba();
        let plane = vec![Plane { data: &data, stride: 4 * w }];
        let view = ImageView::new(PixelFormat::Rgba, w, h, YuvColor::default(), plane).unwrap();
        let mut resident = Resident::new(how, Device::Cpu);
        assert!(resident.input(&view, &Tensor::zeros([1], (tch::Kind::Uint8, Device::Cpu))).is_err());
        assert!(!resident.takes(&view, side).unwrap(), "nothing is prepared for a size that may come once");
        if !resident.takes(&view, side).unwrap() {
            return None;
        }
        let bytes = resident.send(&view).unwrap();
        let (found, placement) = resident.input(&view, &bytes).unwrap();
        let (expected, place) = how.input(&rgb, side).unwrap();
        assert_eq!(placement, place);
        Some((expected, found))
    }

    const SIZES: [(usize, usize); 6] = [(128, 128), (300, 200), (192, 256), (64, 64), (517, 133), (65, 200)];

    #[test]
    fn an_input_is_what_the_cpu_makes_of_the_frame() {
        for how in [Preprocess::Sam2, Preprocess::Sam2Rad, Preprocess::Sam2RadSquare] {
            for size in SIZES.into_iter().chain([(9, 31), (1, 1)]) {
                let (expected, found) = both(how, size, 64).unwrap();
                let error = f64::try_from((expected - found).abs().max()).unwrap();
                assert!(error < 2e-5, "{how:?} {size:?}: {error}");
            }
        }
    }

    #[test]
    fn where_bytes_are_rounded_hardly_any_is_another_and_none_by_more_than_one() {
        for how in [Preprocess::Sam1, Preprocess::Sam2Video, Preprocess::LiteMedSam] {
            let mut values = 0;
            let mut other = 0;
            for size in SIZES {
                let (expected, found) = both(how, size, 64).unwrap();
                // A gray level in the input: of the family's deviation, or of the range of this picture, which is above 150.
                let level = if how == Preprocess::LiteMedSam { 1.0 / 150.0 } else { 1.0 / (255.0 * 0.224) };
                let off = (expected - found).abs();
                assert!(f64::try_from(off.max()).unwrap() < 1.05 * level, "{how:?} {size:?}");
                values += off.numel();
                other += off.gt(0.1 * level).sum(tch::Kind::Int64).int64_value(&[]);
            }
            assert!((other as f64) < 2e-4 * values as f64, "{how:?}: {other} of {values}");
        }
    }

    #[test]
    fn what_is_not_taken_is_left_to_the_cpu() {
        assert!(both(Preprocess::MedSam, (300, 200), 64).is_none());
        // Where OpenCV interpolates instead of averaging.
        assert!(both(Preprocess::LiteMedSam, (40, 30), 64).is_none());
        assert!(both(Preprocess::Sam2, (9000, 2), 64).is_none());
        assert!(both(Preprocess::Sam2, (10, 10), 0).is_none());
    }

    /// Whoever reads the bytes of a frame after they count as read finds others.
    #[derive(Debug, Default)]
    struct Overwriting(Option<Tensor>);

    impl Lane for Overwriting {
        fn used(&mut self) -> Result<(), GraphError> {
            if let Some(mut to) = self.0.take() {
                let _ = to.f_fill_(7)?;
            }
            Ok(())
        }

        fn copy(&mut self, to: &Tensor, from: &Tensor) -> Result<(), GraphError> {
            self.0 = Some(to.shallow_clone());
            Rehearsal.copy(to, from)
        }
    }

    #[test]
    fn frames_that_go_by_a_lane_have_the_same_inputs_and_keep_them() {
        let resident = || Resident::new(Preprocess::LiteMedSam, Device::Cpu);
        let (mut by_lane, mut plain) = (resident(), resident());
        by_lane.send_by(Box::new(Overwriting::default()));
        for format in PixelFormat::ALL {
            // The second is as large as the input: nothing is scaled.
            for (w, h) in [(96, 70), (64, 64)] {
                let mut kept = Vec::new();
                for frame in 0..4 {
                    let plane = |(i, (row, rows)): (usize, (usize, usize))| -> (Vec<u8>, usize) {
                        let value = |at: usize| (at * 7919 + i * 31 + frame * 57) % 251;
                        ((0..row * rows).map(|at| value(at) as u8).collect(), row)
                    };
                    let planes = format.planes(w, h);
                    let planes: Vec<_> = planes.iter().copied().enumerate().map(plane).collect();
                    let planes =
                        planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
                    let view = ImageView::new(format, w, h, YuvColor::default(), planes).unwrap();
                    let input = |of: &mut Resident| {
                        let taken = of.takes(&view, 64).unwrap();
                        taken.then(|| {
                            let bytes = of.send(&view).unwrap();
                            of.input(&view, &bytes).unwrap().0
                        })
                    };
                    let found = (input(&mut by_lane), input(&mut plain));
                    assert_eq!((found.0.is_some(), found.1.is_some()), (frame > 0, frame > 0));
                    kept.extend(found.0.zip(found.1));
                }
                // Only now: the frames behind it have not changed an input.
                assert_eq!(kept.len(), 3);
                assert!(kept.iter().all(|(found, expected)| found == expected), "{format:?} {w}x{h}");
                assert!(kept.windows(2).all(|two| two[0].0 != two[1].0), "the frames differ");
            }
        }
    }
}

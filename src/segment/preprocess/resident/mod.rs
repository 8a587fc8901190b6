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

    /// The bytes of `view` on the device, as [`Resident::input`] takes them.
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

    /// The input `[1, 3, side, side]` that the `bytes` of a frame become, if it is the one that [`Resident::takes`] has taken last.
    ///
    /// # Errors
    /// libtorch's; a frame that was not taken.
    pub fn input(&self, view: &ImageView<'_>, bytes: &Tensor) -> Result<(Tensor, Placement), TchError> {
        let Some((placement, Prepared::Here(scaler))) = &self.scaler else {
            return Err(TchError::Shape("frames of this size are prepared on the CPU".into()));
        };
        Ok((scaler.input(&color::rgb(view, bytes)?, placement)?, *placement))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PixelFormat, Plane, Rgb, YuvColor};

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
}

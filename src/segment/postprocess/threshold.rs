//! From which probability on a pixel of a predicted mask is inside.

use std::fmt;
use std::str::FromStr;

use tch::{Kind, TchError, Tensor};

use crate::segment::preprocess::Placement;

/// What is tried for [`MaskThreshold::ExpectedDice`]. A half is the last, so that it wins where nothing is better.
const TRIED: [f64; 7] = [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5];

/// From which probability on a pixel of a mask is inside that the predictor found by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MaskThreshold {
    /// A half, as in the official packages.
    #[default]
    Half,
    /// Of 0.2 to 0.5 that with the largest Dice that the probabilities let expect, `2 sum(p inside) / (sum(p) + n inside)`: a predictor that
    /// is unsure of an outline is more often right with a wider one, as the best threshold is half of the Dice that can be reached (Lipton,
    /// Elkan and Naryanaswamy 2014, "Optimal thresholding of classifiers to maximize F1 measure"). Where no pixel is above a half
    /// there is no mask with either.
    ExpectedDice,
}

impl MaskThreshold {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Half, Self::ExpectedDice];

    /// Name in configurations and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Half => "half",
            Self::ExpectedDice => "expected-dice",
        }
    }

    /// Logits `[B, 1, h, w]` (of the whole input, padding included), moved so that what is inside is above zero; `None` if they are
    /// so already. Nothing waits for the device.
    ///
    /// # Errors
    /// libtorch's.
    pub fn moved(self, logits: &Tensor, placement: &Placement) -> Result<Option<Tensor>, TchError> {
        if self == Self::Half {
            return Ok(None);
        }
        let logits = logits.f_to_kind(Kind::Float)?;
        let (_, _, rows, columns) = logits.size4()?;
        let (width, height) = placement.cells([rows, columns]);
        let seen = logits.f_narrow(2, 0, height)?.f_narrow(3, 0, width)?;
        let seen = seen.f_sigmoid()?;
        let sum = |t: &Tensor| t.f_sum_dim_intlist(&[1i64, 2, 3][..], true, Kind::Float);
        let all = sum(&seen)?;
        let (mut best, mut shift) = (all.f_zeros_like()?, all.f_zeros_like()?);
        for tried in TRIED {
            let inside = seen.f_gt(tried)?.f_to_kind(Kind::Float)?;
            let both = sum(&seen.f_mul(&inside)?)?.f_mul_scalar(2.0)?;
            let dice = both.f_div(&all.f_add(&sum(&inside)?)?)?;
            let better = dice.f_ge_tensor(&best)?;
            shift = shift.f_masked_fill(&better, (tried / (1.0 - tried)).ln())?;
            best = dice.f_maximum(&best)?;
        }
        let sure = seen.f_amax([1i64, 2, 3], true)?.f_gt(0.5)?;
        Ok(Some(logits.f_sub(&shift.f_mul(&sure.f_to_kind(Kind::Float)?)?)?))
    }
}

impl fmt::Display for MaskThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MaskThreshold {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|threshold| threshold.name() == name);
        found.ok_or_else(|| format!("unknown mask threshold {name:?}; expected half or expected-dice"))
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Logits of 16 x 16 cells, with these probabilities in squares of these sides.
    fn logits(squares: &[(i64, f64)]) -> Tensor {
        let all = Tensor::full([1, 1, 16, 16], -20.0, (Kind::Float, Device::Cpu));
        for &(side, p) in squares {
            let _ = all.narrow(2, 0, side).narrow(3, 0, side).fill_((p / (1.0 - p)).ln());
        }
        all
    }

    fn area(logits: &Tensor, placement: &Placement) -> i64 {
        let moved = MaskThreshold::ExpectedDice.moved(logits, placement).unwrap().unwrap();
        moved.gt(0.0).sum(Kind::Int64).int64_value(&[])
    }

    #[test]
    fn the_outline_is_the_one_with_the_largest_dice_to_be_expected() {
        let whole = Placement::square(64, 64, 64);
        // 4 cells of 0.9 in 16 of p. Expected: 2 * 3.6 / (sum + 4) against 2 * sum / (sum + 16), and sum = 3.6 + 12 p.
        let of = |p| area(&logits(&[(4, p), (2, 0.9)]), &whole);
        // p = 0.42: 7.2 / 12.64 = 0.570 against 17.28 / 24.64 = 0.701.
        assert_eq!(of(0.42), 16);
        // p = 0.22: 7.2 / 10.24 = 0.703 against 12.48 / 22.24 = 0.561.
        assert_eq!(of(0.22), 4);
        // Below what is tried.
        assert_eq!(of(0.1), 4);
        // Where no cell is above a half there is no mask.
        assert_eq!(area(&logits(&[(4, 0.45)]), &whole), 0);
        assert!(MaskThreshold::Half.moved(&logits(&[(4, 0.45)]), &whole).unwrap().is_none());
    }

    #[test]
    fn the_padding_is_not_looked_at() {
        // 16 cells of 0.42 around 4 of 0.9, and in the padding, the lower half, much that is as unsure.
        let logits = logits(&[(4, 0.42), (2, 0.9)]);
        let _ = logits.narrow(2, 8, 8).fill_((0.21f64 / 0.79).ln());
        // Looked at, it would be worth more than the rest: then the threshold that lets it in is the best.
        assert_eq!(area(&logits, &Placement::new(64, 32, 16)), 16);
        assert_eq!(area(&logits, &Placement::new(64, 64, 16)), 16 + 128);
    }

    #[test]
    fn classes_have_outlines_of_their_own() {
        let both = Tensor::cat(&[logits(&[(4, 0.42), (2, 0.9)]), logits(&[(4, 0.22), (2, 0.9)])], 0);
        let whole = Placement::square(64, 64, 64);
        let moved = MaskThreshold::ExpectedDice.moved(&both, &whole).unwrap().unwrap();
        let areas = moved.gt(0.0).sum_dim_intlist(&[1i64, 2, 3][..], false, Kind::Int64);
        assert_eq!(Vec::<i64>::try_from(areas).unwrap(), [16, 4]);
    }

    #[test]
    fn names_come_back() {
        for threshold in MaskThreshold::ALL {
            assert_eq!(threshold.name().parse(), Ok(threshold));
        }
        assert!("0.5".parse::<MaskThreshold>().is_err());
    }
}

//! Position encodings of queries and image cells. They are computed, not learned.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{TchError, Tensor};

use crate::nn::common::sent;

/// Wavelengths grow from one to this.
const TEMPERATURE: f64 = 10_000.0;
/// What keeps a division by a size from being one by zero.
const EPS: f64 = 1e-6;

/// Encoding of positions on one axis with `channels` values each: sine and cosine of the position at falling frequencies, interleaved.
/// `[positions, channels]`, of the kind and on the device of `like`.
fn sine(positions: impl Iterator<Item = f64>, channels: i64, like: &Tensor) -> Result<Tensor, TchError> {
    let frequencies: Vec<f64> =
        (0..channels / 2).map(|i| TEMPERATURE.powf(-2.0 * i as f64 / channels as f64)).collect();
    let values: Vec<f32> = positions
        .flat_map(|p| frequencies.iter().flat_map(move |f| [(p * f).sin() as f32, (p * f).cos() as f32]))
        .collect();
    let encoding = Tensor::f_from_slice(&values)?.f_reshape([-1, channels])?;
    sent(&encoding, like.device())?.f_to_kind(like.kind())
}

/// What is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Tokens,
    Axis,
}

/// The encodings that one predictor has needed so far: a handful, as its pictures have one size. They are kept, since a GPU would have to
/// be sent them with every frame, and cannot be while its work is recorded.
#[derive(Debug, Default)]
pub(super) struct Positions(RefCell<BTreeMap<(Of, i64, i64, i32), Tensor>>);

impl Positions {
    /// Encoding of the index of each of `tokens` queries, `[tokens, channels]`.
    pub(super) fn tokens(&self, tokens: i64, channels: i64, like: &Tensor) -> Result<Tensor, TchError> {
        self.kept(Of::Tokens, tokens, channels, like, &|n| n as f64)
    }

    /// Encoding of the rows or columns of a picture with `size` of them, `[size, channels]`. A cell's encoding is its row's followed by
    /// its column's (SAM 2's `position_encoding.py`): counted from one and normalised to a turn.
    pub(super) fn axis(&self, size: i64, channels: i64, like: &Tensor) -> Result<Tensor, TchError> {
        let turn = |n: i64| (n + 1) as f64 / (size as f64 + EPS) * std::f64::consts::TAU;
        self.kept(Of::Axis, size, channels, like, &turn)
    }

    /// Of `0..count`, each at the place that `at` says.
    fn kept(
        &self,
        of: Of,
        count: i64,
        channels: i64,
        like: &Tensor,
        at: &dyn Fn(i64) -> f64,
    ) -> Result<Tensor, TchError> {
        let key = (of, count, channels, like.f_kind()? as i32);
        if let Some(known) = self.0.borrow().get(&key) {
            return Ok(known.shallow_clone());
        }
        let made = sine((0..count).map(at), channels, like)?;
        self.0.borrow_mut().insert(key, made.shallow_clone());
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    #[test]
    fn sine_and_cosine_take_turns_and_slow_down() {
        let like = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
        let positions = Positions::default();
        let encoding = positions.tokens(3, 4, &like).unwrap();
        assert_eq!(encoding.size(), [3, 4]);
        let expected = [2f32.sin(), 2f32.cos(), 0.02f32.sin(), 0.02f32.cos()];
        for (ours, expected) in values(&encoding.get(2)).iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-6, "{ours} {expected}");
        }
    }

    #[test]
    fn the_last_row_is_a_whole_turn() {
        let like = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
        let last = values(&Positions::default().axis(64, 2, &like).unwrap().get(63));
        assert!(last[0].abs() < 1e-6 && (last[1] - 1.0).abs() < 1e-6, "{last:?}");
    }

    #[test]
    fn what_is_kept_is_what_was_asked_for() {
        let positions = Positions::default();
        let like = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
        let coarse = Tensor::zeros([1], (Kind::BFloat16, tch::Device::Cpu));
        for _ in 0..2 {
            assert_eq!(positions.tokens(5, 4, &like).unwrap().size(), [5, 4]);
            assert_eq!(positions.tokens(4, 4, &like).unwrap().size(), [4, 4]);
            assert_eq!(positions.tokens(4, 8, &like).unwrap().size(), [4, 8]);
            assert_eq!(positions.tokens(4, 4, &coarse).unwrap().kind(), Kind::BFloat16);
            assert_eq!(values(&positions.tokens(4, 2, &like).unwrap().get(1)), [1f32.sin(), 1f32.cos()]);
            assert_eq!(values(&positions.axis(1, 2, &like).unwrap()).len(), 2);
            assert_ne!(
                values(&positions.axis(4, 4, &like).unwrap()),
                values(&positions.tokens(4, 4, &like).unwrap())
            );
        }
        assert_eq!(positions.0.borrow().len(), 7);
    }
}

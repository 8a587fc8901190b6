//! Position encodings of queries and image cells. They are computed, not learned.

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

/// Encoding of the index of each of `tokens` queries, `[tokens, channels]`.
pub(super) fn token_positions(tokens: i64, channels: i64, like: &Tensor) -> Result<Tensor, TchError> {
    sine((0..tokens).map(|n| n as f64), channels, like)
}

/// Encoding of the rows or columns of a picture with `size` of them, `[size, channels]`. A cell's encoding is its row's followed by its
/// column's (SAM 2's `position_encoding.py`): counted from one and normalised to a turn.
pub(super) fn axis_positions(size: i64, channels: i64, like: &Tensor) -> Result<Tensor, TchError> {
    let turn = |i: i64| i as f64 / (size as f64 + EPS) * std::f64::consts::TAU;
    sine((1..=size).map(turn), channels, like)
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
        let encoding = token_positions(3, 4, &like).unwrap();
        assert_eq!(encoding.size(), [3, 4]);
        let expected = [2f32.sin(), 2f32.cos(), 0.02f32.sin(), 0.02f32.cos()];
        for (ours, expected) in values(&encoding.get(2)).iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-6, "{ours} {expected}");
        }
    }

    #[test]
    fn the_last_row_is_a_whole_turn() {
        let like = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
        let last = values(&axis_positions(64, 2, &like).unwrap().get(63));
        assert!(last[0].abs() < 1e-6 && (last[1] - 1.0).abs() < 1e-6, "{last:?}");
    }
}

//! Sine and cosine position encodings of a grid and of times.
//!
//! Source: `modeling/position_encoding.py` of SAM 2, there `PositionEmbeddingSine` with normalised positions.

use tch::{Device, Kind, TchError, Tensor};

use super::common::sent;

/// The longest wave is so many times the shortest.
const TEMPERATURE: f64 = 10_000.0;
/// Keeps the division by the number of cells defined.
const EPS: f64 = 1e-6;

/// Wavelengths of `half` channels, each of which serves two, `[half / 2]`.
fn waves(half: i64, device: Device) -> Result<Tensor, TchError> {
    let exponents = Tensor::f_arange(half / 2, (Kind::Float, device))?.f_mul_scalar(2.0)?;
    exponents.f_div_scalar(half as f64)?.f_mul_scalar(TEMPERATURE.ln())?.f_exp()
}

/// Encodings of times, `[n, channels]`: sines, then cosines, and neighbours have one wavelength. `channels` is a multiple of 4.
/// Source: `get_1d_sine_pe` in `modeling/sam2_utils.py`.
///
/// # Errors
/// libtorch's.
pub fn sine_of_time(times: &[f32], channels: i64, device: Device) -> Result<Tensor, TchError> {
    let waves = waves(channels / 2, device)?.f_repeat_interleave_self_int(2, 0, None)?;
    let angles = sent(&Tensor::f_from_slice(times)?, device)?.f_unsqueeze(1)?.f_div(&waves)?;
    Tensor::f_cat(&[angles.f_sin()?, angles.f_cos()?], 1)
}

/// Encodings of the cells of an `h` x `w` grid, `[1, channels, h, w]`: half of the channels for y, then half for x, sines and
/// cosines in turn. The channels are innermost in memory. `channels` is a multiple of 4.
///
/// # Errors
/// libtorch's.
pub fn sine_grid(channels: i64, [h, w]: [i64; 2], device: Device) -> Result<Tensor, TchError> {
    let options = (Kind::Float, device);
    let half = channels / 2;
    let waves = waves(half, device)?;
    let axis = |n: i64| -> Result<Tensor, TchError> {
        let at = Tensor::f_arange(n, options)?.f_add_scalar(1.0)?;
        let at = at.f_div_scalar(n as f64 + EPS)?.f_mul_scalar(std::f64::consts::TAU)?;
        let angles = at.f_unsqueeze(1)?.f_div(&waves)?;
        Tensor::f_stack(&[angles.f_sin()?, angles.f_cos()?], -1)?.f_reshape([n, half])
    };
    let y = axis(h)?.f_unsqueeze(1)?.f_expand([h, w, half], false)?;
    let x = axis(w)?.f_unsqueeze(0)?.f_expand([h, w, half], false)?;
    Tensor::f_cat(&[y, x], -1)?.f_permute([2, 0, 1])?.f_unsqueeze(0)
}

//! Resizes as matrices, for devices on which a product costs less than fetching a result from the CPU.
//!
//! Every resize here is separable: an axis is a matrix of `new_len` rows, which say how much each old position gives to a new one.
//! They are nearly empty, and a GPU multiplies them faster than it would gather.

use super::area::shares;
use super::pil::fixed_weight;
use super::window::{Kernel, Windows};

/// One axis of a resize.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// New positions: rows.
    pub new_len: usize,
    /// Old positions: columns.
    pub len: usize,
    /// `new_len * len` weights, row by row.
    pub weights: Vec<f32>,
}

impl Axis {
    fn filled(len: usize, new_len: usize, entries: impl Iterator<Item = (usize, usize, f32)>) -> Self {
        let mut weights = vec![0.0; len * new_len];
        for (to, from, weight) in entries {
            weights[to * len + from] += weight;
        }
        Self { new_len, len, weights }
    }

    fn of_windows(len: usize, windows: &Windows<f64>, to: impl Fn(f64) -> f32) -> Self {
        let entries = windows.iter().enumerate().flat_map(|(new, (first, weights))| {
            weights.iter().enumerate().map(|(i, &w)| (new, first + i, to(w))).collect::<Vec<_>>()
        });
        Self::filled(len, windows.iter().count(), entries)
    }

    /// [`super::resize_float`]'s axes.
    pub fn bilinear(len: usize, new_len: usize, antialias: bool) -> Self {
        let windows = if antialias {
            Windows::antialiased(len, new_len, Kernel::Bilinear, |v| f64::from(v as f32))
        } else {
            Windows::plain_bilinear(len, new_len)
        };
        Self::of_windows(len, &windows, |w| w as f32)
    }

    /// [`super::resize_pil`]'s axes: its weights have 22 bits, which an `f32` holds. Sums are to be rounded as its are, after each axis.
    pub fn pil(len: usize, new_len: usize, kernel: Kernel) -> Self {
        Self::of_windows(len, &Windows::antialiased(len, new_len, kernel, |v| v), fixed_weight)
    }

    /// [`super::resize_area`]'s axes where both shrink; sums are to be rounded to the nearest, halves to even.
    pub fn area(len: usize, new_len: usize) -> Self {
        let shares = shares(len, new_len);
        Self::filled(len, new_len, shares.iter().map(|s| (s.to, s.from, s.weight)))
    }

    /// The sums of whole boxes: [`super::resize_area`] where both sizes are multiples of the new ones.
    pub fn boxes(len: usize, new_len: usize) -> Self {
        let scale = len / new_len.max(1);
        let entries =
            (0..new_len).flat_map(|to| (to * scale..(to + 1) * scale).map(move |from| (to, from, 1.0)));
        Self::filled(len, new_len, entries)
    }
}

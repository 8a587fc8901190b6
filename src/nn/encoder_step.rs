//! What an image encoder shows while it works.

use tch::{TchError, Tensor};

/// A step of an image encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderStep {
    /// The first layers.
    PatchEmbed,
    /// A block, counted from 0 within its layer.
    Block {
        /// Layer, counted from 0.
        layer: usize,
        /// Block in the layer.
        block: usize,
    },
    /// The way from a layer to the next.
    Downsample {
        /// Layer that ends.
        layer: usize,
    },
    /// The neck, and so the embedding.
    Neck,
}

/// Refuses a picture that is not `[B, 3, side, side]`: an encoder's positions are those of one size.
pub(super) fn expect_picture(x: &Tensor, side: i64) -> Result<(), TchError> {
    let (_, channels, h, w) = x.size4()?;
    if (channels, h, w) == (3, side, side) {
        return Ok(());
    }
    Err(TchError::Shape(format!(
        "the encoder takes 3 channels of {side} x {side} pixels, this picture has {channels} of {w} x {h}"
    )))
}

//! Teaching a prompt predictor from labelled pictures.

mod loss;

pub use loss::{Answer, Balance, LossConfig, MaskLoss, Terms, Truth, loss};

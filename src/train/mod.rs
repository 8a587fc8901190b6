//! Teaching a prompt predictor from labelled pictures.

mod data;
mod loss;

pub use data::{
    ClassLabel, DataError, Dataset, DatasetSpec, Labels, MaskLayout, Problem, Sample, SplitError, folds,
    named,
};
pub use loss::{Answer, Balance, LossConfig, MaskLoss, Terms, Truth, loss};

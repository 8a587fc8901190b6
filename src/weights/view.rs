//! A path-scoped view of a checkpoint, which constructors of networks read from.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use tch::{Device, Kind, TchError, Tensor};

use super::checkpoint::{Checkpoint, Dtype, TensorInfo};

/// Why a network cannot be built from a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A key is not there.
    #[error("the weights lack {name}, expected with shape {expected:?}")]
    Missing {
        /// Full key.
        name: String,
        /// Shape the network needs.
        expected: Vec<i64>,
    },
    /// A tensor has another shape.
    #[error("the weights have {name} with shape {found:?}, expected {expected:?}")]
    Shape {
        /// Full key.
        name: String,
        /// Shape the network needs.
        expected: Vec<i64>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has no floating-point type.
    #[error("the weights have {name} as {found:?}, expected a floating-point type")]
    Dtype {
        /// Full key.
        name: String,
        /// Type in the file.
        found: Dtype,
    },
    /// Keys that no part of the network read.
    #[error("the weights hold {} tensors that this network has no place for, the first is {}", names.len(), names.first().map_or("", String::as_str))]
    Unused {
        /// Full keys.
        names: Vec<String>,
    },
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// What all views of one checkpoint share.
#[derive(Debug, Default)]
struct Ledger {
    used: RefCell<BTreeSet<String>>,
    parameters: Cell<u64>,
}

/// The tensors under one path of a checkpoint, as `f32` on one device. Remembers which were read.
#[derive(Clone, Debug)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    device: Device,
    prefix: String,
    ledger: Rc<Ledger>,
}

impl<'a> Weights<'a> {
    /// All of `checkpoint`; tensors go to `device`.
    pub fn new(checkpoint: &'a Checkpoint, device: Device) -> Self {
        Self { checkpoint, device, prefix: String::new(), ledger: Rc::default() }
    }

    /// The view one step down: `w.pp("neck").pp(0)` reads `neck.0.*`.
    #[must_use]
    pub fn pp(&self, part: impl std::fmt::Display) -> Self {
        Self { prefix: self.key(&part.to_string()), ..self.clone() }
    }

    /// Where tensors go.
    pub fn device(&self) -> Device {
        self.device
    }

    /// A learned tensor of `shape`.
    ///
    /// # Errors
    /// A missing key, another shape, a type that is not floating-point.
    pub fn get(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let tensor = self.buffer(name, shape)?;
        self.ledger.parameters.set(self.ledger.parameters.get() + tensor.numel() as u64);
        Ok(tensor)
    }

    /// A tensor of `shape` that belongs to the network but is not learned, such as running statistics.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn buffer(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let name = self.key(name);
        let expected = shape.to_vec();
        let (Some(TensorInfo { dtype, shape: found, .. }), Some(tensor)) =
            (self.checkpoint.info(&name), self.checkpoint.tensor(&name))
        else {
            return Err(WeightsError::Missing { name, expected });
        };
        if !found.iter().map(|&d| d as i64).eq(shape.iter().copied()) {
            return Err(WeightsError::Shape { name, expected, found: found.clone() });
        }
        if !dtype.is_float() {
            return Err(WeightsError::Dtype { name, found: *dtype });
        }
        let tensor = tensor?.f_to_kind(Kind::Float)?.f_to_device(self.device)?;
        self.ledger.used.borrow_mut().insert(name);
        Ok(tensor)
    }

    /// Declares every key that is `name` or lies under it as known and not needed.
    pub fn skip(&self, name: &str) {
        let name = self.key(name);
        let under =
            |key: &str| key.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let known = self.checkpoint.tensors().map(|(key, _)| key).filter(|key| under(key)).map(str::to_owned);
        self.ledger.used.borrow_mut().extend(known);
    }

    /// Elements read by [`Weights::get`] so far, over all views of the checkpoint.
    pub fn parameters(&self) -> u64 {
        self.ledger.parameters.get()
    }

    /// Keys of the whole checkpoint that were neither read nor skipped.
    pub fn unused(&self) -> Vec<String> {
        let used = self.ledger.used.borrow();
        self.checkpoint
            .tensors()
            .map(|(key, _)| key)
            .filter(|key| !used.contains(*key))
            .map(str::to_owned)
            .collect()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`WeightsError::Unused`] if a key was left over: the file is then of another network than it looked like.
    pub fn finish(&self) -> Result<(), WeightsError> {
        let names = self.unused();
        if names.is_empty() { Ok(()) } else { Err(WeightsError::Unused { names }) }
    }

    fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

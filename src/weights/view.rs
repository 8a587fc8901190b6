//! A path-scoped view of named tensors, which constructors of networks read from.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tch::{Device, Kind, TchError, Tensor};

use super::dtype::Dtype;
use super::source::Source;

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
    #[error("libtorch: {}", said(.0))]
    Torch(TchError),
}

impl WeightsError {
    /// The key that it is about, of several the first; `None` for what libtorch refused.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Missing { name, .. } | Self::Shape { name, .. } | Self::Dtype { name, .. } => Some(name),
            Self::Unused { names } => names.first().map(String::as_str),
            Self::Torch(_) => None,
        }
    }
}

impl From<TchError> for WeightsError {
    // Not as a source: whoever prints the chain would print the frames that `said` leaves out.
    fn from(error: TchError) -> Self {
        Self::Torch(error)
    }
}

/// What libtorch says, without the C++ frames that it says it from.
pub fn said(error: &TchError) -> String {
    let text = error.to_string();
    let end = ["\nException raised from ", "\nframe #"].iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].trim_end().to_owned()
}

/// What all views of one source share.
#[derive(Debug, Default)]
struct Ledger {
    read: RefCell<BTreeMap<String, Vec<i64>>>,
    skipped: RefCell<BTreeSet<String>>,
    parameters: Cell<u64>,
    bytes: Cell<u64>,
    trained: RefCell<BTreeMap<String, Tensor>>,
}

/// Which tensors are to be trained, by their full names.
#[derive(Clone)]
struct Trained<'a>(&'a dyn Fn(&str) -> bool);

impl std::fmt::Debug for Trained<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trained")
    }
}

/// The tensors under one path of a [`Source`], as `f32` on one device. Remembers which were read.
#[derive(Clone, Debug)]
pub struct Weights<'a> {
    source: &'a dyn Source,
    device: Device,
    compute: Kind,
    trained: Option<Trained<'a>>,
    prefix: String,
    ledger: Rc<Ledger>,
}

impl<'a> Weights<'a> {
    /// All of `source`; tensors go to `device`.
    pub fn new(source: &'a dyn Source, device: Device) -> Self {
        Self {
            source,
            device,
            compute: Kind::Float,
            trained: None,
            prefix: String::new(),
            ledger: Rc::default(),
        }
    }

    /// The same view, in which learned tensors whose full names `which` chooses are to be trained: they have memory of their
    /// own, ask for gradients, and are listed by [`Weights::trained`].
    #[must_use]
    pub fn training(self, which: &'a dyn Fn(&str) -> bool) -> Self {
        Self { trained: Some(Trained(which)), ..self }
    }

    /// The same view, with the weights of matrix products and convolutions in `kind`; see [`Weights::matrix`].
    #[must_use]
    pub fn computing_in(self, kind: Kind) -> Self {
        Self { compute: kind, ..self }
    }

    /// The view one step down: `w.pp("neck").pp(0)` reads `neck.0.*`.
    #[must_use]
    pub fn pp(&self, part: impl std::fmt::Display) -> Self {
        Self { prefix: self.key(&part.to_string()), ..self.clone() }
    }

    /// The type that matrix products and convolutions are computed in.
    pub fn kind(&self) -> Kind {
        self.compute
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
        self.learned(name, shape, Kind::Float)
    }

    fn learned(&self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, WeightsError> {
        let tensor = self.buffer(name, shape)?;
        self.ledger.parameters.set(self.ledger.parameters.get() + tensor.numel() as u64);
        let name = self.key(name);
        if !self.trained.as_ref().is_some_and(|trained| (trained.0)(&name)) {
            return Ok(tensor.f_to_kind(kind)?);
        }
        // What a source gives may lie in its file, which nobody may write to.
        let mut own = Tensor::f_empty(shape, (kind, self.device))?;
        own.f_copy_(&tensor)?;
        let own = own.f_set_requires_grad(true)?;
        self.ledger.trained.borrow_mut().insert(name, own.shallow_clone());
        Ok(own)
    }

    /// A learned tensor of `shape` for matrix products and convolutions, in the type that they are computed in.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn matrix(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let tensor = self.learned(name, shape, self.compute)?;
        let size = |kind: Kind| tensor.numel() as u64 * kind.elt_size_in_bytes() as u64;
        let saved = size(Kind::Float) - size(self.compute).min(size(Kind::Float));
        self.ledger.bytes.set(self.ledger.bytes.get() - saved);
        Ok(tensor)
    }

    /// A tensor of `shape` that belongs to the network but is not learned, such as running statistics.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn buffer(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let name = self.key(name);
        let tensor = self.source.read(&name, shape)?.f_to_device(self.device)?;
        self.ledger.read.borrow_mut().insert(name, shape.to_vec());
        let bytes = tensor.numel() as u64 * Kind::Float.elt_size_in_bytes() as u64;
        self.ledger.bytes.set(self.ledger.bytes.get() + bytes);
        Ok(tensor)
    }

    /// Shape of `name` if the source has it: the way to ask for parts that a network may have.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.source.shape(&self.key(name))
    }

    /// Declares every key that is `name` or lies under it as known and not needed.
    pub fn skip(&self, name: &str) {
        let name = self.key(name);
        let under =
            |key: &str| key.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.ledger.skipped.borrow_mut().extend(self.source.names().into_iter().filter(|key| under(key)));
    }

    /// Elements read by [`Weights::get`] so far, over all views of the source.
    pub fn parameters(&self) -> u64 {
        self.ledger.parameters.get()
    }

    /// Bytes that everything read so far takes, over all views of the source.
    pub fn bytes(&self) -> u64 {
        self.ledger.bytes.get()
    }

    /// Full names and shapes of everything read so far, over all views of the source.
    pub fn read(&self) -> BTreeMap<String, Vec<i64>> {
        self.ledger.read.borrow().clone()
    }

    /// The tensors that are to be trained, of everything read so far, by their full names. They share their memory with the
    /// network's.
    pub fn trained(&self) -> BTreeMap<String, Tensor> {
        let trained = self.ledger.trained.borrow();
        trained.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Names of the whole source that were neither read nor skipped.
    pub fn unused(&self) -> Vec<String> {
        let (read, skipped) = (self.ledger.read.borrow(), self.ledger.skipped.borrow());
        let mut names = self.source.names();
        names.retain(|name| !read.contains_key(name) && !skipped.contains(name));
        names
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

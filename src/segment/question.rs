//! What the decoder is to be asked about a picture.

use tch::{Device, Tensor};

use crate::nn::{MaskSelection, Prediction};

/// Classes decoded at once on a GPU; bounds the decoder's memory.
const MAX_BATCH: usize = 8;
/// The same on a CPU, where larger batches only leave the caches: eight classes take a fifth longer at once than in pairs
/// (`benches/results/classes.md`).
const MAX_BATCH_CPU: usize = 2;

/// How many classes or objects suit `device` at once.
pub(super) fn at_once(device: Device) -> usize {
    if device.is_cuda() { MAX_BATCH } else { MAX_BATCH_CPU }
}

/// One class as the decoder takes it.
#[derive(Debug)]
pub struct Asked {
    /// Index of the class.
    pub class: usize,
    /// Embedded points and boxes, `[1, n, C]`.
    pub(super) sparse: Tensor,
    /// Embedded mask, `[1, C, h, w]`.
    pub(super) dense: Tensor,
    /// `dense` says something of this class, and is not the embedding of there being no mask.
    pub(super) own_dense: bool,
    /// The predictor's own mask of this class, logits `[1, 1, 4h, 4w]`, which has as much of a say as the decoder's.
    pub(super) interim: Option<Tensor>,
    /// Which of the decoder's masks is meant.
    pub(super) selection: MaskSelection,
    /// The predictor alone speaks of it.
    pub(super) alone: bool,
}

impl Asked {
    /// Whether the predictor alone speaks of it.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Classes that can be decoded together are equal in it.
    pub(super) fn group(&self) -> (i64, u8, bool, bool) {
        let tokens = self.sparse.size().get(1).copied().unwrap_or(0);
        (tokens, self.selection as u8, self.own_dense, self.interim.is_some())
    }
}

/// What the decoder is to be asked about a picture.
#[derive(Debug)]
pub struct Question {
    /// One for each class, those side by side that can be decoded together.
    pub asked: Vec<Asked>,
    /// What the predictor said of its classes, where it took part.
    pub prediction: Option<Prediction>,
}

impl Question {
    /// Classes that are decoded together, not more than suit `device`.
    pub fn batches(&self, device: Device) -> impl Iterator<Item = &[Asked]> {
        let at_once = at_once(device);
        self.asked.chunk_by(|a, b| a.group() == b.group()).flat_map(move |group| group.chunks(at_once))
    }
}

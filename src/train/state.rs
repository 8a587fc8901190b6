//! Where a run has come to: everything that its next step depends on, in one file.
//!
//! What is drawn at random is drawn from the run's seed, the epoch and the place in it, so that no generator has a state.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::TrainError;
use super::optimizer::Optimizer;
use super::output::write_tensors;
use crate::weights::{Checkpoint, Source, WeightsError};

/// Metadata of the state.
const POSITION: &str = "position";

/// Where a run is, beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Of the settings and the data that the run was begun with.
    pub fingerprint: String,
    /// Whole epochs that are done, over all stages.
    pub epoch: u64,
    /// Steps done in the epoch that has begun.
    pub step: u64,
    /// Steps over all epochs.
    pub steps: u64,
    /// Steps of the optimiser, and of each tensor.
    pub optimizer: (u64, BTreeMap<String, u64>),
    /// Sums of the terms of the loss over the epoch that has begun.
    pub sums: BTreeMap<String, f64>,
    /// Largest norm of the gradient in the epoch.
    pub norm: f64,
    /// Seconds spent on the epoch that has begun.
    pub seconds: BTreeMap<String, f64>,
    /// Best mean Dice so far and its epoch.
    pub best: Option<(f64, u64)>,
    /// Measurements since.
    pub stale: u64,
}

/// Writes `position` and the optimiser's tensors; the file is whole or the one before.
///
/// # Errors
/// A file that cannot be written.
pub fn save(file: &Path, position: &Position, optimizer: &Optimizer) -> Result<(), TrainError> {
    let (tensors, steps) = optimizer.state()?;
    let position = Position { optimizer: (optimizer.steps(), steps), ..position.clone() };
    let text = serde_json::to_string(&position).map_err(|e| TrainError::write(file, e.into()))?;
    write_tensors(file, &tensors, HashMap::from([(POSITION.to_owned(), text)]), /* on disk */ true)
}

/// A state that was read.
#[derive(Debug)]
pub struct Saved {
    /// Where the run was.
    pub position: Position,
    file: Checkpoint,
}

impl Saved {
    /// Reads what [`save`] wrote.
    ///
    /// # Errors
    /// A file that is not there or is something else.
    pub fn open(file: &Path) -> Result<Self, TrainError> {
        let wrong = |what: String| TrainError::Resume { file: file.to_owned(), what };
        let found = Checkpoint::open(file).map_err(|e| wrong(e.to_string()))?;
        let text = found.metadata().get(POSITION).ok_or_else(|| wrong("it is no state of a run".into()))?;
        let position = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        Ok(Self { position, file: found })
    }

    /// Gives `optimizer`, and with it the network, what the run had.
    ///
    /// # Errors
    /// Tensors that do not fit.
    pub fn restore(&self, optimizer: &mut Optimizer) -> Result<(), TrainError> {
        let (all, steps) = &self.position.optimizer;
        let read =
            |name: &str, shape: &[i64]| -> Result<Tensor, WeightsError> { self.file.read(name, shape) };
        optimizer
            .restore(read, steps, *all)
            .map_err(|e| TrainError::Resume { file: self.file.path().to_owned(), what: e.to_string() })
    }
}

//! What a training run writes down as it goes: numbers by epoch, curves, and TensorBoard's events.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::curves;
use super::events::Events;
use crate::chart::ChartError;
use crate::whole;

const LINES: &str = "metrics.jsonl";
const CURVES: &str = "curves.svg";
const EVENTS: &str = "tensorboard";

/// One epoch in numbers; a line of `metrics.jsonl`. What is not finite is `null` there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the epoch, rising.
    pub epoch: u64,
    /// Steps of the optimiser since the run began, rising.
    pub step: u64,
    /// What was being trained.
    pub stage: String,
    /// Mean over the epoch of every term of the loss, weighted: `mask`, `interim`, `box`, `presence`, `total`.
    #[serde(deserialize_with = "numbers")]
    pub losses: BTreeMap<String, f64>,
    /// By group of parameters, at the end of the epoch.
    #[serde(deserialize_with = "numbers")]
    pub learning_rates: BTreeMap<String, f64>,
    /// Largest norm of the gradient before it was clipped.
    #[serde(deserialize_with = "number")]
    pub gradient_norm: f64,
    /// On the pictures that are held out; absent in epochs without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// It is the best so far of those whose masks are the network's.
    #[serde(default)]
    pub best: bool,
    /// Wall-clock time by what it was spent on.
    #[serde(deserialize_with = "numbers")]
    pub seconds: BTreeMap<String, f64>,
}

/// How good masks of pictures are that were not learned from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean over the pictures with that class, by class.
    #[serde(deserialize_with = "numbers")]
    pub dice: BTreeMap<String, f64>,
    /// The same of intersection over union.
    #[serde(deserialize_with = "numbers")]
    pub iou: BTreeMap<String, f64>,
    /// Mean of `dice` over classes; the best epoch is chosen by it, among those of whole networks.
    #[serde(deserialize_with = "number")]
    pub mean_dice: f64,
}

/// Why the journal cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file cannot be read or written.
    #[error("{}: {error}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A line that is followed by others is no epoch: this is more than a write that was cut off.
    #[error("{}, line {line}: {what}; expected one epoch a line, as training writes it", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The curves cannot be drawn.
    #[error(transparent)]
    Chart(#[from] ChartError),
}

/// The files of one run.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    lines: File,
    events: Events,
    epochs: Vec<Epoch>,
}

impl Journal {
    /// Begins `metrics.jsonl`, `curves.svg` and `tensorboard/` in `dir`. With `resume_after`, the last epoch of the checkpoint
    /// that training goes on from, lines up to that epoch are kept byte for byte, and later ones are cut off, as is a last
    /// line that a killed run left torn: the file then grows into what a run without interruption writes. Otherwise what an
    /// earlier run left is replaced.
    ///
    /// # Errors
    /// If the files cannot be read or written, or a line before the last is no epoch.
    pub fn open(dir: &Path, resume_after: Option<u64>) -> Result<Self, JournalError> {
        let file = dir.join(LINES);
        let failed = |error| JournalError::Io { file: file.clone(), error };
        let (kept, epochs) = match resume_after {
            Some(last) => keep(&file, last)?,
            None => (String::new(), Vec::new()),
        };
        whole::write(&file, kept.as_bytes()).map_err(failed)?;
        let lines = OpenOptions::new().append(true).open(&file).map_err(failed)?;
        let resume_at = resume_after.map(|_| epochs.last().map_or(0, |e: &Epoch| e.step.saturating_add(1)));
        let tensorboard = dir.join(EVENTS);
        let events = Events::create(&tensorboard, resume_at)
            .map_err(|error| JournalError::Io { file: tensorboard, error })?;
        Ok(Self { dir: dir.to_owned(), lines, events, epochs })
    }

    /// Appends an epoch everywhere and draws the curves again.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&mut self, epoch: &Epoch) -> Result<(), JournalError> {
        let at = |file: &str, error: io::Error| JournalError::Io { file: self.dir.join(file), error };
        let mut line = serde_json::to_string(epoch).map_err(|e| at(LINES, e.into()))?;
        line.push('\n');
        // In one write: a run that is killed tears no line but the last.
        self.lines.write_all(line.as_bytes()).map_err(|e| at(LINES, e))?;
        self.lines.flush().map_err(|e| at(LINES, e))?;
        self.events.scalars(epoch.step, &scalars(epoch)).map_err(|e| at(EVENTS, e))?;
        self.epochs.push(epoch.clone());
        let svg = curves::draw(&self.epochs)?;
        whole::write(&self.dir.join(CURVES), svg.as_bytes()).map_err(|e| at(CURVES, e))
    }

    /// Every epoch so far.
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// The best epoch.
    pub fn best(&self) -> Option<&Epoch> {
        best(&self.epochs)
    }
}

/// The last of those that were the best so far.
pub(super) fn best(epochs: &[Epoch]) -> Option<&Epoch> {
    epochs.iter().rev().find(|epoch| epoch.best)
}

/// The lines of `file` up to epoch `last`, as they stand and as they read.
fn keep(file: &Path, last: u64) -> Result<(String, Vec<Epoch>), JournalError> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(JournalError::Io { file: file.to_owned(), error }),
    };
    // A torn line may end within a character.
    let text = String::from_utf8_lossy(&bytes);
    let (mut kept, mut epochs) = (String::new(), Vec::new());
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let epoch: Epoch = match serde_json::from_str(line) {
            Ok(epoch) => epoch,
            Err(_) if lines.peek().is_none() => break,
            Err(e) => {
                return Err(JournalError::Damaged {
                    file: file.to_owned(),
                    line: at + 1,
                    what: e.to_string(),
                });
            }
        };
        if epoch.epoch > last {
            break;
        }
        kept.push_str(line);
        kept.push('\n');
        epochs.push(epoch);
    }
    let reached = epochs.last().map(|e| e.epoch);
    if reached.unwrap_or(0) != last {
        // Training is worth more than its curves.
        let reached = reached.map_or("none".to_owned(), |e| e.to_string());
        tracing::warn!(
            "{}: the last epoch is {reached}, the checkpoint's {last}: those between are not in the curves",
            file.display()
        );
    }
    Ok((kept, epochs))
}

/// What TensorBoard gets of an epoch.
fn scalars(epoch: &Epoch) -> Vec<(String, f64)> {
    let named = |group: &'static str, values: &BTreeMap<String, f64>| {
        values.iter().map(move |(name, value)| (format!("{group}/{name}"), *value)).collect::<Vec<_>>()
    };
    let mut all = named("loss", &epoch.losses);
    all.extend(named("lr", &epoch.learning_rates));
    all.extend(named("seconds", &epoch.seconds));
    all.push(("gradient_norm".to_owned(), epoch.gradient_norm));
    if let Some(validation) = &epoch.validation {
        all.extend(named("dice", &validation.dice));
        all.extend(named("iou", &validation.iou));
        all.push(("dice_mean".to_owned(), validation.mean_dice));
    }
    all
}

/// A number; `null` stands for what JSON cannot say.
fn number<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or(f64::NAN))
}

/// Numbers by name; `null` as in [`number`].
fn numbers<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let found: BTreeMap<String, Option<f64>> = BTreeMap::deserialize(input)?;
    Ok(found.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

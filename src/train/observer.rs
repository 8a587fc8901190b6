//! What a run tells whoever looks on, and what it comes to.

use std::path::PathBuf;
use std::time::Duration;

use super::journal::Epoch;

/// Who looks on while a run goes.
pub trait Observer {
    /// So many of so many pictures were checked.
    fn checked(&mut self, done: usize, total: usize);
    /// So many of so many views were encoded.
    fn encoded(&mut self, done: usize, total: usize);
    /// The stage after the first `stage` of `stages` is tried with some pictures.
    fn rehearsed(&mut self, stage: usize, stages: usize);
    /// A step of an epoch was made: steps done and steps of the epoch, and of the whole run, and how long that will still take.
    fn stepped(&mut self, epoch: (u64, u64), run: (u64, u64), total_loss: f64, left: Duration);
    /// So many of so many held-out pictures were measured.
    fn measured(&mut self, done: usize, total: usize);
    /// An epoch ended.
    fn ended(&mut self, epoch: &Epoch, best: bool);
    /// Whether the run shall end now; what it has come to is kept.
    fn stopped(&self) -> bool;
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All epochs are done.
    Done,
    /// It got no better for too long.
    Early,
    /// Somebody asked it to end; it can be resumed.
    Stopped,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub ending: Ending,
    /// Epochs done.
    pub epochs: u64,
    /// The best mean Dice and its epoch; none where nothing is held out, or nothing that shows any class.
    pub best: Option<(f64, u64)>,
    /// The predictor to use.
    pub file: PathBuf,
    /// The predictor as the last epoch left it: no held-out picture had a say in which it is.
    pub last: PathBuf,
    /// Of the settings, the weights and the pictures; see [`Position::fingerprint`](super::state::Position::fingerprint).
    pub fingerprint: String,
}

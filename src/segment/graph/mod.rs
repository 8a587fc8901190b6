//! Work of one shape, recorded once by a GPU and then repeated as a whole.
//!
//! A network is hundreds of kernels, and queueing each takes the CPU longer than many of them take the GPU. A graph is queued in one
//! call. It works on the very memory that it was recorded with: a [`Step`] copies what goes in to there, and what comes out from there.

mod cuda;
mod lane;
mod step;
mod tensors;

use std::fmt;

use tch::TchError;

pub use cuda::CudaEngine;
pub use lane::{CudaLane, Lane};
pub use step::Step;
pub use tensors::Tensors;

/// Who records and repeats.
pub trait Engine: fmt::Debug + Send {
    /// Runs `work` in such a way that [`Engine::replay`] can repeat it; it may be run more than once.
    ///
    /// # Errors
    /// Those of `work`, and what cannot be recorded; nothing can be repeated then.
    fn record(&mut self, work: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError>;

    /// Does again what was recorded, with whatever lies in the same memory now. `again` is the same work, written to that memory, for
    /// an engine that records nothing.
    ///
    /// # Errors
    /// What fails when it is queued.
    fn replay(&mut self, again: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError>;
}

/// Why there is no graph, or no lane.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The work itself failed.
    #[error(transparent)]
    Torch(#[from] TchError),
    /// What CUDA or libtorch say of recording.
    #[error("{0}")]
    Cuda(String),
}

/// Repeats by doing everything again, into the memory of before: the way of a graph on a device that has none, for whoever wants to
/// see that it comes to the same. It does the work of the frame that is asked: what a graph would have kept of the frame that was recorded it cannot
/// show.
#[derive(Debug, Default)]
pub struct Rehearsal;

impl Engine for Rehearsal {
    fn record(&mut self, work: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
        Ok(work()?)
    }

    fn replay(&mut self, again: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
        Ok(again()?)
    }
}

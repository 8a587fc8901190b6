//! The running system: source, hand-off, worker, compositor, sink, supervision, report.
//!
//! Threads and lock order are in `ARCHITECTURE.md`. This layer sees a model only as a
//! [`crate::segment::Segmenter`].

mod ai;
mod answer;
mod bus;
mod clocked;
mod compositor;
mod control;
mod exchange;
mod guide;
mod hand_off;
mod intake;
mod no_signal;
mod outlet;
mod report;
mod run;
mod sidecar;
mod ticket;
mod worker;

pub use ai::{OffEvent, Phase};
pub use exchange::{DisplayMode, ExchangeConfig, QueueMode};
pub use guide::Guide;
pub use hand_off::{Composing, HandOff};
pub use report::{Ended, Report};
pub use run::{Finished, Plan, RunError, Snapshot, run};
pub use sidecar::{MaskFormat, SidecarConfig, file_safe};
pub use worker::{ModelFactory, WorkerConfig};

//! What the system costs and how late it is, measured over a matrix of configurations.
//!
//! A [`Matrix`] is read from a file and becomes [`CaseSpec`]s. Each is run by [`run_case`] in a process of its own, so that peak
//! memory, threads and clocks are its own, and comes back as a [`CaseResult`] with the raw times of every frame. A
//! [`BenchResult`] is all of them with the machine they ran on; tables, page and trace are made from it alone.

mod case;
mod closed;
mod compare;
mod compare_page;
mod csv;
mod figures;
mod footage;
mod glass;
mod machine;
mod marker;
mod open;
mod page;
mod percentiles;
mod recorded;
mod resample;
mod result;
mod runner;
mod source;
mod spec;
mod trace;
mod usage;
mod warm;

pub use case::{CaseError, run_case};
pub use compare::{CaseComparison, Comparison, OneSided, Ratio, Side, Throughput, compare};
pub use footage::{Footage, FootageError};
pub use machine::{Gpu, Machine};
pub use marker::{Mark, MarkError, draw_mark, read_mark};
pub use percentiles::percentiles;
pub use result::{BenchResult, CaseResult, CaseStatus, FrameRow, Metric, RULES, ResultError, SCHEMA};
pub use runner::{Line, Runner, RunnerError};
pub use spec::{
    CaseSpec, DEFAULT_BOX, Drive, MAX_CASES, Matrix, ModelAxes, ModelChoice, SourceChoice, StreamMode,
};
pub use trace::chrome_trace;
pub use usage::{GpuUse, Use};

//! sonomask: real-time ultrasound segmentation. See `ARCHITECTURE.md` for the rooms and the threads.

pub mod begin;
pub mod bench;
pub mod chart;
pub mod cine;
pub mod cli;
pub mod config;
pub mod csv;
pub mod dataset;
pub mod eval;
pub mod frame;
pub mod mask;
pub mod media;
pub mod nn;
pub mod overlay;
pub mod phantom;
pub mod pipeline;
pub mod segment;
pub mod stage;
pub mod state;
pub mod telemetry;
pub mod train;
pub mod weights;
pub mod whole;

//! Memory across frames: SAM 2's memory attention on a video that may never end.

mod bank;
mod tracker;

pub use bank::{Bank, BankLimits, Entry};
pub use tracker::{Found, Said, Tracker, TrackerSettings, Video};

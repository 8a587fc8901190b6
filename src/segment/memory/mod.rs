//! Memory across frames: SAM 2's memory attention on a video that may never end.

mod bank;
mod counts;
mod course;
mod scene;
mod settings;
mod sight;
mod tracker;

pub use crate::nn::RECENT_FRAMES;
pub use bank::{Bank, BankLimits, Entry};
pub use counts::{MemoryCounts, MemoryEvent};
pub use course::{Choice, Course, Sight, Turn};
pub use scene::{Continuity, Scene};
pub use settings::{Ask, Blend, MAX_PATIENCE, MAX_POINTERS, MAX_PROMPTED, MAX_STRIDE, MemorySettings};
pub use sight::{Overlaps, Whose, compared, sights, table, tabled};
pub use tracker::{Conditioned, Following, Found, Said, Tracker, TrackerSettings, Video};

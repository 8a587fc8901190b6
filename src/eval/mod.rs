//! How good masks are.

mod bootstrap;
mod distance;
mod metrics;

pub use bootstrap::{Interval, bootstrap};
pub use distance::{centroid_error, hd95};
pub use metrics::{Overlap, Presence};

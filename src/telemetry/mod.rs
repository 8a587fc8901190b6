//! Counts and distributions of a run.

mod histogram;
mod recorder;
mod tape;
mod versions;

pub use histogram::{Latency, LatencySummary};
pub use recorder::{Distributions, FrameCounts, Glance, Recorder};
pub use tape::{FrameTimes, SegmentTimes, Tape};
pub use versions::{libtorch_dir, rustc, versions};

/// Largest resident set of this process so far, in bytes; `None` where the kernel does not say.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    kib.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|k| k * 1024)
}

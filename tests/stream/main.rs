//! The running system, end to end through real GStreamer, on the phantom.

#[path = "../support/mod.rs"]
mod support;

mod display;
mod failures;
mod sources;

use sonomask::phantom::{Phantom, PhantomConfig};

fn pts_of(config: &PhantomConfig, index: u64) -> u64 {
    Phantom::new(config.clone()).expect("a phantom").pts(index).0
}

//! Cine-loop readers against files made here, so that every value is known.
//!
//! `fixtures/cine/*.j2k` are the two gradients below, losslessly packed with Pillow, as no JPEG 2000 encoder is at hand.

#[path = "../cine_inputs/mod.rs"]
mod cine_inputs;

mod files;
mod pixels;

use std::path::Path;

use sonomask::cine::{CineError, CineFrame, CineReader, open};

/// Explicit VR Big Endian, retired, but still in archives.
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

fn all(reader: &mut dyn CineReader) -> Result<Vec<CineFrame>, CineError> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame);
    }
    assert_eq!(frames.len(), reader.frames());
    Ok(frames)
}

fn read(path: &Path) -> Vec<CineFrame> {
    open(path).and_then(|mut r| all(r.as_mut())).unwrap_or_else(|e| panic!("{e}"))
}

fn refusal(path: &Path) -> String {
    match open(path).and_then(|mut r| all(r.as_mut())) {
        Ok(frames) => panic!("read {} frames of what should be refused", frames.len()),
        Err(e) => e.to_string(),
    }
}

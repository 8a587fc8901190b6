//! The phantom as a cine-loop, so that whatever reads recordings can read it.

use std::time::Duration;

use super::{Phantom, PhantomConfig, PhantomError};
use crate::cine::{CineError, CineFrame, CineReader, Timing};
use crate::frame::PixelFormat;

/// Frames of a [`Phantom`] in order, as [`PixelFormat::Gray8`].
#[derive(Clone, Debug)]
pub struct PhantomReader {
    phantom: Phantom,
    next: u64,
}

impl PhantomReader {
    /// A reader at the first frame.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn new(config: PhantomConfig) -> Result<Self, PhantomError> {
        Ok(Self { phantom: Phantom::new(config)?, next: 0 })
    }

    /// The phantom that is read, for the truth of its frames.
    pub fn phantom_mut(&mut self) -> &mut Phantom {
        &mut self.phantom
    }
}

impl CineReader for PhantomReader {
    fn describe(&self) -> String {
        let c = self.phantom.config();
        let geometry = match c.geometry {
            super::Geometry::Linear => "linear",
            super::Geometry::Sector => "sector",
        };
        let frames = c.frames.map_or_else(|| "endless".to_owned(), |n| format!("{n} frames"));
        format!("simulated B-mode, {geometry}, seed {}, {frames} of {}x{}", c.seed, c.width, c.height)
    }

    /// Number of frames; `usize::MAX` for an endless loop.
    fn frames(&self) -> usize {
        self.phantom.config().frames.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)
    }

    fn timing(&self) -> Timing {
        let (num, den) = self.phantom.config().frame_rate();
        Timing::File(format!("phantom.fps, {num}/{den} frames/s"))
    }

    fn next_frame(&mut self) -> Result<Option<CineFrame>, CineError> {
        let index = self.next;
        let config = self.phantom.config();
        if config.frames.is_some_and(|n| index >= n) {
            return Ok(None);
        }
        let (width, height) = (config.width, config.height);
        let pts = self.phantom.pts(index);
        let duration = Duration::from_nanos(self.phantom.pts(index + 1).0 - pts.0);
        self.next += 1;
        let data = self.phantom.image(index);
        Ok(Some(CineFrame { pts, duration, format: PixelFormat::Gray8, width, height, data }))
    }
}

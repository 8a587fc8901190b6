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

#[cfg(test)]
mod tests {
    use super::*;

    /// A quick phantom.
    fn small() -> PhantomConfig {
        PhantomConfig { width: 320, height: 240, ..PhantomConfig::default() }
    }

    #[test]
    fn the_reader_gives_every_frame_with_its_time() {
        // 23.976 frames a second: durations are not whole nanoseconds, so errors would add up.
        let config = PhantomConfig { frames: Some(5), fps: 23.976, stamp: true, ..small() };
        let mut phantom = Phantom::new(config.clone()).unwrap();
        let mut reader = PhantomReader::new(config.clone()).unwrap();
        assert_eq!(reader.frames(), 5);
        assert_eq!(reader.describe(), "simulated B-mode, linear, seed 1, 5 frames of 320x240");
        assert_eq!(reader.timing(), Timing::File("phantom.fps, 2997/125 frames/s".to_owned()));
        let mut next = 0;
        for index in 0..5_u64 {
            let f = reader.next_frame().unwrap().unwrap();
            assert_eq!(f.pts.0, index * 125 * 1_000_000_000 / 2997);
            assert_eq!(f.pts.0, next, "a frame begins where the one before ends");
            next = f.pts.0 + f.duration.as_nanos() as u64;
            assert_eq!((f.format, f.width, f.height), (PixelFormat::Gray8, 320, 240));
            assert_eq!(f.data, phantom.image(index));
        }
        assert!(reader.next_frame().unwrap().is_none() && reader.next_frame().unwrap().is_none());

        let mut endless = PhantomReader::new(PhantomConfig { frames: None, ..config }).unwrap();
        assert_eq!(endless.frames(), usize::MAX);
        assert!(endless.next_frame().unwrap().is_some());
    }
}

//! The picture without a source: NO SIGNAL.

use std::time::Duration;

use super::blend::{Target, paint};
use super::panel::{Layout, Pen};
use super::raster::{Layers, Raster};
use crate::frame::ImageViewMut;

/// Covers the whole of `image` with a slate that says NO SIGNAL and for how many seconds. Nothing of what was there
/// remains, except the alpha or unused byte of the packed formats.
pub fn draw_slate(image: &mut ImageViewMut<'_>, silent: Duration) {
    let target = Target::of(image);
    let layout = Layout::new(&target, 1.0);
    let (mut raster, mut layers) = (Raster::default(), Layers::default());
    let tail = format!("last frame {} s ago", silent.as_secs());
    Pen { target: &target, layout: &layout, raster: &mut raster, layers: &mut layers }
        .slate("NO SIGNAL", &tail);
    paint(image, &layers);
}

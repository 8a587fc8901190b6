//! A picture as it comes.

use crate::frame::{ImageView, Rgb};

/// A picture in one of the forms that the program has it in.
#[derive(Clone, Copy, Debug)]
pub enum Picture<'a> {
    /// As the stream has it.
    View(&'a ImageView<'a>),
    /// As packed RGB, where somebody has needed that anyway.
    Rgb(&'a Rgb),
}

impl Picture<'_> {
    /// Width and height.
    pub fn size(&self) -> (usize, usize) {
        match self {
            Self::View(view) => (view.width(), view.height()),
            Self::Rgb(rgb) => (rgb.width, rgb.height),
        }
    }

    /// The green of row `y`, into as many bytes as the row has pixels; zero where it has not.
    pub fn green_row(&self, y: usize, out: &mut [u8]) {
        match self {
            Self::View(view) => view.green_row(y, out),
            Self::Rgb(rgb) => {
                out.fill(0);
                let row = rgb.data.get(y * rgb.width * 3..).unwrap_or_default();
                out.iter_mut().zip(row.as_chunks::<3>().0).for_each(|(out, px)| *out = px[1]);
            }
        }
    }
}

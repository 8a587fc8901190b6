//! The ways in which the reference implementations resize their pictures. The networks were trained and are published with
//! them, and they differ where it can be seen in the answers.
//!
//! | function | the same as | used by |
//! |---|---|---|
//! | [`resize_area`] | OpenCV, `INTER_AREA`, to the byte | LiteMedSAM |
//! | [`resize_pil`] | Pillow, bilinear and bicubic, to the byte | SAM v1, MobileSAM, SAM 2 on video |
//! | [`resize_float`] | torch's `interpolate`, bilinear with and without `antialias` | SAM 2 on pictures, Sam2Rad |
//! | [`resize_spline`] | scikit-image's `resize` of order 3 with `anti_aliasing` | MedSAM |
//!
//! [`Axis`] has their axes as matrices, for devices that multiply fast.
//!
//! All take interleaved 8-bit pictures without row padding, sizes as (width, height).

mod area;
mod float;
mod matrix;
mod pil;
mod spline;
mod window;

pub use area::resize_area;
pub use float::{Affine, Plane3, resize_float};
pub use matrix::Axis;
pub use pil::resize_pil;
pub use spline::resize_spline;
pub use window::Kernel;

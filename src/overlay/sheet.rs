//! Contact sheets: many frames on one picture, each with a caption.

use noto_sans_mono_bitmap::FontWeight;

use super::blend::{Target, paint};
use super::raster::{Layers, Raster};
use super::text::{Font, chars};
use crate::frame::{ImageError, ImageViewMut, PixelFormat, PlaneMut, Rgb, YuvColor};

/// One picture of a contact sheet.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// The picture.
    pub image: &'a Rgb,
    /// Printed below it, such as `frame 12  0.400s`; cut where the tile ends. Empty for none.
    pub caption: &'a str,
}

/// Why there is no contact sheet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SheetError {
    /// Nothing to show.
    #[error("a contact sheet needs at least one picture and one column")]
    Empty,
    /// A picture whose bytes are not `width * height * 3`.
    #[error("picture {index} of {width}x{height} pixels has {found} bytes")]
    Tile {
        /// Index among the tiles.
        index: usize,
        /// Its width.
        width: usize,
        /// Its height.
        height: usize,
        /// Bytes it has.
        found: usize,
    },
    /// The sheet would be too large.
    #[error(
        "a contact sheet of {width}x{height} pixels is too large; at most {MAX_PIXELS} pixels are written"
    )]
    TooLarge {
        /// Width it would have.
        width: usize,
        /// Height it would have.
        height: usize,
    },
    /// The sheet's size is no picture's size.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Pixels of the largest sheet.
const MAX_PIXELS: usize = 1 << 27;
const PAPER: [u8; 4] = [24, 24, 26, 255];
const INK: [u8; 3] = [225, 225, 225];

/// Lays `tiles` out in rows of `columns`, at their own size, in cells of the largest; smaller pictures are centred.
///
/// # Errors
/// No tiles or columns, a picture with a wrong number of bytes, or a sheet too large to make.
pub fn contact_sheet(tiles: &[Tile<'_>], columns: usize) -> Result<Rgb, SheetError> {
    if tiles.is_empty() || columns == 0 {
        return Err(SheetError::Empty);
    }
    for (index, Tile { image, .. }) in tiles.iter().enumerate() {
        if image.width.checked_mul(image.height).and_then(|n| n.checked_mul(3)) != Some(image.data.len()) {
            let (width, height, found) = (image.width, image.height, image.data.len());
            return Err(SheetError::Tile { index, width, height, found });
        }
    }
    let columns = columns.min(tiles.len());
    let cell_w = tiles.iter().map(|t| t.image.width).max().unwrap_or(0);
    let cell_h = tiles.iter().map(|t| t.image.height).max().unwrap_or(0);
    let font = Font::new(cell_h, 1.0, FontWeight::Regular);
    let gap = (font.line() / 2) as usize;
    let caption_h = font.line() as usize + gap / 2;
    let (step_x, step_y) = (cell_w.saturating_add(gap), cell_h.saturating_add(caption_h + gap));
    let width = step_x.saturating_mul(columns).saturating_add(gap);
    let height = step_y.saturating_mul(tiles.len().div_ceil(columns)).saturating_add(gap);
    if width.checked_mul(height).is_none_or(|n| n > MAX_PIXELS) {
        return Err(SheetError::TooLarge { width, height });
    }

    let mut data = PAPER.repeat(width * height);
    for (i, Tile { image, .. }) in tiles.iter().enumerate() {
        let x = gap + i % columns * step_x + (cell_w - image.width) / 2;
        let y = gap + i / columns * step_y + (cell_h - image.height) / 2;
        for (dy, row) in image.data.chunks_exact((3 * image.width).max(1)).enumerate() {
            let out = data.get_mut(4 * ((y + dy) * width + x)..).unwrap_or(&mut []);
            for (px, rgb) in out.as_chunks_mut::<4>().0.iter_mut().zip(row.as_chunks::<3>().0) {
                px[..3].copy_from_slice(rgb);
            }
        }
    }

    let plane = PlaneMut { data: &mut data, stride: 4 * width };
    let mut sheet = ImageViewMut::new(PixelFormat::Rgba, width, height, YuvColor::default(), vec![plane])?;
    let target = Target::of(&sheet);
    let (mut raster, mut layers) = (Raster::default(), Layers::default());
    for (i, tile) in tiles.iter().enumerate() {
        let x = (gap + i % columns * step_x) as i32;
        let y = (gap + i / columns * step_y + cell_h + gap / 4) as i32;
        let room = font.fit(cell_w as i32);
        raster.begin(&target, font.rect(x, y, chars(tile.caption, room)));
        font.draw(&mut raster, x, y, tile.caption, room);
        layers.push(&target, &raster, INK);
    }
    paint(&mut sheet, &layers);
    Ok(Rgb::from(&sheet.as_view()))
}

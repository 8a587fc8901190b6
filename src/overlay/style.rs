//! What is drawn, how strongly, and in which colours.

use serde::{Deserialize, Deserializer, de};

/// Switches and strengths of the overlay, as they stand in a config's `[overlay]` table.
///
/// Reading refuses unknown keys and values out of range. A `Style` built in code is brought into the same ranges by
/// [`Style::clamped`] before it is used.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Style {
    /// Tint the pixels inside a mask.
    pub fill: bool,
    /// Opacity of the tint, 0..=1.
    #[serde(deserialize_with = "fill_alpha")]
    pub fill_alpha: f32,
    /// Draw an anti-aliased line around each mask.
    pub contour: bool,
    /// Width of the line in pixels of a 720-line frame, 0.5..=16. It grows with the frame's height, but never falls
    /// below one pixel.
    #[serde(deserialize_with = "contour_width")]
    pub contour_width: f32,
    /// Print class name and score at each region.
    pub labels: bool,
    /// List the classes with their colours and areas, bottom left.
    pub legend: bool,
    /// Print AI state and mask age, top left. Without it nothing in the picture tells that the AI is off.
    pub status: bool,
    /// Print "RESEARCH USE ONLY", bottom right.
    pub mark: bool,
    /// Factor on the text size that follows from the frame's height, 0.5..=4.
    #[serde(deserialize_with = "text_scale")]
    pub text_scale: f32,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            fill: true,
            fill_alpha: 0.28,
            contour: true,
            contour_width: 2.0,
            labels: true,
            legend: true,
            status: true,
            mark: true,
            text_scale: 1.0,
        }
    }
}

impl Style {
    /// Everything switched off: the picture passes bit for bit.
    pub fn off() -> Self {
        Self {
            fill: false,
            contour: false,
            labels: false,
            legend: false,
            status: false,
            mark: false,
            ..Self::default()
        }
    }

    /// The same style with every number inside its range; what is not a number becomes the default.
    pub fn clamped(mut self) -> Self {
        let default = Self::default();
        for (value, range, or) in [
            (&mut self.fill_alpha, FILL_ALPHA, default.fill_alpha),
            (&mut self.contour_width, CONTOUR_WIDTH, default.contour_width),
            (&mut self.text_scale, TEXT_SCALE, default.text_scale),
        ] {
            *value = if value.is_nan() { or } else { value.clamp(range.0, range.1) };
        }
        self
    }
}

const FILL_ALPHA: (f32, f32) = (0.0, 1.0);
const CONTOUR_WIDTH: (f32, f32) = (0.5, 16.0);
const TEXT_SCALE: (f32, f32) = (0.5, 4.0);

fn ranged<'de, D: Deserializer<'de>>(
    de: D,
    name: &str,
    unit: &str,
    (low, high): (f32, f32),
) -> Result<f32, D::Error> {
    let value = f32::deserialize(de)?;
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(de::Error::custom(format!("{name} = {value} is out of range, expected {low} to {high}{unit}")))
    }
}

fn fill_alpha<'de, D: Deserializer<'de>>(de: D) -> Result<f32, D::Error> {
    ranged(de, "fill_alpha", "", FILL_ALPHA)
}

fn contour_width<'de, D: Deserializer<'de>>(de: D) -> Result<f32, D::Error> {
    ranged(de, "contour_width", " pixels at 720 lines", CONTOUR_WIDTH)
}

fn text_scale<'de, D: Deserializer<'de>>(de: D) -> Result<f32, D::Error> {
    ranged(de, "text_scale", "", TEXT_SCALE)
}

/// Name and colour of one class.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassStyle {
    /// Name in labels and legend. Latin letters print; others become a replacement sign.
    pub name: String,
    /// R, G, B.
    pub color: [u8; 3],
}

/// Colours that differ in lightness and hue for most colour-blind eyes, and from the grey, red and blue of a scanner.
const PALETTE: [[u8; 3]; 8] = [
    [255, 205, 50],
    [60, 205, 255],
    [240, 110, 210],
    [110, 225, 120],
    [255, 140, 60],
    [165, 145, 255],
    [205, 235, 80],
    [255, 150, 150],
];

impl ClassStyle {
    /// `name` in the `index`-th colour of the built-in palette, which repeats after eight.
    pub fn new(name: impl Into<String>, index: usize) -> Self {
        Self { name: name.into(), color: Self::palette(index) }
    }

    /// The `index`-th colour of the built-in palette, which repeats after eight.
    pub fn palette(index: usize) -> [u8; 3] {
        PALETTE[index % PALETTE.len()]
    }
}

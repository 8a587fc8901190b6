//! What a human (or a config) says about where a class is.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::mask::Mask;

/// Whether coordinates are pixels of the frame or fractions of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// Pixels of the frame, origin at the upper left corner of the first pixel.
    #[default]
    Px,
    /// 0..=1 of the frame's width and height.
    Fraction,
}

/// One click.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Column.
    pub x: f32,
    /// Row.
    pub y: f32,
    /// `true`: this belongs to the class; `false`: it does not.
    pub positive: bool,
}

/// The prompts of one class: any mix, at least one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Index into the run's list of classes.
    pub class: usize,
    /// Unit of `points` and `bbox`.
    pub units: Units,
    /// Clicks.
    pub points: Vec<Point>,
    /// `x0, y0, x1, y1`.
    pub bbox: Option<[f32; 4]>,
    /// A rough mask at frame resolution.
    pub mask: Option<Arc<Mask>>,
    /// Tells a prompt that is given again from one that still stands; only a model with a memory looks at it.
    pub utterance: u64,
}

/// Why a prompt does not fit a frame.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PromptError {
    /// A prompt that says nothing.
    #[error("the prompt of class {class} has no point, box or mask; expected at least one")]
    Empty {
        /// Index of the class.
        class: usize,
    },
    /// A class has two prompts.
    #[error("class {class} has two prompts; expected one, with all its points, its box and its mask")]
    Twice {
        /// Index of the class.
        class: usize,
    },
    /// A coordinate is outside the frame or not a number.
    #[error("class {class}: {what} lies outside the {width}x{height} frame")]
    Outside {
        /// Index of the class.
        class: usize,
        /// The offending prompt, written out.
        what: String,
        /// Frame width.
        width: usize,
        /// Frame height.
        height: usize,
    },
    /// A box whose corners are swapped or equal.
    #[error("class {class}: {what} has no area; corners are x0,y0,x1,y1 with x0 < x1 and y0 < y1")]
    NoArea {
        /// Index of the class.
        class: usize,
        /// The box, written out.
        what: String,
    },
    /// A mask prompt of another size than the frame.
    #[error("class {class}: the mask prompt is {found_width}x{found_height}, the frame {width}x{height}")]
    MaskSize {
        /// Index of the class.
        class: usize,
        /// Mask width.
        found_width: usize,
        /// Mask height.
        found_height: usize,
        /// Frame width.
        width: usize,
        /// Frame height.
        height: usize,
    },
}

/// Whether each class has one prompt at most.
///
/// # Errors
/// The first class with two.
pub(super) fn once_a_class(prompts: &[Prompt]) -> Result<(), PromptError> {
    let mut classes = BTreeSet::new();
    match prompts.iter().find(|p| !classes.insert(p.class)) {
        Some(again) => Err(PromptError::Twice { class: again.class }),
        None => Ok(()),
    }
}

impl Prompt {
    /// The same prompt in pixels of a `width` x `height` frame, checked against it.
    ///
    /// # Errors
    /// No prompt at all, a coordinate outside the frame, a box without area, a mask of another size.
    pub fn in_pixels(&self, width: usize, height: usize) -> Result<Self, PromptError> {
        let class = self.class;
        if self.points.is_empty() && self.bbox.is_none() && self.mask.is_none() {
            return Err(PromptError::Empty { class });
        }
        let (sx, sy) = match self.units {
            Units::Px => (1.0, 1.0),
            Units::Fraction => (width as f32, height as f32),
        };
        let inside = |x: f32, y: f32| (0.0..=width as f32).contains(&x) && (0.0..=height as f32).contains(&y);
        let mut points = self.points.clone();
        for p in &mut points {
            (p.x, p.y) = (p.x * sx, p.y * sy);
            if !inside(p.x, p.y) {
                let what = format!("point {},{}", p.x, p.y);
                return Err(PromptError::Outside { class, what, width, height });
            }
        }
        let bbox = self.bbox.map(|[x0, y0, x1, y1]| [x0 * sx, y0 * sy, x1 * sx, y1 * sy]);
        if let Some([x0, y0, x1, y1]) = bbox {
            let what = format!("box {x0},{y0},{x1},{y1}");
            if !inside(x0, y0) || !inside(x1, y1) {
                return Err(PromptError::Outside { class, what, width, height });
            }
            if x0 >= x1 || y0 >= y1 {
                return Err(PromptError::NoArea { class, what });
            }
        }
        if let Some(m) = &self.mask
            && (m.width(), m.height()) != (width, height)
        {
            return Err(PromptError::MaskSize {
                class,
                found_width: m.width(),
                found_height: m.height(),
                width,
                height,
            });
        }
        Ok(Self { units: Units::Px, points, bbox, ..self.clone() })
    }
}

//! Curves over an axis, as SVG: how a training went, what more pictures bring, and how late frames are.

mod axis;
mod draw;
mod markup;

pub use markup::escaped;

/// Smallest picture that has room for axes, pixels.
const SMALLEST: (u32, u32) = (320, 200);
/// Largest picture, pixels a side.
const LARGEST: u32 = 1 << 14;

/// Panels of curves, one below the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// Above all panels; none if empty.
    pub title: String,
    /// From top to bottom, all equally high.
    pub panels: Vec<Panel>,
}

/// Curves with common axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// What x is.
    pub x_label: String,
    /// What y is.
    pub y_label: String,
    /// What stands at the ticks of x.
    pub x: XAxis,
    /// How y grows.
    pub y_scale: Scale,
    /// Ends of x, the lower first, where x counts; taken from the curves if absent. What lies beyond is drawn at the edge.
    pub x_range: Option<(f64, f64)>,
    /// Ends of y, as of x.
    pub y_range: Option<(f64, f64)>,
    /// In the order of the legend.
    pub series: Vec<Series>,
    /// Places of x worth a line.
    pub marks: Vec<Mark>,
}

/// What stands at the ticks of x.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum XAxis {
    /// Whole numbers: x counts something.
    #[default]
    Counts,
    /// Numbers of any size: x measures something.
    Values,
    /// The same, growing by factors. What is not above zero has no place on it and is a gap.
    Log,
    /// These words at 0, 1, 2, ...: x tells cases apart that have no common measure, such as 5, 10, 20 pictures and all.
    Cases(Vec<String>),
}

/// How y grows along its axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// By factors. What is not above zero has no place on it and is a gap.
    Log,
}

/// A curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// `(x, y)` from left to right. What is not finite is a gap.
    pub points: Vec<(f64, f64)>,
    /// `(x, low, high)` from left to right: how sure the curve is.
    pub band: Option<Vec<(f64, f64, f64)>>,
    /// The sum or the mean of the others: drawn black and wide.
    pub strong: bool,
}

/// A vertical line with a word.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// Beside the line's upper end.
    pub text: String,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// Too small for axes, or larger than anybody's screen.
    #[error("a chart of {width}x{height} pixels: expected at least {}x{}, at most {LARGEST} a side", SMALLEST.0, SMALLEST.1)]
    Size {
        /// Asked for.
        width: u32,
        /// Asked for.
        height: u32,
    },
    /// The drawing library's reason.
    #[error("the chart cannot be drawn: {0}")]
    Drawing(String),
}

impl Chart {
    /// The picture, `width` by `height` pixels, on white. Up to seven curves a panel have colours of their own (Okabe and Ito's,
    /// which colour-blind people can tell apart); those after them have the same again, dashed.
    ///
    /// # Errors
    /// A size out of range, or what the drawing library says.
    pub fn svg(&self, width: u32, height: u32) -> Result<String, ChartError> {
        let fits = (SMALLEST.0..=LARGEST).contains(&width) && (SMALLEST.1..=LARGEST).contains(&height);
        if !fits {
            return Err(ChartError::Size { width, height });
        }
        draw::svg(self, width, height).map_err(|e| ChartError::Drawing(e.to_string()))
    }
}

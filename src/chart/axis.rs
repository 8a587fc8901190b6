//! From values to places along an axis, and the ticks beside it.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::{Panel, Scale, XAxis};

/// Ticks along an axis, at most about so many.
const TICKS: f64 = 8.0;
/// Room beyond the outermost values, as a share of their distance.
const MARGIN: f64 = 0.05;
/// Half the width of a case, so that the outermost do not stand on the frame.
const CASE: f64 = 0.35;
/// Values that an axis tells apart: beyond this, differences of doubles are lost, or none are left.
const BOUND: f64 = 1e300;

/// One axis; a coordinate of plotters, in places.
#[derive(Clone)]
pub(super) struct Axis {
    /// Ends, as places.
    pub(super) range: Range<f64>,
    /// Places with what stands there.
    ticks: Vec<(f64, String)>,
    scale: Scale,
}

impl Axis {
    /// The axis of x.
    pub(super) fn x(panel: &Panel) -> Self {
        if let XAxis::Cases(names) = &panel.x {
            let last = names.len().saturating_sub(1) as f64;
            let ticks = names.iter().enumerate().map(|(i, name)| (i as f64, name.clone())).collect();
            return Self { range: -CASE..last + CASE, ticks, scale: Scale::Linear };
        }
        let scale = if panel.x == XAxis::Log { Scale::Log } else { Scale::Linear };
        let range = asked(scale, panel.x_range).unwrap_or_else(|| {
            let curves = panel.series.iter().flat_map(|s| s.points.iter().map(|p| p.0));
            let bands = panel.series.iter().filter_map(|s| s.band.as_ref()).flatten().map(|b| b.0);
            extent(curves.chain(bands).map(|v| place(scale, v))).unwrap_or(0.0..1.0)
        });
        let range = if range.end > range.start { range } else { range.start - 0.5..range.end + 0.5 };
        let ticks = match panel.x {
            XAxis::Log => decades(&range),
            XAxis::Values => linear(&range, 0.0),
            XAxis::Counts | XAxis::Cases(_) => linear(&range, 1.0),
        };
        Self { range, ticks, scale }
    }

    /// The axis of y.
    pub(super) fn y(panel: &Panel) -> Self {
        let scale = panel.y_scale;
        let range = asked(scale, panel.y_range).unwrap_or_else(|| {
            let curves = panel.series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
            let bands = panel.series.iter().filter_map(|s| s.band.as_ref()).flatten();
            let values = curves.chain(bands.flat_map(|b| [b.1, b.2]));
            let range = extent(values.map(|v| place(scale, v))).unwrap_or(0.0..1.0);
            let span = range.end - range.start;
            // One value alone: a tenth of it around it, so that its tick can be told from its neighbours'.
            let room = if span > 0.0 { span * MARGIN } else { (range.start.abs() * 0.1).max(0.1) };
            range.start - room..range.end + room
        });
        let ticks = match scale {
            Scale::Linear => linear(&range, 0.0),
            Scale::Log => decades(&range),
        };
        Self { range, ticks, scale }
    }

    /// Where `value` stands, within the ends; `None` if nowhere.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let place = place(self.scale, value);
        place.is_finite().then(|| place.clamp(self.range.start, self.range.end))
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (first, last): (i32, i32)) -> i32 {
        let share = (place - self.range.start) / (self.range.end - self.range.start);
        (f64::from(first) + share * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The finer lines that plotters would draw between ticks are none.
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|tick| tick.0).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(place: &f64) -> String {
        place.to_string()
    }

    fn format_ext(&self, place: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.0 == *place);
        tick.map(|tick| tick.1.clone()).unwrap_or_default()
    }
}

/// The ends that were asked for, as places; `None` where they are no range.
fn asked(scale: Scale, ends: Option<(f64, f64)>) -> Option<Range<f64>> {
    let range = ends.map(|(low, high)| place(scale, low)..place(scale, high));
    range.filter(|r| r.start < r.end)
}

fn place(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear if value.abs() <= BOUND => value,
        Scale::Log if value > 0.0 => value.log10(),
        _ => f64::NAN,
    }
}

/// The smallest and the largest of those that are finite.
fn extent(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    values
        .filter(|v| v.abs() <= BOUND)
        .fold(None, |range: Option<Range<f64>>, v| Some(range.map_or(v..v, |r| r.start.min(v)..r.end.max(v))))
}

/// Multiples of 1, 2 or 5 times a power of ten, `least` apart or more.
fn linear(range: &Range<f64>, least: f64) -> Vec<(f64, String)> {
    let rough = ((range.end - range.start) / TICKS).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough);
    let step = step.unwrap_or(rough).max(least);
    let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    let (first, last) = ((range.start / step - 1e-9).ceil(), (range.end / step + 1e-9).floor());
    // Bounded even where the step is lost beside the values.
    let count = (last - first).clamp(-1.0, 4.0 * TICKS) as i64;
    (0..=count)
        .map(|i| {
            let value = (first + i as f64) * step;
            let text = if value != 0.0 && !(1e-4..1e6).contains(&value.abs()) {
                format!("{value:.1e}")
            } else {
                format!("{:.decimals$}", value + 0.0)
            };
            (value, text)
        })
        .collect()
}

/// Powers of ten; also twice and five times them where few powers are in `range`. Places are logarithms.
fn decades(range: &Range<f64>) -> Vec<(f64, String)> {
    let span = range.end - range.start;
    let every = (span / TICKS).ceil().max(1.0) as i32;
    let factors: &[f64] = match span {
        s if s > 3.0 => &[1.0],
        s if s > 0.5 => &[1.0, 2.0, 5.0],
        _ => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
    };
    let mut ticks = Vec::new();
    for power in range.start.floor() as i32..=range.end.ceil() as i32 {
        for factor in factors.iter().filter(|_| power.rem_euclid(every) == 0) {
            let place = f64::from(power) + factor.log10();
            if place >= range.start && place <= range.end {
                ticks.push((place, power_text(*factor, power)));
            }
        }
    }
    ticks
}

fn power_text(factor: f64, power: i32) -> String {
    if (-4..6).contains(&power) {
        // Through text, so that 10 to the -3 times 2 is 0.002 and not 0.0020000000000000001.
        format!("{factor}e{power}").parse::<f64>().map(|v| v.to_string()).unwrap_or_default()
    } else {
        format!("{factor}e{power}")
    }
}

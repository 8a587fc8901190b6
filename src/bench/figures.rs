//! The pictures of a result, as SVG: distributions, where the time goes, and what happened when.

use std::fmt::Write as _;

use super::percentiles::quantile;
use super::result::{CaseResult, FrameRow, Metric};
use super::spec::Drive;
use crate::chart::{Chart, ChartError, Mark, Panel, Scale, Series, XAxis, escaped};
use crate::stage::Stage;

/// Points of a curve: more cannot be told apart.
const POINTS: usize = 300;
/// Curves of one chart, half of them dashed; further ones get a chart of their own.
const CURVES: usize = 14;
/// Axes of a larger ratio grow by factors.
const EVEN: f64 = 4.0;
/// Width of every picture, pixels.
pub(super) const WIDTH: u32 = 1080;
/// Colours of stages, in the order of [`Stage::ALL`]; neighbours differ most, the encoder is the darkest.
const COLOURS: [&str; 12] = [
    "#9aa5b1", "#d9dde2", "#8fd0c4", "#e6b84c", "#20639b", "#173f5f", "#c98bb9", "#3caea3", "#f6d55c",
    "#7b5ea7", "#ed553b", "#6b6b6b",
];
pub(super) const INK: &str = "#1c2024";
pub(super) const FAINT: &str = "#5b6570";
pub(super) const GOOD: &str = "#1f7a4d";
pub(super) const BAD: &str = "#a3341f";

/// One metric's distributions over cases: share of frames that took at most so long. `numbered` are cases with their numbers.
pub(super) fn distributions(
    title: &str,
    metric: &Metric,
    numbered: &[(usize, &CaseResult)],
) -> Result<Vec<String>, ChartError> {
    let curves: Vec<Series> = numbered
        .iter()
        .filter_map(|(n, case)| Some(Series { name: short(*n, case), ..cdf(&case.values(metric))? }))
        .collect();
    let charts = curves.len().div_ceil(CURVES).max(1);
    let several = charts > 1;
    curves
        .chunks(curves.len().div_ceil(charts).max(1))
        .enumerate()
        .map(|(i, curves)| {
            let part = if several { format!(" ({})", i + 1) } else { String::new() };
            chart(&format!("{title}{part}"), vec![cdf_panel(curves.to_vec())], 380)
        })
        .collect()
}

/// One metric's distributions in two results. `None` where there is nothing to draw.
pub(super) fn side_by_side(
    metric: &Metric,
    a: &CaseResult,
    b: &CaseResult,
) -> Result<Option<String>, ChartError> {
    let curves = [("A", a), ("B", b)]
        .into_iter()
        .filter_map(|(name, case)| Some(Series { name: name.to_owned(), ..cdf(&case.values(metric))? }));
    let curves: Vec<Series> = curves.collect();
    if curves.is_empty() {
        return Ok(None);
    }
    chart(metric.name(), vec![cdf_panel(curves)], 320).map(Some)
}

/// The distributions of one case's whole ways, and how they went over time. `None` where there is nothing to draw.
pub(super) fn ways(case: &CaseResult) -> Result<Option<String>, ChartError> {
    let metrics = [Metric::EndToEnd, Metric::GlassToGlass, Metric::MaskReady, Metric::MaskAge];
    let curves: Vec<Series> = metrics
        .iter()
        .filter_map(|m| Some(Series { name: m.name().to_owned(), ..cdf(&case.values(m))? }))
        .collect();
    let courses: Vec<Series> = metrics
        .iter()
        .map(|m| {
            let points = case
                .rows
                .iter()
                .map(|row| (row.due_ms / 1e3, m.of(row, case.case.drive).unwrap_or(f64::NAN)));
            Series { name: m.name().to_owned(), points: thin(points.collect()), ..Series::default() }
        })
        .filter(|s| s.points.iter().any(|p| p.1 > 0.0))
        .collect();
    if curves.is_empty() || courses.is_empty() {
        return Ok(None);
    }
    let warm = case.rows.iter().find(|row| row.counted).filter(|row| row.frame > 0);
    let course = Panel {
        x_label: "when the frame was due, s".into(),
        y_label: "ms".into(),
        x: XAxis::Values,
        y_scale: if wide(courses.iter().flat_map(|s| s.points.iter().map(|p| p.1))) {
            Scale::Log
        } else {
            Scale::Linear
        },
        series: courses,
        marks: warm
            .map(|row| Mark { x: row.due_ms / 1e3, text: "counted from here".into() })
            .into_iter()
            .collect(),
        ..Panel::default()
    };
    chart("", vec![cdf_panel(curves), course], 560).map(Some)
}

fn cdf_panel(series: Vec<Series>) -> Panel {
    Panel {
        x_label: "ms".into(),
        y_label: "share of frames".into(),
        x: if wide(series.iter().flat_map(|s| s.points.iter().map(|p| p.0))) {
            XAxis::Log
        } else {
            XAxis::Values
        },
        y_range: Some((0.0, 1.0)),
        series,
        ..Panel::default()
    }
}

fn chart(title: &str, panels: Vec<Panel>, height: u32) -> Result<String, ChartError> {
    Chart { title: title.into(), panels }.svg(WIDTH, height)
}

/// Whether values differ so much that small ones would be lost beside large ones.
fn wide(values: impl Iterator<Item = f64>) -> bool {
    let ends = values
        .filter(|v| *v > 0.0)
        .fold((f64::MAX, 0.0), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
    ends.1 > EVEN * ends.0
}

/// Quantiles as a curve; `None` without values above zero.
fn cdf(values: &[f64]) -> Option<Series> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.last().filter(|max| **max > 0.0)?;
    let n = sorted.len().min(POINTS);
    let point = |i: usize| {
        let share = i as f64 / n as f64;
        Some((quantile(&sorted, share)?, share))
    };
    Some(Series { points: (1..=n).filter_map(point).collect(), ..Series::default() })
}

/// At most [`POINTS`] points: of each stretch the highest, because stalls are what one looks for.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points;
    }
    let highest = |stretch: &[(f64, f64)]| stretch.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(points.len().div_ceil(POINTS)).filter_map(highest).collect()
}

/// A case in a few words.
pub(super) fn short(number: usize, case: &CaseResult) -> String {
    let memory = if case.case.memory { " mem" } else { "" };
    let drive = match case.case.drive {
        Drive::Closed => String::new(),
        Drive::Open { rate, stream } => format!(" {rate}/s {}", stream.name()),
    };
    format!("{number} {} {}{memory}{drive}", case.case.model.name, case.case.precision)
}

/// Where the time of a frame goes: one bar a case, mean times of its stages, each over the frames that passed it.
pub(super) fn stage_bars(numbered: &[(usize, &CaseResult)]) -> String {
    const NAMES: f64 = 330.0;
    const ROW: f64 = 26.0;
    let width = f64::from(WIDTH);
    let of = |case: &CaseResult| -> Vec<(Stage, f64)> {
        let mean = |s: Stage| {
            let values = case.values(&Metric::Stage(s));
            (!values.is_empty()).then(|| (s, values.iter().sum::<f64>() / values.len() as f64))
        };
        Stage::ALL.into_iter().filter_map(mean).collect()
    };
    let bars: Vec<(String, Vec<(Stage, f64)>)> =
        numbered.iter().map(|(n, case)| (short(*n, case), of(case))).filter(|(_, s)| !s.is_empty()).collect();
    let sum = |stages: &[(Stage, f64)]| stages.iter().map(|s| s.1).sum::<f64>();
    let longest = bars.iter().map(|(_, stages)| sum(stages)).fold(0.0, f64::max).max(1e-9);
    let scale = (width - NAMES - 110.0) / longest;
    let legend =
        legend(Stage::ALL.into_iter().filter(|s| bars.iter().any(|(_, b)| b.iter().any(|(t, _)| t == s))));
    let mut body = String::new();
    for (i, (name, stages)) in bars.iter().enumerate() {
        let y = legend.1 + 8.0 + i as f64 * ROW;
        text(&mut body, (NAMES - 8.0, y + 14.0), "end", INK, name);
        let mut x = NAMES;
        for &(stage, ms) in stages {
            rect(
                &mut body,
                (x, y, ms * scale, ROW - 8.0),
                colour(stage),
                &format!("{}: {ms:.3} ms", stage.name()),
            );
            x += ms * scale;
        }
        text(&mut body, (x + 6.0, y + 14.0), "start", FAINT, &format!("{:.2} ms", sum(stages)));
    }
    svg(legend.1 + 16.0 + bars.len() as f64 * ROW, &(legend.0 + &body), "Mean time of each stage, by case")
}

/// What happened when, at the beginning of what counts: when frames were due, what the model was doing, when they were shown.
/// `None` where there is nothing to draw.
pub(super) fn timeline(case: &CaseResult) -> Option<String> {
    const LEFT: f64 = 110.0;
    /// Frames that the model takes within the picture, and frames that are due in it.
    const MODEL: usize = 6;
    const DUE: usize = 90;
    let counted: Vec<&FrameRow> = case.rows.iter().filter(|row| row.counted).collect();
    let from = counted.first()?.due_ms;
    let model_end = counted.iter().filter_map(|row| row.ended_ms).nth(MODEL - 1).or(counted.last()?.ended_ms);
    let due_end = counted.get(DUE).or(counted.last())?.due_ms;
    let last = counted.iter().flat_map(|row| [row.ended_ms, row.pushed_ms]).flatten().fold(due_end, f64::max);
    let to = model_end
        .map_or(last, |end| if counted.len() > DUE { end.min(due_end) } else { end })
        .max(from + 1e-3);
    let scale = (f64::from(WIDTH) - LEFT - 20.0) / (to - from);
    let x = |ms: f64| LEFT + (ms - from) * scale;
    let inside = |ms: f64| (from..=to).contains(&ms);
    let open = case.case.drive != Drive::Closed;
    let stages: Vec<Stage> = MODEL_STAGES
        .into_iter()
        .filter(|s| counted.iter().any(|r| r.stages_ms.contains_key(s.name())))
        .collect();
    let (legend, top) = legend(stages.iter().copied());
    let (due_y, model_y, out_y) =
        if open { (top + 14.0, top + 44.0, top + 92.0) } else { (top, top + 10.0, top + 24.0) };
    // Behind everything else.
    let (mut body, mut lines) = (legend, String::new());
    let lanes = [("due", due_y + 10.0), ("model", model_y + 18.0), ("shown", out_y + 10.0)];
    for (name, y) in lanes.iter().filter(|(name, _)| open || *name == "model") {
        text(&mut body, (LEFT - 10.0, *y), "end", INK, name);
    }
    for row in case.rows.iter().filter(|row| inside(row.due_ms) || row.ended_ms.is_some_and(inside)) {
        if let (Some(began), Some(ended)) = (row.began_ms, row.ended_ms) {
            let mut at = began;
            let title = format!("frame {}: {:.2} ms", row.frame, ended - began);
            outline(
                &mut body,
                (x(began.max(from)), model_y, (ended.min(to) - began.max(from)) * scale, 28.0),
                &title,
            );
            for stage in &stages {
                let Some(&ms) = row.stages_ms.get(stage.name()) else { continue };
                let (a, b) = (at.clamp(from, to), (at + ms).clamp(from, to));
                let title = format!("frame {}, {}: {ms:.3} ms", row.frame, stage.name());
                rect(&mut body, (x(a), model_y, (b - a) * scale, 28.0), colour(*stage), &title);
                at += ms;
            }
        }
        if !open {
            continue;
        }
        if inside(row.due_ms) {
            let lost = row.pushed_ms.is_none();
            let title = format!("frame {} due{}", row.frame, if lost { ", never shown" } else { "" });
            rect(&mut body, (x(row.due_ms), due_y, 2.0, 14.0), if lost { BAD } else { INK }, &title);
        }
        if let Some(pushed) = row.pushed_ms.filter(|ms| inside(*ms)) {
            let title = format!("frame {} shown {:.2} ms after it was due", row.frame, pushed - row.due_ms);
            let masked = if row.mask_age_ms.is_some() { GOOD } else { FAINT };
            rect(&mut body, (x(pushed), out_y, 2.0, 14.0), masked, &title);
            if inside(row.due_ms) {
                let (a, b) = (x(row.due_ms) + 1.0, x(pushed) + 1.0);
                let _ = write!(
                    lines,
                    "<path d=\"M{a:.1} {:.1}L{b:.1} {out_y:.1}\" stroke=\"#b9c1c9\" stroke-width=\"0.7\" fill=\"none\"/>",
                    due_y + 14.0
                );
            }
        }
    }
    let base = out_y + 30.0;
    let step = step(to - from);
    for i in 0..=((to - from) / step) as u32 {
        let ms = step * f64::from(i);
        rect(&mut body, (x(from + ms), base - 6.0, 1.0, 6.0), FAINT, "");
        text(&mut body, (x(from + ms), base + 14.0), "middle", FAINT, &axis_text(ms, to - from));
    }
    Some(svg(base + 24.0, &(lines + &body), "When frames were due, worked on and shown"))
}

/// Between ticks: 1, 2 or 5 times a power of ten, at most ten of them.
fn step(span: f64) -> f64 {
    let power = 10f64.powf((span / 10.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| span / s <= 10.0).unwrap_or(span)
}

fn axis_text(ms: f64, span: f64) -> String {
    if span < 10.0 {
        format!("{ms:.2} ms")
    } else if span < 4000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1e3)
    }
}

/// Stages of the model's thread, in the order in which a call passes them.
pub(super) const MODEL_STAGES: [Stage; 8] = [
    Stage::Preprocess,
    Stage::Upload,
    Stage::Encode,
    Stage::MemoryAttention,
    Stage::Prompt,
    Stage::Decode,
    Stage::Postprocess,
    Stage::MemoryEncoder,
];

fn colour(stage: Stage) -> &'static str {
    COLOURS.get(stage as usize).copied().unwrap_or(INK)
}

/// Stages with their colours, and how high that is.
fn legend(stages: impl Iterator<Item = Stage>) -> (String, f64) {
    let (mut body, mut x, mut y) = (String::new(), 10.0, 4.0);
    for stage in stages {
        let width = 28.0 + 8.0 * stage.name().len() as f64;
        if x + width > f64::from(WIDTH) {
            (x, y) = (10.0, y + 20.0);
        }
        rect(&mut body, (x, y, 12.0, 12.0), colour(stage), "");
        text(&mut body, (x + 17.0, y + 11.0), "start", INK, stage.name());
        x += width;
    }
    (body, y + 20.0)
}

pub(super) fn rect(out: &mut String, (x, y, w, h): (f64, f64, f64, f64), fill: &str, title: &str) {
    let w = w.max(0.0);
    // Writing to a String cannot fail.
    let _ =
        write!(out, "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{w:.2}\" height=\"{h:.1}\" fill=\"{fill}\">");
    let _ = if title.is_empty() { Ok(()) } else { write!(out, "<title>{}</title>", escaped(title)) };
    out.push_str("</rect>");
}

fn outline(out: &mut String, (x, y, w, h): (f64, f64, f64, f64), title: &str) {
    let w = w.max(0.0);
    let _ = write!(
        out,
        "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{w:.2}\" height=\"{h:.1}\" fill=\"#eef0f2\" stroke=\"#9aa5b1\"><title>{}</title></rect>",
        escaped(title)
    );
}

pub(super) fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, fill: &str, what: &str) {
    let what = escaped(what);
    let _ =
        write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{what}</text>");
}

pub(super) fn svg(height: f64, body: &str, label: &str) -> String {
    let label = escaped(label);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"13\" role=\"img\" aria-label=\"{label}\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_ends_at_the_largest_value_and_all_frames() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        let curve = cdf(&values).unwrap();
        assert_eq!(curve.points.len(), POINTS);
        assert_eq!(curve.points.last(), Some(&(1000.0, 1.0)));
        assert!(curve.points.windows(2).all(|w| w[0].0 <= w[1].0 && w[0].1 < w[1].1));
        assert_eq!(cdf(&[]), None);
        assert_eq!(cdf(&[0.0, 0.0]), None);
    }

    #[test]
    fn a_stall_is_not_thinned_away() {
        let mut points: Vec<(f64, f64)> = (0..5000).map(|i| (f64::from(i), 1.0)).collect();
        points[3210].1 = 99.0;
        let thinned = thin(points);
        assert!(thinned.len() <= POINTS && thinned.contains(&(3210.0, 99.0)));
    }
}

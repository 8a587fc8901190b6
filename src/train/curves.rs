//! The curves of a training run.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Epoch, best};
use crate::chart::{Chart, ChartError, Mark, Panel, Scale, Series, XAxis};

/// Pixels.
const SIZE: (u32, u32) = (900, 600);
/// Losses that differ by this factor are drawn by factors: on an even axis the smaller would lie on the floor.
const WIDE: f64 = 20.0;
/// What is minimised, among the losses.
const TOTAL: &str = "total";

/// The loss and its terms above, Dice of every class and their mean below, both by epoch, with the best epoch marked.
///
/// # Errors
/// As [`Chart::svg`].
pub(super) fn draw(epochs: &[Epoch]) -> Result<String, ChartError> {
    let x_label = "epoch".to_owned();
    // Both panels over the same epochs, validated or not.
    let x_range = epochs.first().zip(epochs.last()).map(|(a, b)| (a.epoch as f64, b.epoch as f64));
    // A term that is nothing all along was not trained with, and has no place among factors.
    let mut losses = curves(epochs, |e| Some(&e.losses));
    losses.retain(|s| s.name == TOTAL || s.points.iter().any(|p| p.1 != 0.0));
    for series in losses.iter_mut().filter(|s| s.name == TOTAL) {
        series.strong = true;
    }
    let mut dice = curves(epochs, |e| e.validation.as_ref().map(|v| &v.dice));
    let mean = |e: &Epoch| e.validation.as_ref().map(|v| (e.epoch as f64, v.mean_dice));
    let points: Vec<_> = epochs.iter().filter_map(mean).collect();
    if dice.len() > 1 && !points.is_empty() {
        dice.push(Series { name: "mean".into(), points, band: None, strong: true });
    }
    let marks = stages(epochs);
    let found = best(epochs).and_then(|e| Some((e.epoch, e.validation.as_ref()?.mean_dice)));
    let found =
        found.map(|(epoch, dice)| Mark { x: epoch as f64, text: format!("best: {dice:.3} at {epoch}") });
    let upper = Panel {
        x_label: x_label.clone(),
        y_label: "loss".into(),
        x: XAxis::Counts,
        y_scale: scale(&losses),
        x_range,
        y_range: None,
        series: losses,
        marks: marks.clone(),
    };
    let lower = Panel {
        x_label,
        y_label: "validation Dice".into(),
        x: XAxis::Counts,
        y_scale: Scale::Linear,
        x_range,
        y_range: Some((0.0, 1.0)),
        series: dice,
        marks: found.into_iter().collect(),
    };
    Chart { title: String::new(), panels: vec![upper, lower] }.svg(SIZE.0, SIZE.1)
}

/// A curve for every name that any epoch has.
fn curves<'a>(
    epochs: &'a [Epoch],
    of: impl Fn(&'a Epoch) -> Option<&'a BTreeMap<String, f64>>,
) -> Vec<Series> {
    let names: BTreeSet<&String> = epochs.iter().filter_map(&of).flat_map(BTreeMap::keys).collect();
    let curve = |name: &String| {
        let point = |e: &'a Epoch| Some((e.epoch as f64, *of(e)?.get(name)?));
        epochs.iter().filter_map(point).collect()
    };
    names
        .into_iter()
        .map(|name| Series { name: name.clone(), points: curve(name), band: None, strong: false })
        .collect()
}

fn scale(losses: &[Series]) -> Scale {
    let values = || losses.iter().flat_map(|s| &s.points).map(|p| p.1).filter(|v| v.is_finite());
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if low > 0.0 && high / low > WIDE { Scale::Log } else { Scale::Linear }
}

/// Where each stage but the first begins.
fn stages(epochs: &[Epoch]) -> Vec<Mark> {
    let pairs =
        epochs.iter().zip(epochs.iter().skip(1)).filter(|(before, after)| before.stage != after.stage);
    pairs.map(|(_, after)| Mark { x: after.epoch as f64, text: after.stage.clone() }).collect()
}

//! What several runs come to: their cases by group, prompts and class.

use std::collections::BTreeMap;

use serde::Serialize;

use super::report::{csv, markdown};
use super::{Interval, Prompting, Share, bootstrap_shares};
use crate::chart::{Chart, ChartError, Panel, Series, XAxis};

/// Where the bootstrap begins.
const SEED: u64 = 0;

/// The cases of one group of runs.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    group: String,
    mode: Prompting,
    class: String,
    /// Of each run, the Dice of the pictures with the class, and whose pictures they are.
    runs: Vec<Vec<(String, f64)>>,
}

impl Line {
    /// What is drawn together for the interval: the pictures of a patient, in the order in which they were added.
    fn units(&self) -> Vec<Vec<Share>> {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut units: Vec<Share> = Vec::new();
        for (unit, dice) in self.runs.iter().flatten() {
            let at = *places.entry(unit).or_insert(units.len());
            if at == units.len() {
                units.push([0.0; 2]);
            }
            let [sum, n] = &mut units[at];
            (*sum, *n) = (*sum + dice, *n + 1.0);
        }
        units.into_iter().map(|share| vec![share]).collect()
    }
}

/// Runs that were put together, in the order they were added.
///
/// Dice is the mean over pictures of which the truth has the class; one with an empty mask counts 0. Where the runs held out
/// different pictures, the interval is the bootstrap's over all of them, 95 %, with all pictures of a patient drawn together; where
/// they held out the same ones, the lowest and the highest run.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// The runs held out different pictures.
    disjoint: bool,
    lines: Vec<Line>,
}

/// Dice of a line, with its range.
#[derive(Debug, Serialize)]
struct Row<'a> {
    group: &'a str,
    mode: &'static str,
    class: &'a str,
    dice: f64,
    range: [f64; 2],
    pictures: usize,
    runs: usize,
}

impl Study {
    /// `disjoint`: each run held out other pictures.
    pub fn new(disjoint: bool) -> Self {
        Self { disjoint, lines: Vec::new() }
    }

    /// Adds what a run of `group` came to for a class: the Dice of each picture, and the patient, or the picture where patients are
    /// not known.
    pub fn add(&mut self, group: &str, mode: Prompting, class: &str, dice: &[(&str, f64)]) {
        let dice: Vec<(String, f64)> = dice.iter().map(|&(unit, dice)| (unit.to_owned(), dice)).collect();
        let same = |l: &&mut Line| l.group == group && l.mode == mode && l.class == class;
        match self.lines.iter_mut().find(same) {
            Some(line) => line.runs.push(dice),
            None => {
                let (group, class, runs) = (group.to_owned(), class.to_owned(), vec![dice]);
                self.lines.push(Line { group, mode, class, runs });
            }
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.lines.iter().filter_map(|line| {
            let Interval { mean, low, high } = bootstrap_shares(&line.units(), SEED)?;
            let range = if self.disjoint {
                [low, high]
            } else {
                let means = line.runs.iter().filter(|run| !run.is_empty());
                let means = means.map(|run| run.iter().map(|(_, dice)| dice).sum::<f64>() / run.len() as f64);
                means.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], m| [low.min(m), high.max(m)])
            };
            Some(Row {
                group: &line.group,
                mode: line.mode.name(),
                class: &line.class,
                dice: mean,
                range,
                pictures: line.runs.iter().map(Vec::len).sum(),
                runs: line.runs.len(),
            })
        })
    }

    /// As a table.
    pub fn markdown(&self) -> String {
        let range = if self.disjoint { "95 % interval" } else { "lowest to highest run" };
        let heads = ["runs on", "prompts", "class", "Dice", range, "pictures", "runs"].map(str::to_owned);
        let mut text = markdown::row(&heads) + &markdown::row(&heads.map(|_| "---".to_owned()));
        for r in self.rows() {
            let range = format!("{:.3} to {:.3}", r.range[0], r.range[1]);
            text += &markdown::row(&[
                markdown::escaped(r.group),
                r.mode.to_owned(),
                markdown::escaped(r.class),
                format!("{:.3}", r.dice),
                range,
                r.pictures.to_string(),
                r.runs.to_string(),
            ]);
        }
        text
    }

    /// As comma-separated values.
    pub fn csv(&self) -> String {
        let heads = ["group", "mode", "class", "dice", "low", "high", "pictures", "runs"].map(str::to_owned);
        let mut text = csv::line(&heads);
        for r in self.rows() {
            let [low, high] = r.range;
            let numbers = [r.dice, low, high].map(|v| v.to_string());
            let counts = [r.pictures, r.runs].map(|n| n.to_string());
            let words = [r.group, r.mode, r.class].map(str::to_owned);
            text += &csv::line(&[&words[..], &numbers[..], &counts[..]].concat());
        }
        text
    }

    /// A curve for each kind of prompts and class over the groups, with their ranges.
    ///
    /// # Errors
    /// Those of the drawing library.
    pub fn chart(&self, across: &str) -> Result<String, ChartError> {
        let mut groups: Vec<String> = Vec::new();
        let mut series: Vec<Series> = Vec::new();
        for r in self.rows() {
            let x = groups.iter().position(|g| g == r.group).unwrap_or_else(|| {
                groups.push(r.group.to_owned());
                groups.len() - 1
            }) as f64;
            let name = format!("{} {}", r.class, r.mode);
            let (point, band) = ((x, r.dice), (x, r.range[0], r.range[1]));
            match series.iter_mut().find(|s| s.name == name) {
                Some(s) => {
                    s.points.push(point);
                    s.band.get_or_insert_default().push(band);
                }
                None => {
                    series.push(Series { name, points: vec![point], band: Some(vec![band]), strong: false })
                }
            }
        }
        let panel = Panel {
            x_label: across.to_owned(),
            y_label: "Dice".into(),
            x: XAxis::Cases(groups),
            y_range: Some((0.0, 1.0)),
            series,
            ..Panel::default()
        };
        let chart = Chart { title: String::new(), panels: vec![panel] };
        chart.svg(900, 600)
    }
}

impl Serialize for Study {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let lines = self.rows().map(|row| serde_json::to_value(row).map_err(serde::ser::Error::custom));
        let lines = lines.collect::<Result<Vec<_>, S::Error>>()?;
        serde_json::json!({"schema": 1, "lines": lines}).serialize(to)
    }
}

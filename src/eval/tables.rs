//! Models against data sets, in the shape of the paper's tables 2, 3 and 4.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::report::markdown::{escaped, row};
use super::report::{csv, html};
use super::{Figure, Prompting, RULES, Scores};
use crate::chart::escaped as html_escaped;

/// What of a network's decoder was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tuning {
    /// Nothing.
    Frozen,
    /// Low-rank factors.
    Lora,
    /// All but its MLPs.
    Attention,
    /// All of it.
    Full,
}

impl Tuning {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Frozen, Self::Lora, Self::Attention, Self::Full];

    /// Name in configurations and in the metadata of a predictor.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Lora => "lora",
            Self::Attention => "attention",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frozen => "frozen",
            Self::Lora => "LoRA",
            Self::Attention => "attention fine-tuned",
            Self::Full => "fine-tuned",
        })
    }
}

/// A model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What of the decoder was trained.
    pub decoder: Tuning,
    /// Whether it has a prompt predictor.
    pub learned: bool,
}

impl Row {
    /// What the paper's tables ask of such a model.
    pub fn promptings(&self) -> &'static [Prompting] {
        match (self.learned, self.decoder) {
            (false, _) => &[Prompting::Box],
            (true, Tuning::Frozen) => &[Prompting::Box, Prompting::Auto, Prompting::AutoBox],
            (true, _) => &[Prompting::Auto, Prompting::AutoBox],
        }
    }

    /// That, and what of `others` such a model can do besides; each once.
    pub fn asked(&self, others: &[Prompting]) -> Vec<Prompting> {
        let mut asked = self.promptings().to_vec();
        for &other in others {
            if !asked.contains(&other) && (self.learned || !other.is_learned()) {
                asked.push(other);
            }
        }
        asked
    }
}

/// A model on a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// SHA-256 of the weights.
    pub weights_sha256: String,
    /// SHA-256 of the predictor's own file.
    pub ppn_sha256: Option<String>,
    /// Views of a picture, of the predictor alone.
    pub views: usize,
    /// Pictures.
    pub n: usize,
    /// Means over the classes.
    #[serde(flatten)]
    pub mean: Scores,
}

/// Everything that was evaluated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Names, in order.
    pub datasets: Vec<String>,
    /// In order.
    pub models: Vec<Row>,
    /// By the places of model and data set.
    pub cells: BTreeMap<(usize, usize, Prompting), Cell>,
}

/// One table: which rows, and which columns for each data set.
struct Shape {
    title: &'static str,
    rows: fn(&Row) -> bool,
    /// Whether a column says what was trained.
    decoders: bool,
    columns: &'static [(Prompting, &'static str)],
}

impl Shape {
    fn shows(&self, row: &Row, mode: Prompting) -> bool {
        (self.rows)(row) && self.columns.iter().any(|(own, _)| *own == mode)
    }
}

/// A table with its texts.
struct Table {
    title: &'static str,
    heads: Vec<String>,
    rows: Vec<Vec<Text>>,
}

/// A cell's text, and an interval that goes with it.
struct Text {
    text: String,
    range: Option<String>,
}

impl Text {
    fn of(text: String) -> Self {
        Self { text, range: None }
    }
}

/// The paper's.
const PAPERS: [Shape; 3] = [
    Shape {
        title: "Zero-shot: bounding boxes, nothing trained (the paper's table 2)",
        rows: |row| !row.learned && row.decoder == Tuning::Frozen,
        decoders: false,
        columns: &[(Prompting::Box, "BB")],
    },
    Shape {
        title: "Bounding boxes against learned prompts, frozen decoder (the paper's table 3)",
        rows: |row| row.learned && row.decoder == Tuning::Frozen,
        decoders: false,
        columns: &[(Prompting::Box, "BB"), (Prompting::Auto, "LP")],
    },
    Shape {
        title: "Learned prompts, alone and with bounding boxes (the paper's table 4)",
        rows: |row| row.learned,
        decoders: true,
        columns: &[(Prompting::Auto, "LP"), (Prompting::AutoBox, "BB+LP")],
    },
];

/// Every model. A column is there if some model was asked so and none of the paper's tables shows it; then it has all models' figures.
const OTHERS: Shape = Shape {
    title: "Other prompts",
    rows: |_| true,
    decoders: true,
    columns: &[
        (Prompting::Box, "BB"),
        (Prompting::BoxRegions, "BB per region"),
        (Prompting::Points, "point"),
        (Prompting::AutoPoints, "point+LP"),
    ],
};

impl Tables {
    /// The tables that have anything in them: Dice/IoU in percent, macro, mean over classes.
    pub fn markdown(&self) -> String {
        let mut out = "# Dice/IoU in percent\n\nMacro over images, mean over classes. **LP**: learned prompts, **BB**: bounding box.\n"
            .to_owned();
        for table in self.shaped() {
            out.push_str(&format!("\n## {}\n\n", table.title));
            out.push_str(&row(&table.heads.iter().map(|head| escaped(head)).collect::<Vec<_>>()));
            out.push_str(&row(&vec!["---".to_owned(); table.heads.len()]));
            for cells in &table.rows {
                out.push_str(&row(&cells.iter().map(|cell| escaped(&cell.text)).collect::<Vec<_>>()));
            }
        }
        out.push('\n');
        for rule in RULES {
            out.push_str(&format!("* {rule}\n"));
        }
        out.push_str("\nResearch use only: not for diagnosis.\n");
        out
    }

    /// The same as a page that needs nothing else, with the 95 % intervals of Dice.
    pub fn html(&self) -> String {
        let title = "Dice/IoU in percent";
        let about = "Macro over images, mean over classes; below it the 95 % interval of Dice. LP: learned prompts, BB: bounding box.";
        let mut out = html::begun(title, title, about);
        for table in self.shaped() {
            out.push_str(&format!("<h2>{}</h2>\n<div class=\"scroll\"><table>\n<tr>", table.title));
            out.extend(table.heads.iter().map(|head| format!("<th>{}</th>", html_escaped(head))));
            out.push_str("</tr>\n");
            for cells in &table.rows {
                let cell = |Text { text, range }: &Text| {
                    let range =
                        range.as_ref().map_or_else(String::new, |range| format!("<small>{range}</small>"));
                    format!("<td>{}{range}</td>", html_escaped(text))
                };
                out.push_str(&format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>()));
            }
            out.push_str("</table></div>\n");
        }
        out + &html::rules() + html::ENDED
    }

    /// The tables that have anything in them.
    fn shaped(&self) -> Vec<Table> {
        let elsewhere = |row: &Row, mode: Prompting| PAPERS.iter().any(|shape| shape.shows(row, mode));
        let others = self.table(&OTHERS, |row, mode| !elsewhere(row, mode));
        PAPERS.iter().filter_map(|shape| self.table(shape, |_, _| true)).chain(others).collect()
    }

    /// A table with the columns in which a cell is due; none without any.
    fn table(&self, shape: &Shape, is_due: impl Fn(&Row, Prompting) -> bool) -> Option<Table> {
        let rows: Vec<(usize, &Row)> =
            self.models.iter().enumerate().filter(|(_, r)| (shape.rows)(r)).collect();
        let due = |mode: Prompting| {
            let mut cells = self.cells.keys().filter(|k| k.2 == mode);
            cells.any(|k| rows.iter().any(|&(at, row)| at == k.0 && is_due(row, mode)))
        };
        let columns: Vec<_> = shape.columns.iter().filter(|(mode, _)| due(*mode)).collect();
        if columns.is_empty() {
            return None;
        }
        let mut heads = vec!["Model".to_owned()];
        heads.extend(shape.decoders.then(|| "Decoder".to_owned()));
        for dataset in &self.datasets {
            heads.extend(columns.iter().map(|(_, name)| format!("{dataset} {name}")));
        }
        let cells = |(at, model): (usize, &Row)| {
            let mut cells = vec![Text::of(model.name.clone())];
            cells.extend(shape.decoders.then(|| Text::of(model.decoder.to_string())));
            for dataset in 0..self.datasets.len() {
                cells.extend(columns.iter().map(|(mode, _)| self.text((at, dataset, *mode))));
            }
            cells
        };
        Some(Table { title: shape.title, heads, rows: rows.into_iter().map(cells).collect() })
    }

    /// `68.2/54.1`, or a dash.
    fn text(&self, at: (usize, usize, Prompting)) -> Text {
        let percent = |v: f64| format!("{:.1}", 100.0 * v);
        let of = |figure: Figure| figure.value().map(percent);
        let cell = self.cells.get(&at).and_then(|c| Some((of(c.mean.dice)?, of(c.mean.iou)?, c.mean.dice)));
        cell.map_or_else(
            || Text::of("–".to_owned()),
            |(dice, iou, figure)| Text {
                text: format!("{dice}/{iou}"),
                range: figure.range().map(|[low, high]| format!("{} to {}", percent(low), percent(high))),
            },
        )
    }

    /// Name and decoder of the model, data set and prompting of each cell.
    fn listed(&self) -> impl Iterator<Item = (&Row, &str, Prompting, &Cell)> {
        self.cells.iter().filter_map(|(&(model, dataset, mode), cell)| {
            Some((self.models.get(model)?, self.datasets.get(dataset)?.as_str(), mode, cell))
        })
    }

    /// One row a cell, shares from 0 to 1 with their intervals.
    pub fn csv(&self) -> String {
        let mut heads: Vec<String> = ["model", "decoder", "dataset", "mode", "n"].map(String::from).into();
        heads.extend(csv::score_heads());
        let mut out = csv::line(&heads);
        for (row, dataset, mode, cell) in self.listed() {
            let mut cells =
                vec![row.name.clone(), row.decoder.to_string(), dataset.to_owned(), mode.to_string()];
            cells.push(cell.n.to_string());
            cells.extend(csv::score_cells(&cell.mean));
            out.push_str(&csv::line(&cells));
        }
        out
    }

    /// Every cell.
    ///
    /// # Errors
    /// None that happen; serde_json's.
    pub fn json(&self) -> serde_json::Result<serde_json::Value> {
        let mut cells = Vec::with_capacity(self.cells.len());
        for (row, dataset, mode, cell) in self.listed() {
            let mut value = serde_json::to_value(cell)?;
            if let Some(value) = value.as_object_mut() {
                value.insert("model".into(), row.name.clone().into());
                value.insert("decoder".into(), serde_json::to_value(row.decoder)?);
                value.insert("dataset".into(), dataset.into());
                value.insert("mode".into(), mode.name().into());
            }
            cells.push(value);
        }
        let versions = crate::telemetry::versions();
        Ok(serde_json::json!({"schema": 1, "cells": cells, "rules": RULES, "versions": versions}))
    }
}

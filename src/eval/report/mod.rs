//! What an evaluation found, as JSON, Markdown, CSV and HTML.

pub(super) mod csv;
mod histogram;
pub(super) mod html;
pub(super) mod markdown;
mod picture;

use std::collections::BTreeMap;

pub use markdown::{difference_table, table};
pub use picture::{Picture, ranked};
use serde::Serialize;

use super::{Case, Prompting, RULES, Summary};
use crate::segment::ModelInfo;
use crate::telemetry::versions;

/// One way of prompting, over a whole data set.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// What the network was told.
    #[serde(serialize_with = "name")]
    pub mode: Prompting,
    /// What it comes to.
    #[serde(flatten)]
    pub summary: Summary,
    /// The same for all augmented views together, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augmented: Option<Summary>,
    /// Median time that the segmenter took for a picture, in milliseconds.
    pub milliseconds: Option<f64>,
    /// One for each picture and class.
    #[serde(skip)]
    pub cases: Vec<Case>,
}

/// One model on one data set.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the data set.
    pub dataset: String,
    /// Pictures evaluated.
    pub n: usize,
    /// Classes, in order.
    pub names: Vec<String>,
    /// The network.
    pub model: ModelInfo,
    /// Where it ran.
    pub device: String,
    /// Width and height of a pixel in millimetres, where known.
    pub spacing_mm: Option<(f64, f64)>,
    /// What a picture's name has behind the patient's, where patients are known.
    pub patient: Option<String>,
    /// Augmented views of each picture.
    pub augmented_views: usize,
    /// What else was asked for, in words.
    pub settings: BTreeMap<String, String>,
    /// In the order they were made.
    #[serde(skip)]
    pub evaluations: Vec<Evaluation>,
}

pub(super) fn name<S: serde::Serializer>(mode: &Prompting, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(mode.name())
}

impl Evaluation {
    /// Sums `cases` up; see [`Summary::of`].
    pub fn new(mode: Prompting, names: &[String], cases: Vec<Case>, patient: Option<&str>) -> Self {
        let (augmented, plain): (Vec<Case>, Vec<Case>) = cases.iter().cloned().partition(|c| c.view > 0);
        let summary = Summary::of(names, &plain, patient);
        let augmented = (!augmented.is_empty()).then(|| Summary::of(names, &augmented, patient));
        let mut times: Vec<f64> = cases.iter().filter_map(|c| c.milliseconds).collect();
        times.sort_by(f64::total_cmp);
        Self { mode, summary, augmented, milliseconds: super::summary::median(&times), cases }
    }

    /// What there is to be listed, with a word behind the classes' names.
    fn summaries(&self) -> impl Iterator<Item = (&'static str, &Summary)> {
        let augmented = self.augmented.iter().map(|summary| ("augmented", summary));
        std::iter::once(("", &self.summary)).chain(augmented)
    }
}

impl Report {
    /// As JSON. With `single` the one evaluation's keys stand beside the others, else all are listed in `evaluations`.
    ///
    /// # Errors
    /// None that happen; serde_json's.
    pub fn json(&self, single: bool) -> serde_json::Result<serde_json::Value> {
        let mut out = serde_json::to_value(self)?;
        if let Some(out) = out.as_object_mut() {
            out.insert("schema".into(), 1.into());
            out.insert("rules".into(), serde_json::to_value(RULES)?);
            out.insert("versions".into(), serde_json::to_value(versions())?);
            match &self.evaluations[..] {
                [only] if single => {
                    if let serde_json::Value::Object(own) = serde_json::to_value(only)? {
                        out.extend(own);
                    }
                }
                all => {
                    out.insert("evaluations".into(), serde_json::to_value(all)?);
                }
            }
        }
        Ok(out)
    }
}

//! The prompt predictor that lies in a set of weights, if any.

use super::{LoadError, ModelSpec};
use crate::nn::{PpnConfig, PpnForm, Sam, learnable_prompts};
use crate::weights::Source;

/// Where a prompt predictor lies in the weights.
pub const PREFIX: &str = "ppn";
/// Metadata with the names of the classes: a JSON list of texts. `classes.NAME` are those of the data set `NAME`; without it
/// `classes` are those of a predictor with one data set.
const CLASSES: &str = "classes";

/// The form of the predictor in `source`: only one has a second block.
pub fn form(source: &dyn Source) -> PpnForm {
    let second = source.shape(&format!("{PREFIX}.layers.1.norm1.weight"));
    if second.is_some() { PpnForm::HighRes } else { PpnForm::SingleScale }
}

fn distinct(names: &[String]) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    names.iter().all(|name| !name.is_empty() && seen.insert(name))
}

/// A prompt predictor as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Name of the data set that the queries were learned on.
    pub dataset: String,
    /// Names of the classes, in the order of the queries.
    pub classes: Vec<String>,
    /// Queries of a class.
    pub tokens: i64,
    /// Which of the two forms.
    pub form: PpnForm,
}

impl Learned {
    /// What `source` holds; `names` is its metadata's list of classes. `None` without a predictor.
    ///
    /// # Errors
    /// Several data sets and none or an unknown one asked for, names that do not fit the queries.
    pub fn find(
        spec: &ModelSpec,
        source: &dyn Source,
        metadata: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, LoadError> {
        let wrong = |what: String| LoadError::Predictor {
            what,
            path: spec.ppn.as_ref().unwrap_or(&spec.weights).clone(),
        };
        let found = learnable_prompts(source, PREFIX);
        let all = || found.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
        let chosen = match (&spec.dataset, &found[..]) {
            (None, []) => return Ok(None),
            (None, [only]) => only,
            (None, _) => {
                return Err(wrong(format!(
                    "the predictor has queries for several data sets ({}); one must be named",
                    all()
                )));
            }
            (Some(asked), _) => found.iter().find(|(name, ..)| name == asked).ok_or_else(|| {
                wrong(format!("no queries for the data set {asked:?}; there are {}", all()))
            })?,
        };
        let (dataset, count, tokens) = chosen.clone();
        let count = usize::try_from(count).unwrap_or(0);
        let of_dataset = metadata(&format!("{CLASSES}.{dataset}"));
        let listed = of_dataset.or_else(|| if found.len() == 1 { metadata(CLASSES) } else { None });
        let classes = match listed {
            Some(text) => serde_json::from_str::<Vec<String>>(&text)
                .ok()
                .filter(|names| names.len() == count && distinct(names))
                .ok_or_else(|| {
                    wrong(format!("{CLASSES} = {text}; expected a list of {count} different names"))
                })?,
            None if count == 1 => vec![dataset.clone()],
            None => (1..=count).map(|i| format!("{dataset} {i}")).collect(),
        };
        Ok(Some(Self { dataset, classes, tokens, form: form(source) }))
    }

    /// The same for a certain network.
    pub fn config(&self, net: &Sam) -> PpnConfig {
        net.ppn_config(self.form, &self.dataset, self.classes.clone(), self.tokens)
    }
}

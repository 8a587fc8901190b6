//! The prompt predictor that lies in a set of weights, if any.

use tch::{TchError, Tensor};

use super::{LoadError, ModelSpec};
use crate::nn::{PpnConfig, PpnForm, Sam, learnable_prompts};
use crate::weights::Source;

/// Where a prompt predictor lies in the weights.
pub const PREFIX: &str = "ppn";
/// Metadata with the names of the classes: a JSON list of texts. `classes.NAME` are those of the data set `NAME`; without it
/// `classes` are those of a predictor with one data set.
const CLASSES: &str = "classes";

/// The form of the predictor in `source`: one has a second block, one a pyramid.
pub fn form(source: &dyn Source) -> PpnForm {
    let has = |name: &str| source.shape(&format!("{PREFIX}.{name}")).is_some();
    if has("layers.1.norm1.weight") {
        PpnForm::HighRes
    } else if has("pyramid.out.weight") {
        PpnForm::Pyramid
    } else {
        PpnForm::SingleScale
    }
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
    /// Indices of those that are looked for, in the order of the queries.
    pub chosen: Vec<usize>,
    /// Queries of a class.
    pub tokens: i64,
    /// Which form.
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
        let wrong = |what: String| LoadError::Predictor { what, path: spec.trained_file().clone() };
        let found = learnable_prompts(source, PREFIX);
        let all = || found.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
        let chosen = match (&spec.dataset, &found[..]) {
            (None, []) if spec.only.is_empty() => return Ok(None),
            (None, []) => {
                return Err(LoadError::Setting(format!(
                    "only {} is to be looked for, but there is no prompt predictor",
                    spec.only.join(", ")
                )));
            }
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
        if let Some(unknown) = spec.only.iter().find(|name| !classes.contains(name)) {
            let known = classes.join(", ");
            return Err(wrong(format!("it does not know the class {unknown:?}; expected some of {known}")));
        }
        let wanted = |class: &String| spec.only.is_empty() || spec.only.contains(class);
        let chosen = (0..classes.len()).filter(|&i| wanted(&classes[i])).collect();
        Ok(Some(Self { dataset, classes, chosen, tokens, form: form(source) }))
    }

    /// Names of the classes that are looked for.
    pub fn names(&self) -> Vec<String> {
        self.chosen.iter().filter_map(|&i| self.classes.get(i).cloned()).collect()
    }

    /// Of queries `[K, N, C]` those of the classes that are looked for.
    ///
    /// # Errors
    /// libtorch's.
    pub fn select(&self, queries: &Tensor) -> Result<Tensor, TchError> {
        let rows: Vec<i64> = self.chosen.iter().map(|&i| i as i64).collect();
        queries.f_index_select(0, &Tensor::f_from_slice(&rows)?.f_to_device(queries.device())?)
    }

    /// The same for a certain network.
    pub fn config(&self, net: &Sam) -> PpnConfig {
        net.ppn_config(self.form, &self.dataset, self.classes.clone(), self.tokens)
    }
}

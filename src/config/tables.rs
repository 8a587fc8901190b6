//! `sonomask eval --tables FILE`: which models on which data sets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::layers::file;
use super::read::{Log, Section, text, wrong};
use super::tree::{Item, Node};
use super::{ConfigError, Origin};
use crate::dataset::{ClassLabel, DatasetSpec, MaskLayout};
use crate::eval::{Prompting, Tuning};
use crate::segment::{MAX_INPUT_SIZE, MAX_VIEWS, ModelSpec, Precision};
use crate::weights::Family;

/// Most models, and most data sets, of one file.
const MAX_ENTRIES: usize = 64;

/// What may be asked besides what the paper's tables ask. Learned prompts, alone and with the box, are asked of every predictor.
const OTHERS: [Prompting; 4] =
    [Prompting::Box, Prompting::BoxRegions, Prompting::Points, Prompting::AutoPoints];

/// A data set of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDataset {
    /// Where it lies, and its classes.
    pub spec: DatasetSpec,
    /// File with the names of the pictures that are evaluated; `None` takes all.
    pub only: Option<PathBuf>,
    /// What a picture's name has behind the patient's.
    pub patient: Option<String>,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableModel {
    /// Name in the table.
    pub name: String,
    /// What of the decoder was trained.
    pub decoder: Tuning,
    /// The network, without its files.
    base: ModelSpec,
    weights: PerDataset<PathBuf>,
    ppn: PerDataset<PathBuf>,
    queries: PerDataset<String>,
}

/// One value for every data set, or one for each by its name.
#[derive(Clone, Debug, PartialEq)]
enum PerDataset<T> {
    All(Option<T>),
    Each(BTreeMap<String, T>),
}

impl<T: Clone> PerDataset<T> {
    fn get(&self, dataset: &str) -> Option<T> {
        match self {
            Self::All(value) => value.clone(),
            Self::Each(values) => values.get(dataset).cloned(),
        }
    }
}

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct TablesConfig {
    /// Columns.
    pub datasets: Vec<TableDataset>,
    /// Rows.
    pub models: Vec<TableModel>,
    /// Further ways of prompting, of which every model is asked with those that it can do: `box`, `box-regions`, `points` and
    /// `auto+points`.
    pub others: Vec<Prompting>,
}

impl TableModel {
    /// The model for a data set; `None` where it has no weights for it.
    pub fn spec(&self, dataset: &str) -> Option<ModelSpec> {
        Some(ModelSpec {
            weights: self.weights.get(dataset)?,
            ppn: self.ppn.get(dataset),
            dataset: self.queries.get(dataset),
            ..self.base.clone()
        })
    }
}

impl TablesConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that cannot be read, bad TOML, an unknown key, a wrong value, two entries of one name; with file and line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut log = Log::new();
        let mut top = Section::new("", Some(file(path)?), &mut log)?;
        let words = OTHERS.map(|other| format!("{:?}", other.name())).join(", ");
        let others = top.optional("others", &format!("a list of some of {words}"), |node| {
            let word = |n: &Node| text(n)?.parse::<Prompting>().ok().filter(|other| OTHERS.contains(other));
            list(node)?.iter().map(word).collect::<Option<Vec<Prompting>>>()
        })?;
        let (datasets, models) = (top.take("datasets"), top.take("models"));
        let at = top.at().clone();
        top.finish()?;
        let mut names = BTreeSet::new();
        let datasets = entries("datasets", datasets, &at, |key, node| {
            TableDataset::read(key, node, &mut names, &mut log)
        })?;
        let known: Vec<&str> = datasets.iter().map(|d| d.spec.name.as_str()).collect();
        let mut names = BTreeSet::new();
        let models = entries("models", models, &at, |key, node| {
            TableModel::read(key, node, &known, &mut names, &mut log)
        })?;
        Ok(Self { datasets, models, others: others.unwrap_or_default() })
    }
}

/// The tables of the array `key`, at least one.
fn entries<T>(
    key: &str,
    node: Option<Node>,
    top: &Origin,
    mut read: impl FnMut(&str, Node) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let expected = format!("1 to {MAX_ENTRIES} [[{key}]] tables");
    let Some(node) = node else {
        let (key, found) = (key.to_owned(), "nothing".to_owned());
        return Err(ConfigError::Value { key, found, expected, at: top.clone() });
    };
    match node.item {
        Item::Array(items) if (1..=MAX_ENTRIES).contains(&items.len()) => {
            let read = |(i, item)| read(&format!("{key}[{i}]"), item);
            items.into_iter().enumerate().map(read).collect()
        }
        _ => Err(wrong(key, &node, expected)),
    }
}

/// The value of a key that must be there.
fn required<T>(
    value: Option<T>,
    section: &str,
    key: &str,
    expected: &str,
    at: &Origin,
) -> Result<T, ConfigError> {
    value.ok_or_else(|| ConfigError::Value {
        key: format!("{section}.{key}"),
        found: "nothing".to_owned(),
        expected: expected.to_owned(),
        at: at.clone(),
    })
}

/// What is expected of a name.
const NAME: &str = "a name that no other entry has";

/// Takes the name of an entry, which no other has.
fn name(s: &mut Section, section: &str, seen: &mut BTreeSet<String>) -> Result<String, ConfigError> {
    let at = s.at().clone();
    let name = s.optional("name", NAME, |n| text(n).filter(|t| !t.is_empty() && seen.insert(t.clone())))?;
    required(name, section, "name", NAME, &at)
}

fn list(node: &Node) -> Option<&[Node]> {
    match &node.item {
        Item::Array(items) => Some(items),
        _ => None,
    }
}

impl TableDataset {
    fn read(
        section: &str,
        node: Node,
        seen: &mut BTreeSet<String>,
        log: &mut Log,
    ) -> Result<Self, ConfigError> {
        let mut s = Section::new(section, Some(node), log)?;
        let at = s.at().clone();
        let name = name(&mut s, section, seen)?;
        let root = s.path_opt("data")?;
        let only = s.path_opt("only")?;
        let bits = s.int("bits", 16, 8, 16)? as u8;
        let patient = s.optional("patient", "a text", |n| text(n).filter(|t| !t.is_empty()))?;
        let layout = s.choice(
            "layout",
            MaskLayout::Index,
            &[("index", MaskLayout::Index), ("per-class", MaskLayout::PerClass)],
        )?;
        const CLASSES: &str = "a list like [{ name = \"nerve\", label = 1 }]";
        let classes = s.optional("classes", CLASSES, |n| {
            list(n)?
                .iter()
                .map(|item| class(item, layout))
                .collect::<Option<Vec<_>>>()
                .filter(|c| !c.is_empty())
        })?;
        s.finish()?;
        let root = required(root, section, "data", "the folder with images and masks", &at)?;
        let classes = required(classes, section, "classes", CLASSES, &at)?;
        Ok(Self {
            spec: DatasetSpec { name, root, images: None, masks: None, classes, layout, bits },
            only,
            patient,
        })
    }
}

/// `{ name = ..., label = ... }`; the label is not needed where nothing is looked up by it.
fn class(node: &Node, layout: MaskLayout) -> Option<ClassLabel> {
    let Item::Table(t) = &node.item else { return None };
    if t.keys().any(|key| key != "name" && key != "label") {
        return None;
    }
    let label = match t.get("label") {
        Some(label) => u16::try_from(label.value().as_integer()?).ok().filter(|l| *l > 0)?,
        None if layout == MaskLayout::PerClass => 0,
        None => return None,
    };
    Some(ClassLabel { name: text(t.get("name")?)?, label })
}

impl TableModel {
    fn read(
        section: &str,
        node: Node,
        datasets: &[&str],
        seen: &mut BTreeSet<String>,
        log: &mut Log,
    ) -> Result<Self, ConfigError> {
        let mut s = Section::new(section, Some(node), log)?;
        let at = s.at().clone();
        let name = name(&mut s, section, seen)?;
        let decoder =
            s.choice("decoder", Tuning::Frozen, &Tuning::ALL.map(|tuning| (tuning.name(), tuning)))?;
        let families = format!("one of {}", Family::ALL.map(Family::name).join(", "));
        let family = s.optional("family", &families, |n| text(n)?.parse::<Family>().ok())?;
        let precision = s.choice("precision", Precision::Fp32, &Precision::ALL.map(|p| (p.name(), p)))?;
        let side = s.int("input_size", 0, 0, MAX_INPUT_SIZE as u32)? as usize;
        let presence_threshold = s.float("presence_threshold", 0.5, 0.0, 1.0)?;
        let views = s.int("views", 1, 1, MAX_VIEWS as u32)? as usize;
        let path = |n: &Node| Some(n.at.resolve(&text(n).filter(|t| !t.is_empty() && !t.contains('\0'))?));
        let weights = per_dataset(&mut s, "weights", "a path", datasets, path)?;
        let ppn = per_dataset(&mut s, "ppn", "a path", datasets, path)?;
        let queries =
            per_dataset(&mut s, "queries", "a name", datasets, |n| text(n).filter(|t| !t.is_empty()))?;
        s.finish()?;
        if weights == PerDataset::All(None) {
            required(None::<()>, section, "weights", "the checkpoint of the network", &at)?;
        }
        let base = ModelSpec {
            family,
            precision,
            input_size: Some(side).filter(|&side| side > 0),
            presence_threshold,
            views,
            ..ModelSpec::new("")
        };
        Ok(Self { name, decoder, base, weights, ppn, queries })
    }
}

fn per_dataset<T>(
    s: &mut Section,
    key: &'static str,
    what: &str,
    datasets: &[&str],
    convert: impl Fn(&Node) -> Option<T>,
) -> Result<PerDataset<T>, ConfigError> {
    let expected = format!("{what}, or a table with {what} for data sets: {}", datasets.join(", "));
    let value = s.optional(key, &expected, |n| match &n.item {
        Item::Table(table) => {
            let one = |(name, node): (&String, &Node)| {
                datasets.contains(&name.as_str()).then(|| Some((name.clone(), convert(node)?))).flatten()
            };
            table.iter().map(one).collect::<Option<_>>().map(PerDataset::Each)
        }
        _ => convert(n).map(|value| PerDataset::All(Some(value))),
    })?;
    Ok(value.unwrap_or(PerDataset::All(None)))
}

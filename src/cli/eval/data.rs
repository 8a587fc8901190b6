//! Which pictures are evaluated, and what their labels mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cli::Depth;
use crate::cli::progress::Count;
use crate::dataset::{ClassLabel, Dataset, DatasetSpec, MaskLayout, Sample, named, patients};

/// Where labelled pictures lie.
#[derive(Clone, Debug, clap::Args)]
pub struct DataArgs {
    /// Folder with the images (in `imgs` or `images`) and the masks (in `gts` or `masks`)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A class and its value in the masks; repeat it. Without it the predictor's classes, or the configuration's, have 1, 2, ...
    #[arg(long = "class", value_name = "NAME=LABEL")]
    classes: Vec<String>,
    /// index (one mask an image, whose values are labels) or per-class (one black and white mask an image and class, in folders
    /// named like the classes)
    #[arg(long, value_name = "LAYOUT", default_value = "index", value_parser = layout)]
    layout: MaskLayout,
    #[command(flatten)]
    depth: Depth,
    /// Evaluate only the images that this file names, one a line
    #[arg(long, value_name = "FILE")]
    only: Option<PathBuf>,
    /// Evaluate only the first so many of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Width and height of a pixel in millimetres, for distances in mm: 0.1 or 0.1,0.2
    #[arg(long, value_name = "X[,Y]", value_parser = spacing)]
    pub spacing: Option<(f64, f64)>,
    /// What a file's name has behind the patient's (`-` in `p07-003.png`): intervals are then over patients
    #[arg(long, value_name = "TEXT")]
    pub patient: Option<String>,
}

fn layout(name: &str) -> Result<MaskLayout, String> {
    match name {
        "index" => Ok(MaskLayout::Index),
        "per-class" => Ok(MaskLayout::PerClass),
        _ => Err(format!("unknown layout {name:?}; expected index or per-class")),
    }
}

fn spacing(text: &str) -> Result<(f64, f64), String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|v| *v > 0.0 && *v <= 100.0);
    let (x, y) = text.split_once(',').unwrap_or((text, text));
    match (number(x), number(y)) {
        (Some(x), Some(y)) => Ok((x, y)),
        _ => Err("expected millimetres above 0, at most 100: X or X,Y".into()),
    }
}

/// `NAME=LABEL`; of the `index`-th class without a label, where labels do not matter.
fn class(text: &str, index: usize, layout: MaskLayout) -> Result<ClassLabel> {
    let numbered = |name: &str| ClassLabel { name: name.to_owned(), label: order(index) };
    let Some((name, label)) = text.rsplit_once('=') else {
        if layout == MaskLayout::PerClass {
            return Ok(numbered(text));
        }
        bail!("--class {text}: expected NAME=LABEL, nerve=1 for example");
    };
    let label = label.trim().parse();
    let label = label.with_context(|| format!("--class {text}: expected a label from 1 to 65535"))?;
    Ok(ClassLabel { name: name.to_owned(), label })
}

/// Label of the `index`-th class, where nobody said another.
fn order(index: usize) -> u16 {
    u16::try_from(index + 1).unwrap_or(u16::MAX)
}

impl DataArgs {
    /// The classes given, else those of `known` with labels in their order.
    ///
    /// # Errors
    /// A class that cannot be read, or none at all.
    fn labels(&self, known: &[String]) -> Result<Vec<ClassLabel>> {
        if self.classes.is_empty() && known.is_empty() {
            bail!(
                "which value in the masks is which class? give --class NAME=LABEL for each, nerve=1 for example"
            );
        }
        if self.classes.is_empty() {
            let numbered =
                |(index, name): (usize, &String)| ClassLabel { name: name.clone(), label: order(index) };
            return Ok(known.iter().enumerate().map(numbered).collect());
        }
        let given = self.classes.iter().enumerate();
        given.map(|(index, text)| class(text, index, self.layout)).collect()
    }

    /// Whether labels follow the order of the model's classes.
    pub fn numbers_classes(&self) -> bool {
        self.classes.is_empty() && self.layout == MaskLayout::Index
    }

    /// Opens the data set; `known` are the classes of the model.
    ///
    /// # Errors
    /// All mistakes of the data set at once.
    pub fn open(&self, known: &[String]) -> Result<Dataset> {
        let root = self.data.as_deref().context("which data? give --data DIR")?;
        let classes = self.labels(known)?;
        open(&DatasetSpec {
            name: name_of(root),
            root: root.to_owned(),
            images: None,
            masks: None,
            classes,
            layout: self.layout,
            bits: self.depth.bits,
        })
        .context("the classes and their labels are given with --class NAME=LABEL")
    }

    /// The pictures that are asked for.
    ///
    /// # Errors
    /// A list that cannot be read, or that names pictures that are not there; names that do not say whose pictures they are.
    pub fn choose<'a>(&self, data: &'a Dataset) -> Result<Vec<&'a Sample>> {
        let mut chosen = choose(data, self.only.as_deref())?;
        chosen.truncate(self.limit());
        check_patients(&chosen, self.patient.as_deref()).context("--patient")?;
        Ok(chosen)
    }

    /// What was chosen, for the report.
    pub fn settings(&self, data: &Dataset) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        let mut say = |what: &str, text: String| settings.insert(what.to_owned(), text);
        if data.layout == MaskLayout::Index {
            let labels: Vec<String> =
                data.classes.iter().map(|c| format!("{} = {}", c.name, c.label)).collect();
            say("labels", labels.join(", "));
        }
        if let Some(root) = &self.data {
            say("data", root.display().to_string());
        }
        if data.bits < 16 {
            say("bits in use", data.bits.to_string());
        }
        if let Some(file) = &self.only {
            say("images", format!("those of {}", file.display()));
        }
        if let Some(n) = self.limit {
            say("limit", format!("the first {n} images"));
        }
        settings
    }

    /// Most pictures of a data set.
    pub fn limit(&self) -> usize {
        self.limit.map_or(usize::MAX, |n| n as usize)
    }
}

/// Opens a data set and shows how far it is.
///
/// # Errors
/// All its mistakes.
pub fn open(spec: &DatasetSpec) -> Result<Dataset> {
    let mut count: Option<Count> = None;
    let opened = Dataset::open(spec, |done, total| {
        count.get_or_insert_with(|| Count::new(format!("checking {}", spec.name), total)).update(done);
    });
    Ok(opened?)
}

/// The pictures of `data` that the file `only` names, or all.
///
/// # Errors
/// A list that cannot be read, names nothing, or names pictures that are not there.
pub fn choose<'a>(data: &'a Dataset, only: Option<&Path>) -> Result<Vec<&'a Sample>> {
    let Some(file) = only else { return Ok(data.samples.iter().collect()) };
    let list =
        std::fs::read_to_string(file).with_context(|| format!("cannot read the list: {}", file.display()))?;
    let names: Vec<&str> = data.samples.iter().map(|s| s.name.as_str()).collect();
    let wanted = named(&names, &list).with_context(|| file.display().to_string())?;
    let chosen: Vec<&Sample> = data.samples.iter().zip(wanted).filter(|(_, w)| *w).map(|(s, _)| s).collect();
    if chosen.is_empty() {
        bail!("the list names no pictures: {}", file.display());
    }
    Ok(chosen)
}

/// Every picture must say whose it is, if patients are to be known: one that does not would count as a patient of its own, and make
/// intervals narrower than they are.
///
/// # Errors
/// An empty mark, names without it.
pub fn check_patients(chosen: &[&Sample], mark: Option<&str>) -> Result<()> {
    let names: Vec<&str> = chosen.iter().map(|sample| sample.name.as_str()).collect();
    patients(&names, mark)?;
    Ok(())
}

/// A data set is called like its folder.
fn name_of(root: &Path) -> String {
    let whole = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    whole.file_name().map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned())
}

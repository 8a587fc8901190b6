//! The pictures of a run: which are learned from, which are held out, and what is true of them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rand::Rng as _;
use sha2::{Digest as _, Sha256};

use super::divide::{Parts, divide, limit};
use super::features::FeatureCache;
use super::random::seeded;
use super::target::Target;
use super::twins::Twins;
use super::{Split, TrainError, TrainSpec};
use crate::dataset::{Augment, Damage, DataError, Dataset, Problem, Sample, View};
use crate::frame::Rgb;
use crate::mask::Mask;
use crate::segment::Sam;
use crate::segment::preprocess::Placement;
use crate::weights::hex;

/// Memory that truths may take; those that do not fit are made again when they are needed.
const TARGETS: usize = 1 << 30;

/// Which view of a picture is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    /// One whose features are kept; 0 is the picture itself.
    Kept(usize),
    /// One of its own, which is not seen again.
    Fresh(View),
}

impl std::fmt::Display for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kept(k) => write!(f, "view {k}"),
            Self::Fresh(_) => f.write_str("a view"),
        }
    }
}

/// One picture.
#[derive(Debug)]
pub struct Item {
    /// Index of its data set.
    pub dataset: usize,
    sample: Sample,
    /// Features of each view, the picture itself first.
    files: Vec<PathBuf>,
}

/// All pictures of a run.
#[derive(Debug)]
pub struct Material {
    /// The data sets.
    pub datasets: Vec<Dataset>,
    /// Learned from.
    pub train: Vec<Item>,
    /// Held out.
    pub validation: Vec<Item>,
    /// SHA-256 of the names, pictures (and their bits in use) and masks that are used, and of which are held out.
    pub hash: String,
    augment: Augment,
    /// Of each data set, the share of masks that are damaged.
    noise: Vec<f64>,
    targets: HashMap<(bool, usize, usize), Rc<Target>>,
    used: usize,
}

impl Material {
    /// Opens and divides the data sets. `progress` hears how many of how many pictures of a data set were looked at.
    ///
    /// # Errors
    /// Every mistake of every data set at once, of how they are divided as well.
    pub fn open(spec: &TrainSpec, mut progress: impl FnMut(usize, usize)) -> Result<Self, TrainError> {
        let (datasets, divided) = open(spec, &mut progress)?;
        let mut hash = Sha256::new();
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        let mut twins = Twins::default();
        for (dataset, ((data, set), mut parts)) in
            spec.datasets.iter().zip(&datasets).zip(divided).enumerate()
        {
            // Before the limit: whether a picture leaks shall not depend on which ones are drawn.
            let before = parts.clone();
            limit(&mut parts, data.limit, spec.seed);
            hash.update(format!("{} {:?}", set.name, set.classes));
            // Said only where it changes something.
            if set.bits < 16 {
                hash.update(format!("{} bits", set.bits));
            }
            for ((sample, before), part) in set.samples.iter().zip(before).zip(parts) {
                let Some(held_out) = before else { continue };
                let image = digest(&sample.image)?;
                twins.add(image, &sample.name, held_out);
                if part.is_none() {
                    continue;
                }
                hash.update(image);
                for mask in sample.masks() {
                    // Said, so that a mask that moves from a class to another is another truth.
                    match mask {
                        Some(file) => hash.update(digest(file)?),
                        None => hash.update("absent"),
                    }
                }
                hash.update(format!("{} {held_out} ", sample.name));
                let item = Item { dataset, sample: sample.clone(), files: Vec::new() };
                if held_out { validation.push(item) } else { train.push(item) }
            }
        }
        twins.warn();
        if train.is_empty() {
            return Err(TrainError::Setting("no picture is left to learn from".into()));
        }
        say_how_divided(spec, &train, &validation);
        warn_of_absent_classes(&datasets, &train, &validation);
        let hash = hex(&hash.finalize());
        let noise = spec.datasets.iter().map(|data| data.noise).collect();
        let (augment, targets) = (spec.augment, HashMap::new());
        Ok(Self { datasets, train, validation, hash, augment, noise, targets, used: 0 })
    }

    /// Encodes every view that the cache lacks: of the pictures that are learned from `views` beside each itself. `progress`
    /// hears how many of how many are there, and says whether to go on.
    ///
    /// # Errors
    /// A picture that changed, a failure of the network, a full disk.
    pub fn encode(
        &mut self,
        cache: &FeatureCache,
        sam: &Sam,
        views: usize,
        mut progress: impl FnMut(usize, usize) -> bool,
    ) -> Result<bool, TrainError> {
        let Self { datasets, train, validation, augment, .. } = self;
        let total = train.len() * (views + 1) + validation.len();
        let (mut done, mut told) = (0, false);
        let items = train.iter_mut().map(|i| (i, views)).chain(validation.iter_mut().map(|i| (i, 0)));
        for (item, views) in items {
            let Some(set) = datasets.get(item.dataset) else { continue };
            let picture = set.image(&item.sample)?;
            item.files.clear();
            for k in 0..=views {
                if !progress(done, total) {
                    return Ok(false);
                }
                let view = view_of(augment, &item.sample.name, k);
                let file = cache.file(&picture, &view);
                if !cache.has(&file) {
                    cache.fill(&file, sam, &picture, &view)?;
                    if !std::mem::replace(&mut told, true) {
                        let bytes = file.metadata().map_or(0, |m| m.len());
                        let (mega, giga) = (bytes as f64 / 1e6, bytes as f64 * total as f64 / 1e9);
                        tracing::info!("features: {total} views of {mega:.1} MB, {giga:.1} GB together");
                    }
                }
                item.files.push(file);
                done += 1;
            }
        }
        Ok(progress(total, total))
    }

    /// The picture at `at`, of those held out or of those learned from.
    pub fn item(&self, held_out: bool, at: usize) -> Option<&Item> {
        if held_out { self.validation.get(at) } else { self.train.get(at) }
    }

    /// The pixels of a picture.
    ///
    /// # Errors
    /// A picture that changed since the data set was opened.
    pub fn picture(&self, item: &Item) -> Result<Rgb, TrainError> {
        let lost = || TrainError::Setting(format!("there is no data set {}", item.dataset));
        Ok(self.datasets.get(item.dataset).ok_or_else(lost)?.image(&item.sample)?)
    }

    /// The truth of a view of a picture that lies in the input as `placement` says; `side` is that of the decoder's answer.
    ///
    /// # Errors
    /// A mask that changed since the data set was opened.
    pub fn target(
        &mut self,
        (held_out, at): (bool, usize),
        look: Look,
        placement: &Placement,
        side: i64,
    ) -> Result<Rc<Target>, TrainError> {
        let key = match look {
            Look::Kept(k) => Some((held_out, at, k)),
            Look::Fresh(_) => None,
        };
        if let Some(target) = key.and_then(|key| self.targets.get(&key)) {
            return Ok(target.clone());
        }
        let lost = || TrainError::Setting(format!("there is no picture {at}"));
        let item = self.item(held_out, at).ok_or_else(lost)?;
        let set = self.datasets.get(item.dataset).ok_or_else(lost)?;
        let view = match look {
            Look::Kept(k) => view_of(&self.augment, &item.sample.name, k),
            Look::Fresh(view) => view,
        };
        let mut masks = set.masks(&item.sample)?;
        if !held_out {
            let noise = self.noise.get(item.dataset).copied().unwrap_or(0.0);
            damage(&mut masks, noise, &item.sample.name);
        }
        let masks: Vec<_> = masks.iter().map(|mask| view.mask(mask)).collect();
        let size = item.sample.size;
        let bytes = masks.len() * (size.0 * size.1 + (side * side) as usize);
        let target = Rc::new(Target::new(masks, placement, side)?);
        if let Some(key) = key.filter(|_| self.used + bytes <= TARGETS) {
            self.used += bytes;
            self.targets.insert(key, target.clone());
        }
        Ok(target)
    }
}

impl Item {
    /// Features of view `k`.
    pub fn features(&self, k: usize) -> Option<&Path> {
        self.files.get(k).map(PathBuf::as_path)
    }

    /// Name of the picture.
    pub fn name(&self) -> &str {
        &self.sample.name
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        self.sample.size
    }
}

/// How many pictures `spec` leaves to learn from in each of its data sets, whatever its limits.
///
/// # Errors
/// As [`Material::open`].
pub fn learned_from(spec: &TrainSpec) -> Result<Vec<usize>, TrainError> {
    let (_, divided) = open(spec, &mut |_, _| ())?;
    let learned = |parts: &Parts| parts.iter().filter(|part| **part == Some(false)).count();
    Ok(divided.iter().map(learned).collect())
}

/// Opens and divides every data set, before any limit. A class must be somewhere in what is learned from.
fn open(
    spec: &TrainSpec,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Vec<Dataset>, Vec<Parts>), TrainError> {
    let (mut datasets, mut divided, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for data in &spec.datasets {
        let opened = Dataset::open_to_learn(&data.set, &mut *progress).and_then(|set| {
            let mut problems = Vec::new();
            let parts = divide(data, &set, &mut problems);
            problems.extend(parts.iter().flat_map(|parts| unlearned(&set, parts)));
            match parts {
                Some(parts) if problems.is_empty() => Ok((set, parts)),
                _ => Err(DataError { dataset: set.name, problems }),
            }
        });
        match opened {
            Ok((set, parts)) => {
                datasets.push(set);
                divided.push(parts);
            }
            Err(e) => wrong.push(e),
        }
    }
    if wrong.is_empty() { Ok((datasets, divided)) } else { Err(TrainError::Data(wrong)) }
}

/// Classes that no picture shows that is learned from; none where there are no such pictures.
fn unlearned(set: &Dataset, parts: &Parts) -> Vec<Problem> {
    let learned = || set.samples.iter().zip(parts).filter(|(_, part)| **part == Some(false));
    let is_absent = |class: usize| !learned().any(|(sample, _)| sample.shows(class));
    let classes = set.classes.iter().enumerate();
    classes
        .filter(|(at, _)| learned().next().is_some() && is_absent(*at))
        .map(|(_, class)| Problem::NotLearned { class: class.name.clone() })
        .collect()
}

/// SHA-256 of a file.
fn digest(file: &Path) -> Result<[u8; 32], TrainError> {
    let bytes = std::fs::read(file).map_err(|reason| TrainError::Read { file: file.to_owned(), reason })?;
    Ok(Sha256::digest(&bytes).into())
}

/// Says how many pictures of each data set are learned from and held out, and warns where far more are held out than a part should have: where
/// one patient has most of them.
fn say_how_divided(spec: &TrainSpec, train: &[Item], validation: &[Item]) {
    for (dataset, data) in spec.datasets.iter().enumerate() {
        let count = |items: &[Item]| items.iter().filter(|item| item.dataset == dataset).count();
        let (learned, held, name) = (count(train), count(validation), &data.set.name);
        tracing::info!("the data set {name:?}: {learned} pictures to learn from, {held} held out");
        if let Split::Folds { folds, fold, .. } = data.split
            && data.limit.is_none()
            && held * folds > 2 * (learned + held)
        {
            tracing::warn!(
                "the data set {name:?}: part {fold} of {folds} has {held} of {} pictures, as one patient has most of them: expected another fold",
                learned + held
            );
        }
    }
}

/// Says what can be meant and seldom is: classes that the drawn pictures lack, and nothing to measure.
fn warn_of_absent_classes(datasets: &[Dataset], train: &[Item], validation: &[Item]) {
    let shows = |items: &[Item], dataset: usize, class: usize| {
        items.iter().any(|item| item.dataset == dataset && item.sample.shows(class))
    };
    let mut measured = false;
    let mut unmeasured = Vec::new();
    for (dataset, set) in datasets.iter().enumerate() {
        let holds_out = validation.iter().any(|item| item.dataset == dataset);
        for (at, class) in set.classes.iter().enumerate() {
            let is_held_out = shows(validation, dataset, at);
            measured |= is_held_out;
            if holds_out && !is_held_out {
                unmeasured.push(format!("{:?} of the data set {:?}", class.name, set.name));
            }
            if !shows(train, dataset, at) {
                // Of a limit: the draw has none, and another draw may.
                let (set, class) = (&set.name, &class.name);
                tracing::warn!("the data set {set:?}: the pictures that were drawn do not show {class:?}");
            }
        }
    }
    if measured && !unmeasured.is_empty() {
        let classes = unmeasured.join(", ");
        tracing::warn!("no held-out picture shows {classes}: the best epoch is that of the other classes");
    }
    if !validation.is_empty() && !measured {
        tracing::warn!(
            "no held-out picture shows any class: nothing can be measured, and no epoch is the best"
        );
    }
}

/// View `k` of the picture `name`; 0 is the picture itself. It depends on nothing else, so that folds and runs share what is encoded.
fn view_of(augment: &Augment, name: &str, k: usize) -> View {
    if k == 0 {
        return View::PLAIN;
    }
    View::draw(augment, &mut seeded(&format!("view {k} of {name}")))
}

/// Damages a share of the masks of a picture, the same ones in every view and every run.
fn damage(masks: &mut [Mask], share: f64, name: &str) {
    for (class, mask) in masks.iter_mut().enumerate() {
        // Each mask by itself: a larger share damages what a smaller one does, and more.
        let mut rng = seeded(&format!("noise of {name}, class {class}"));
        if rng.random::<f64>() < share {
            *mask = Damage::draw(mask, &mut rng);
        }
    }
}

/// Names of the held-out pictures by data set, as lists that a split can be made from again.
pub fn held_out(material: &Material) -> BTreeMap<String, String> {
    let mut lists: BTreeMap<String, String> =
        material.datasets.iter().map(|set| (set.name.clone(), String::new())).collect();
    for item in &material.validation {
        if let Some(set) = material.datasets.get(item.dataset)
            && let Some(list) = lists.get_mut(&set.name)
        {
            list.push_str(item.name());
            list.push('\n');
        }
    }
    lists
}

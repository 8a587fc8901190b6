//! Labelled pictures: a folder of images and a folder of masks, checked as a whole before anything is learned from them.

mod distort;
mod files;
mod labels;
mod noise;
mod problem;
mod split;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use distort::{MAX_SPECKLE, MAX_WARP};
pub use labels::Labels;
pub use noise::Damage;
pub use problem::{DataError, Problem};
pub use split::{SplitError, folds, named, patient, patients};
pub use view::{Augment, View};

use self::files::{by_stem, folder};
use crate::cine::{self, OpenOptions};
use crate::frame::{ImageView, Plane, Rgb, YuvColor};
use crate::mask::Mask;

/// Folders that images are looked for in, where none is named; then those of masks.
const IMAGE_FOLDERS: [&str; 2] = ["imgs", "images"];
const MASK_FOLDERS: [&str; 2] = ["gts", "masks"];

/// A class and the value that marks it in index masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassLabel {
    /// Name, as the predictor will have it.
    pub name: String,
    /// Value of its pixels; 0 is background. Not looked at with [`MaskLayout::PerClass`].
    pub label: u16,
}

/// How masks are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskLayout {
    /// One picture for each image, `gts/NAME.png`, whose pixels (of a palette, the indices) are labels.
    #[default]
    Index,
    /// One picture for each image and class, `gts/CLASS/NAME.png`, black outside and anything else inside. A class without a
    /// picture is absent; an image without any is a mistake.
    PerClass,
}

/// Where a data set lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSpec {
    /// Name, under which the predictor keeps the queries learned from it.
    pub name: String,
    /// The folder with both others.
    pub root: PathBuf,
    /// Folder of the images below `root`; `None` takes `imgs` or `images`.
    pub images: Option<PathBuf>,
    /// Folder of the masks; `None` takes `gts` or `masks`.
    pub masks: Option<PathBuf>,
    /// What is to be learned.
    pub classes: Vec<ClassLabel>,
    /// How masks are stored.
    pub layout: MaskLayout,
    /// How many of their bits images of 16 bits a value use, 8 to 16 ([`OpenOptions::bits`]).
    pub bits: u8,
}

/// One image with its masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// File name without folder and extension.
    pub name: String,
    /// The image.
    pub image: PathBuf,
    /// One file, or one for each class (`None`: absent).
    masks: Vec<Option<PathBuf>>,
    /// Width and height in pixels.
    pub size: (usize, usize),
    /// Pixels of each class.
    pub areas: Vec<usize>,
}

impl Sample {
    /// Whether the class at the place `class` has any pixels.
    pub fn shows(&self, class: usize) -> bool {
        self.areas.get(class).is_some_and(|&area| area > 0)
    }

    /// The files of its masks: one, or one for each class (`None`: absent).
    pub fn masks(&self) -> impl Iterator<Item = Option<&Path>> {
        self.masks.iter().map(Option::as_deref)
    }
}

/// Images and masks that go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// Its classes, in the order of all masks.
    pub classes: Vec<ClassLabel>,
    /// How masks are stored.
    pub layout: MaskLayout,
    /// As in [`DatasetSpec`].
    pub bits: u8,
    /// In the order of their names' bytes.
    pub samples: Vec<Sample>,
}

impl Dataset {
    /// Finds and reads every image and every mask, and checks that they go together. `progress` hears how many of how many
    /// images have been looked at. A class may be in no image: what is drawn where there is none can still be measured.
    ///
    /// # Errors
    /// All mistakes at once: a folder that is not there, an image without a mask or the reverse, two files of one name, a
    /// picture that cannot be read, other sizes, labels that no class has.
    pub fn open(spec: &DatasetSpec, progress: impl FnMut(usize, usize)) -> Result<Self, DataError> {
        let opened = Self::look_through(spec, progress, /* every class */ false)?;
        for class in opened.absent() {
            let (set, class) = (&opened.name, &class.name);
            tracing::warn!(
                "the data set {set:?}: class {class:?} is in no image, and counts for specificity alone"
            );
        }
        Ok(opened)
    }

    /// The same to learn from.
    ///
    /// # Errors
    /// As [`Dataset::open`]; a class that is in no image is a mistake too.
    pub fn open_to_learn(spec: &DatasetSpec, progress: impl FnMut(usize, usize)) -> Result<Self, DataError> {
        Self::look_through(spec, progress, /* every class */ true)
    }

    fn look_through(
        spec: &DatasetSpec,
        mut progress: impl FnMut(usize, usize),
        every_class: bool,
    ) -> Result<Self, DataError> {
        let mut problems = Vec::new();
        check_classes(spec, &mut problems);
        let images = folder(&spec.root, spec.images.as_deref(), &IMAGE_FOLDERS, "images", &mut problems);
        let masks = folder(&spec.root, spec.masks.as_deref(), &MASK_FOLDERS, "masks", &mut problems);
        let (Some(images), Some(masks)) = (images, masks) else { return Err(DataError::new(spec, problems)) };
        let images = by_stem(&images, &mut problems);
        let folders: Vec<PathBuf> = match spec.layout {
            MaskLayout::Index => vec![masks.clone()],
            MaskLayout::PerClass => spec.classes.iter().map(|c| masks.join(&c.name)).collect(),
        };
        if spec.layout == MaskLayout::PerClass {
            warn_of_unnamed(spec, &masks);
        }
        let masks: Vec<_> = folders.iter().map(|folder| by_stem(folder, &mut problems)).collect();
        let orphans: BTreeSet<&PathBuf> = masks
            .iter()
            .flat_map(|m| m.iter().filter(|(name, _)| !images.contains_key(*name)))
            .map(|(_, file)| file)
            .collect();
        problems.extend(orphans.into_iter().map(|file| Problem::NoImage { mask: file.clone() }));

        let mut samples = Vec::with_capacity(images.len());
        let (total, mut dark) = (images.len(), 0);
        for (at, (name, image)) in images.into_iter().enumerate() {
            progress(at, total);
            let own: Vec<Option<PathBuf>> = masks.iter().map(|m| m.get(&name).cloned()).collect();
            if own.iter().all(Option::is_none) {
                problems.push(Problem::NoMask { image });
                continue;
            }
            match look(spec, &name, &image, own) {
                Ok((sample, is_dark)) => {
                    samples.push(sample);
                    dark += usize::from(is_dark);
                }
                Err(found) => problems.extend(found),
            }
        }
        progress(total, total);
        let (name, classes) = (spec.name.clone(), spec.classes.clone());
        let opened = Self { name, classes, layout: spec.layout, bits: spec.bits, samples };
        if every_class {
            let absent = opened.absent().map(|class| Problem::EmptyClass { class: class.name.clone() });
            problems.extend(absent);
        }
        if total == 0 {
            problems.push(Problem::NoPictures);
        }
        if !problems.is_empty() {
            return Err(DataError::new(spec, problems));
        }
        if dark > 0 {
            let Self { name, bits, .. } = &opened;
            tracing::warn!(
                "the data set {name:?}: {dark} of {total} images have 16 bits and use less than a quarter of the range of {bits}, which \
                 leaves few grey levels: expected to be told how many are in use (bits = 12, --bits 12)"
            );
        }
        Ok(opened)
    }

    /// Classes that no image has; none where there are no images.
    fn absent(&self) -> impl Iterator<Item = &ClassLabel> {
        let is_absent = move |at: usize| !self.samples.iter().any(|sample| sample.shows(at));
        let classes = self.classes.iter().enumerate();
        classes.filter(move |(at, _)| !self.samples.is_empty() && is_absent(*at)).map(|(_, class)| class)
    }

    /// The image of `sample`.
    ///
    /// # Errors
    /// A file that changed since the data set was opened.
    pub fn image(&self, sample: &Sample) -> Result<Rgb, Problem> {
        let picture = picture(&sample.image, self.bits)?;
        if (picture.width, picture.height) == sample.size {
            return Ok(picture);
        }
        Err(Problem::Changed { file: sample.image.clone() })
    }

    /// The masks of `sample`, one for each class, of the image's size.
    ///
    /// # Errors
    /// A file that changed since the data set was opened.
    pub fn masks(&self, sample: &Sample) -> Result<Vec<Mask>, Problem> {
        read_masks(&self.classes, self.layout, &sample.masks, Some(sample.size)).map_err(|found| {
            found.into_iter().next().unwrap_or(Problem::Changed { file: sample.image.clone() })
        })
    }
}

/// What a folder of masks by class has beside its classes' folders would be background, unsaid.
fn warn_of_unnamed(spec: &DatasetSpec, masks: &Path) {
    let Ok(entries) = std::fs::read_dir(masks) else { return };
    let mut others: Vec<String> = entries
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir())?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && spec.classes.iter().all(|class| class.name != *name))
        .collect();
    others.sort();
    if !others.is_empty() {
        let (set, others, masks) = (&spec.name, others.join(", "), masks.display());
        tracing::warn!(
            "the data set {set:?}: folders that are no class are not looked at: {others}: {masks}"
        );
    }
}

fn check_classes(spec: &DatasetSpec, problems: &mut Vec<Problem>) {
    if spec.classes.is_empty() {
        problems.push(Problem::NoClasses);
    }
    let mut seen = (BTreeSet::new(), BTreeMap::new());
    for class in &spec.classes {
        if class.name.is_empty() || !seen.0.insert(&class.name) {
            problems.push(Problem::ClassName { class: class.name.clone() });
        }
        if spec.layout == MaskLayout::PerClass {
            continue;
        }
        if class.label == 0 {
            problems.push(Problem::BackgroundLabel { class: class.name.clone() });
        } else if let Some(other) = seen.1.insert(class.label, &class.name) {
            let classes = [other.clone(), class.name.clone()];
            problems.push(Problem::SameLabel { label: class.label, classes });
        }
    }
}

/// Reads an image with its masks, and says whether it is [`in_the_dark`].
fn look(
    spec: &DatasetSpec,
    name: &str,
    image: &Path,
    masks: Vec<Option<PathBuf>>,
) -> Result<(Sample, bool), Vec<Problem>> {
    let rgb = picture(image, spec.bits).map_err(|unreadable| {
        // What is wrong with its masks is said as well, but for their size.
        let found = read_masks(&spec.classes, spec.layout, &masks, None).err().unwrap_or_default();
        std::iter::once(unreadable).chain(found).collect::<Vec<_>>()
    })?;
    let dark = in_the_dark(image, &rgb);
    let size = (rgb.width, rgb.height);
    let found = read_masks(&spec.classes, spec.layout, &masks, Some(size))?;
    let areas = found.iter().map(Mask::area).collect();
    Ok((Sample { name: name.to_owned(), image: image.to_owned(), masks, size, areas }, dark))
}

/// Whether `file`, read as `rgb`, has 16 bits a value and uses less than a quarter of the range of those said to be in use: 10 or 12
/// bits that were stored as they are, of which nobody said so. Only the upper 8 are kept.
fn in_the_dark(file: &Path, rgb: &Rgb) -> bool {
    // The header is read again only where the picture is as dark as that.
    let brightest = rgb.data.iter().max().copied().unwrap_or(0);
    brightest < 64 && labels::is_deep(file)
}

/// The masks of a picture of `size`; `None` where nobody knows it.
fn read_masks(
    classes: &[ClassLabel],
    layout: MaskLayout,
    files: &[Option<PathBuf>],
    size: Option<(usize, usize)>,
) -> Result<Vec<Mask>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut read = |file: &PathBuf, binary: bool| {
        let labels = if binary { Labels::inside(file) } else { Labels::read(file) };
        let found = labels.map_err(|what| Problem::Unreadable { file: file.clone(), what });
        let labels = found.map_err(|problem| problems.push(problem)).ok()?;
        let mask = (labels.width, labels.height);
        // One of another size is looked at all the same: what else is wrong with it is told with that.
        if let Some(image) = size.filter(|&image| image != mask) {
            problems.push(Problem::Size { file: file.clone(), mask, image });
        }
        Some(labels)
    };
    let masks = match layout {
        MaskLayout::Index => {
            let Some(file) = files.first().and_then(Option::as_ref) else { return Err(problems) };
            let Some(labels) = read(file, false) else { return Err(problems) };
            let known: BTreeSet<u16> = classes.iter().map(|c| c.label).chain([0]).collect();
            for (label, pixels) in labels.counts().into_iter().filter(|(label, _)| !known.contains(label)) {
                let known = known.iter().copied().collect();
                problems.push(Problem::UnknownLabel { file: file.clone(), label, pixels, known });
            }
            classes.iter().map(|c| labels.mask(|v| v == c.label)).collect()
        }
        MaskLayout::PerClass => {
            let mut masks = Vec::with_capacity(files.len());
            for file in files {
                masks.push(match file {
                    None => size.map(|(width, height)| Mask::empty(width, height)),
                    Some(file) => read(file, true).and_then(|labels| labels.mask(|v| v != 0)),
                });
            }
            masks
        }
    };
    let masks: Option<Vec<Mask>> = masks.into_iter().collect();
    match masks {
        Some(masks) if problems.is_empty() => Ok(masks),
        _ => Err(problems),
    }
}

/// A picture file of any of the supported formats.
fn picture(file: &Path, bits: u8) -> Result<Rgb, Problem> {
    let unreadable = |what: String| {
        // The reader's message ends with the file, as the problem's does.
        let what = what.strip_suffix(&format!(": {}", file.display())).unwrap_or(&what).to_owned();
        Problem::Unreadable { file: file.to_owned(), what }
    };
    let frame = cine::open_with(file, OpenOptions { bits, ..OpenOptions::default() })
        .and_then(|mut reader| reader.next_frame())
        .map_err(|e| unreadable(e.to_string()))?
        .ok_or_else(|| unreadable("it holds no picture".into()))?;
    let (stride, _) = frame.format.planes(frame.width, frame.height).first().copied().unwrap_or_default();
    let plane = Plane { data: &frame.data, stride };
    let view = ImageView::new(frame.format, frame.width, frame.height, YuvColor::default(), vec![plane]);
    Ok(Rgb::from(&view.map_err(|e| unreadable(e.to_string()))?))
}

//! What can be wrong with a data set.

use std::fmt;
use std::path::PathBuf;

use super::{DatasetSpec, SplitError};

/// Mistakes that are written out; the rest is counted.
const SHOWN: usize = 100;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No folder of images or of masks.
    #[error("no folder of {what}: looked for {}", list(looked_for))]
    NoFolder {
        /// Images or masks.
        what: &'static str,
        /// Where.
        looked_for: Vec<PathBuf>,
    },
    /// An empty folder of images.
    #[error("no images: expected PNG, JPEG, TIFF, BMP or PNM files")]
    NoPictures,
    /// Nothing to learn.
    #[error("no classes: expected at least one")]
    NoClasses,
    /// A name that is empty or given twice.
    #[error("class {class:?}: expected a name that no other class has")]
    ClassName {
        /// The name.
        class: String,
    },
    /// Label 0 for a class.
    #[error("class {class:?} has label 0, which is background: expected 1 to 65535")]
    BackgroundLabel {
        /// The class.
        class: String,
    },
    /// Two classes with one label.
    #[error("label {label} belongs to two classes, {:?} and {:?}", classes[0], classes[1])]
    SameLabel {
        /// The label.
        label: u16,
        /// Both.
        classes: [String; 2],
    },
    /// Two files that differ in their extensions alone.
    #[error("two files of one name: {} and {}", files[0].display(), files[1].display())]
    SameName {
        /// Both.
        files: [PathBuf; 2],
    },
    /// An image without a mask.
    #[error("no mask for the image {}", image.display())]
    NoMask {
        /// The image.
        image: PathBuf,
    },
    /// A mask without an image.
    #[error("no image for the mask {}", mask.display())]
    NoImage {
        /// The mask.
        mask: PathBuf,
    },
    /// A file that is no picture, or not one that is understood; a list that is no text.
    #[error("cannot be read: {what}: {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        what: String,
    },
    /// A mask of another size than its image.
    #[error("the mask is {}x{}, its image {}x{}: {}", mask.0, mask.1, image.0, image.1, file.display())]
    Size {
        /// The mask.
        file: PathBuf,
        /// Its size.
        mask: (usize, usize),
        /// The image's.
        image: (usize, usize),
    },
    /// A label that no class has.
    #[error("{pixels} pixels have label {label}, expected one of {known:?}: {}", file.display())]
    UnknownLabel {
        /// The mask.
        file: PathBuf,
        /// The label.
        label: u16,
        /// How many.
        pixels: usize,
        /// Labels of the classes, and background.
        known: Vec<u16>,
    },
    /// A class that is nowhere.
    #[error("class {class:?} is in no image")]
    EmptyClass {
        /// The class.
        class: String,
    },
    /// A class that only held-out images have.
    #[error(
        "class {class:?} is in no image that is learned from: expected another fold or split_seed, or another list"
    )]
    NotLearned {
        /// The class.
        class: String,
    },
    /// It cannot be divided as asked.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// A list of names that does not fit it.
    #[error("{reason}: {}", file.display())]
    List {
        /// The list.
        file: PathBuf,
        /// What is wrong.
        reason: SplitError,
    },
    /// A file that is not what it was when the data set was opened.
    #[error("the file changed while it was used: {}", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Everything that is wrong with a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataError {
    /// Name of the data set.
    pub dataset: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl DataError {
    pub(super) fn new(spec: &DatasetSpec, problems: Vec<Problem>) -> Self {
        Self { dataset: spec.name.clone(), problems }
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, s) = (self.problems.len(), if self.problems.len() == 1 { "" } else { "s" });
        write!(f, "the data set {:?} has {n} mistake{s}:", self.dataset)?;
        for problem in self.problems.iter().take(SHOWN) {
            write!(f, "\n  {problem}")?;
        }
        match self.problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl std::error::Error for DataError {}

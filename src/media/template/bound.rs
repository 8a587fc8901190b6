//! A template whose parameters all have values: what `launch` builds from.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Kind;

/// A free-text value and the property it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    pub(crate) element: String,
    pub(crate) factory: String,
    pub(crate) property: String,
    pub(crate) value: String,
}

impl fmt::Debug for Setting {
    /// Without the value, which may be a passphrase.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.element, self.property)
    }
}

/// A template with checked values for all its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub(crate) kind: Kind,
    pub(crate) origin: String,
    pub(crate) description: String,
    pub(crate) factories: Vec<String>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) terminal: String,
    pub(super) name: String,
    pub(super) live: bool,
    pub(super) records: Option<PathBuf>,
}

impl Bound {
    /// Name of the template.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The launch description, without the free-text values.
    pub fn description(&self) -> &str {
        &self.description
    }
    /// Whether it delivers in real time with these values.
    pub fn is_live(&self) -> bool {
        self.live
    }
    /// The file it writes, if it records.
    pub fn records(&self) -> Option<&Path> {
        self.records.as_deref()
    }
    /// Factory names of its elements with these values, in order.
    pub fn elements(&self) -> &[String] {
        &self.factories
    }
}

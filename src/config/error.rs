//! Why a configuration is refused.

use std::path::PathBuf;

use super::Origin;
use crate::media::template::TemplateError;

/// Why a configuration is refused. Messages say what was found, what was expected, and where it stands.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration: {source}: {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("not valid TOML: {what} ({at})")]
    Syntax {
        /// What the parser says.
        what: String,
        /// Where.
        at: Origin,
    },
    /// No preset of this name.
    #[error("there is no preset {name:?}; there are {known} ({at})")]
    UnknownPreset {
        /// Name asked for.
        name: String,
        /// Names there are.
        known: String,
        /// Who asked.
        at: Origin,
    },
    /// A key nobody reads.
    #[error("unknown key {key}; expected {known} ({at})")]
    UnknownKey {
        /// The key with its tables.
        key: String,
        /// Keys there are at that place.
        known: String,
        /// Where.
        at: Origin,
    },
    /// A value of the wrong type, range or unit.
    #[error("{key} = {found}: expected {expected} ({at})")]
    Value {
        /// The key with its tables.
        key: String,
        /// The value found.
        found: String,
        /// What was expected.
        expected: String,
        /// Where.
        at: Origin,
    },
    /// Settings that are fine alone and impossible together.
    #[error("{what} ({})", list(at))]
    Combination {
        /// What is impossible, why, and what to do.
        what: String,
        /// Where the settings stand.
        at: Vec<Origin>,
    },
    /// A `--set` argument or environment variable that names no key.
    #[error("{what} ({at})")]
    Override {
        /// What is wrong and what was expected.
        what: String,
        /// Which one.
        at: Origin,
    },
    /// The source's or sink's template, or a value for it.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

fn list(at: &[Origin]) -> String {
    let mut places: Vec<_> = at.iter().map(Origin::to_string).collect();
    places.dedup();
    places.join("; ")
}

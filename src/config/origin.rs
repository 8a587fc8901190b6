//! Where a setting came from.

use std::fmt;
use std::path::{Component, PathBuf};
use std::sync::Arc;

use crate::weights::{find_weights, own_weights_dirs};

/// The place that gave a setting its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of a built-in preset.
    Preset(&'static str, usize),
    /// A line of a file.
    File(Arc<PathBuf>, usize),
    /// An environment variable.
    Env(String),
    /// `--set` with this key.
    Set(String),
    /// A command-line flag of its own.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(name, line) => write!(f, "preset {name}:{line}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Set(key) => write!(f, "--set {key}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

impl Origin {
    /// Folder that a relative path given here is relative to; empty is the current directory.
    pub fn base(&self) -> PathBuf {
        match self {
            Self::File(path, _) => path.parent().map(PathBuf::from).unwrap_or_default(),
            // The built-in copy of a preset means what the file in `configs/` of the current directory means.
            Self::Preset(..) => PathBuf::from("configs"),
            _ => PathBuf::new(),
        }
    }

    /// `path` as seen from the current directory. For a preset `..` is taken back by name, because the folder `configs` need
    /// not exist, and weights are searched (see [`crate::weights::weights_dirs`]); in a file a path keeps its meaning
    /// through symbolic links.
    pub fn resolve(&self, path: &str) -> PathBuf {
        if !matches!(self, Self::Preset(..)) {
            return self.base().join(path);
        }
        let mut out = PathBuf::new();
        for part in self.base().join(path).components() {
            let up = part == Component::ParentDir
                && matches!(out.components().next_back(), Some(Component::Normal(_)));
            if up {
                out.pop();
            } else if part != Component::CurDir {
                out.push(part);
            }
        }
        match out.strip_prefix("weights") {
            Ok(name) if !name.as_os_str().is_empty() => find_weights(name, &own_weights_dirs()),
            _ => out,
        }
    }
}

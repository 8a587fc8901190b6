//! Configuration: layers, provenance, refusals with their line.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod layers;
mod models;
mod refusals;

use std::path::{Path, PathBuf};

use sonomask::config::{Config, ConfigError, LoadArgs};
use sonomask::media::template::{Bound, Kind, Template, TemplateError};

type Env<'a> = &'a [(&'a str, &'a str)];

fn load(
    preset: Option<&str>,
    file: Option<&Path>,
    env: Env<'_>,
    set: &[&str],
) -> Result<Config, ConfigError> {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::load(LoadArgs { preset, file, env, set: &set, flags: &[] })
}

/// A folder with a file `c.toml` of this content.
fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

/// The sink's template with its values.
fn sink_of(config: &Config) -> Result<Bound, TemplateError> {
    Template::find(Kind::Sink, &config.sink.kind, &config.template_dirs)?.bind(&config.sink.params)
}

/// The refusal of a file, with its path shortened to `c.toml`.
fn refusal(text: &str) -> String {
    let (_dir, path) = write(text);
    load(None, Some(&path), &[], &[]).unwrap_err().to_string().replace(path.to_str().unwrap(), "c.toml")
}

//! Presets, the file, the environment, `--set` and flags, laid over each other.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read::text;
use super::schema::{SINK_KEYS, SOURCE_KEYS};
use super::tree::{Item, Node};
use super::{ConfigError, LoadArgs, Origin};
use crate::media::template::template_dirs;

const PRESETS: &[(&str, &str)] = &[
    ("bedside", include_str!("../../configs/bedside.toml")),
    ("cine", include_str!("../../configs/cine.toml")),
    ("benchmark", include_str!("../../configs/benchmark.toml")),
    ("demo", include_str!("../../configs/demo.toml")),
    ("nerve-vessel", include_str!("../../configs/nerve-vessel.toml")),
];

/// Longest configuration file read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// What environment variables begin with; two underscores separate the levels.
const PREFIX: &str = "SONOMASK__";

/// Names of the built-in presets.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The merged tree, the preset's name, and the folders in which templates are searched.
pub(super) fn merge(
    args: LoadArgs<'_, impl Iterator<Item = (String, String)>>,
) -> Result<(Node, Option<String>, Vec<PathBuf>), ConfigError> {
    let env: BTreeMap<String, String> = args.env.collect();
    let layers = [
        args.file.map(file).transpose()?,
        Some(environment(&env)?),
        Some(arguments(args.set)?),
        Some(flags(args.flags)?),
    ];
    let named = layers.iter().flatten().rev().find_map(|layer| layer.get("preset"));
    let (name, at) = match named {
        None => (args.preset.map(str::to_owned), Origin::Default),
        Some(node) => match text(node) {
            Some(name) => (Some(name), node.at.clone()),
            None => return Err(super::read::wrong("preset", node, "the name of a preset".to_owned())),
        },
    };
    let mut tree = match &name {
        None => Node::table(Origin::Default),
        Some(name) => preset(name, at)?,
    };
    for layer in layers.into_iter().flatten() {
        forget_other_kind(&mut tree, &layer, "source", SOURCE_KEYS);
        forget_other_kind(&mut tree, &layer, "sink", SINK_KEYS);
        tree.merge(layer);
    }
    let dir = args.file.map(|file| file.parent().unwrap_or(Path::new("")));
    let dirs = template_dirs(dir, |name| env.get(name).cloned());
    Ok((tree, name, dirs))
}

/// A layer that chooses another template does not inherit the parameters of the one before.
fn forget_other_kind(tree: &mut Node, over: &Node, section: &str, own: &[&str]) {
    let kind = |node: &Node| node.get(section).and_then(|s| s.get("kind")).and_then(text);
    let Some(new) = kind(over) else { return };
    if kind(tree).is_none_or(|old| old == new) {
        return;
    }
    if let Item::Table(top) = &mut tree.item
        && let Some(Node { item: Item::Table(table), .. }) = top.get_mut(section)
    {
        table.retain(|key, _| own.contains(&key.as_str()));
    }
}

fn preset(name: &str, at: Origin) -> Result<Node, ConfigError> {
    let Some((name, text)) = PRESETS.iter().find(|(n, _)| *n == name) else {
        let known: Vec<_> = preset_names().collect();
        return Err(ConfigError::UnknownPreset { name: name.to_owned(), known: known.join(", "), at });
    };
    Node::parse(text, &|line| Origin::Preset(name, line))
}

pub(super) fn file(path: &Path) -> Result<Node, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(std::io::Error::other(format!("longer than {MAX_FILE} bytes"))));
    }
    let path = Arc::new(path.to_owned());
    Node::parse(&text, &|line| Origin::File(path.clone(), line))
}

fn environment(env: &BTreeMap<String, String>) -> Result<Node, ConfigError> {
    let mut layer = Node::table(Origin::Default);
    for (name, value) in env {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        let at = Origin::Env(name.clone());
        let path: Vec<String> = key.split("__").map(str::to_lowercase).collect();
        if path.iter().any(String::is_empty) {
            let what = "expected TABLE__KEY after SONOMASK__, SONOMASK__MODEL__DEVICE for example".to_owned();
            return Err(ConfigError::Override { what, at });
        }
        layer.insert(&path, Node::typed(value, &at));
    }
    Ok(layer)
}

fn arguments(set: &[String]) -> Result<Node, ConfigError> {
    let mut layer = Node::table(Origin::Default);
    for argument in set {
        let expected = || ConfigError::Override {
            what: "expected key=value, model.device=cpu for example".to_owned(),
            at: Origin::Set(argument.clone()),
        };
        let (key, value) = argument.split_once('=').ok_or_else(expected)?;
        let path: Vec<String> = key.split('.').map(|k| k.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(expected());
        }
        // Only the key: the value may be a passphrase.
        layer.insert(&path, Node::typed(value, &Origin::Set(key.trim().to_owned())));
    }
    Ok(layer)
}

fn flags(flags: &[(&str, toml::Value, &str)]) -> Result<Node, ConfigError> {
    let mut layer = Node::table(Origin::Default);
    for (key, value, flag) in flags {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        layer.insert(&path, Node::of(value, &Origin::Flag((*flag).to_owned())));
    }
    Ok(layer)
}

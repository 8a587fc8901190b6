//! Takes typed values out of the tree, refuses what is left over, and remembers what was effective.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::tree::{Item, Node};
use super::{ConfigError, Origin};
use crate::media::template::{DURATION_EXPECTED, Given, Params, format_duration, parse_duration};

/// Most of anything that is counted.
pub(super) const MANY: u32 = 1_000_000;

/// One effective setting.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Effective {
    pub section: String,
    pub key: String,
    pub value: toml::Value,
    pub at: Origin,
}

/// Everything that was effective, in the order it was read.
pub(super) type Log = Vec<Effective>;

/// One table, read key by key.
pub(super) struct Section<'a> {
    name: String,
    at: Origin,
    rest: BTreeMap<String, Node>,
    known: Vec<&'static str>,
    log: &'a mut Log,
}

impl<'a> Section<'a> {
    /// The table `name`; an absent one is empty.
    pub fn new(name: &str, node: Option<Node>, log: &'a mut Log) -> Result<Self, ConfigError> {
        let (rest, at) = match node {
            None => (BTreeMap::new(), Origin::Default),
            Some(Node { item: Item::Table(t), at, .. }) => (t, at),
            Some(node) => return Err(wrong(name, &node, "a table".to_owned())),
        };
        Ok(Self { name: name.to_owned(), at, rest, known: Vec::new(), log })
    }

    /// Where the table stands.
    pub fn at(&self) -> &Origin {
        &self.at
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Takes `key` out, as it is.
    pub fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.rest.remove(key)
    }

    /// Takes `key` out, converts it, and remembers the effective value; `None` if the key is absent.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&Node) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(node) = self.take(key) else { return Ok(None) };
        let value = convert(&node).ok_or_else(|| wrong(&self.path(key), &node, expected.to_owned()))?;
        self.remember(key, node.value(), node.at);
        Ok(Some(value))
    }

    /// Remembers an effective value that was taken by other means.
    pub fn remember(&mut self, key: &str, value: toml::Value, at: Origin) {
        self.log.push(Effective { section: self.name.clone(), key: key.to_owned(), value, at });
    }

    fn or_default<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        default: T,
        shown: impl Into<toml::Value>,
        convert: impl FnOnce(&Node) -> Option<T>,
    ) -> Result<T, ConfigError> {
        match self.optional(key, expected, convert)? {
            Some(value) => Ok(value),
            None => {
                self.remember(key, shown.into(), Origin::Default);
                Ok(default)
            }
        }
    }

    /// `true` or `false`.
    pub fn bool(&mut self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        self.or_default(key, "true or false", default, default, |n| leaf(n)?.as_bool())
    }

    /// A whole number in `min..=max`.
    pub fn int(&mut self, key: &'static str, default: u32, min: u32, max: u32) -> Result<u32, ConfigError> {
        let expected = format!("a whole number from {min} to {max}");
        self.or_default(key, &expected, default, i64::from(default), |n| {
            let v = u32::try_from(leaf(n)?.as_integer()?).ok()?;
            (min..=max).contains(&v).then_some(v)
        })
    }

    /// A number in `min..=max`.
    pub fn float(&mut self, key: &'static str, default: f32, min: f32, max: f32) -> Result<f32, ConfigError> {
        let expected = format!("a number from {min} to {max}");
        self.or_default(key, &expected, default, f64::from(default), |n| {
            let v = number(n)?;
            (min..=max).contains(&v).then_some(v)
        })
    }

    /// The same with all the digits that were written.
    pub fn double(
        &mut self,
        key: &'static str,
        default: f64,
        min: f64,
        max: f64,
    ) -> Result<f64, ConfigError> {
        self.number(key, &format!("a number from {min} to {max}"), default, |v| (min..=max).contains(&v))
    }

    /// A number that `fits`.
    pub fn number(
        &mut self,
        key: &'static str,
        expected: &str,
        default: f64,
        fits: impl FnOnce(f64) -> bool,
    ) -> Result<f64, ConfigError> {
        self.or_default(key, expected, default, default, |n| {
            let v = leaf(n)?;
            let v = v.as_float().or_else(|| v.as_integer().map(|i| i as f64))?;
            fits(v).then_some(v)
        })
    }

    /// A duration with a unit in `min..=24h`; for `shortest` see the message.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        shortest: Duration,
    ) -> Result<Duration, ConfigError> {
        let at_least = if shortest.is_zero() {
            String::new()
        } else {
            format!(", at least {}", format_duration(shortest))
        };
        let expected = format!("{DURATION_EXPECTED}{at_least}, at most 24h");
        self.or_default(key, &expected, default, format_duration(default), |n| {
            parse_duration(leaf(n)?.as_str()?).ok().filter(|d| *d >= shortest)
        })
    }

    /// One of these words.
    pub fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let list: Vec<_> = words.iter().map(|(w, _)| format!("{w:?}")).collect();
        let shown = words.iter().find(|(_, t)| *t == default).map_or("", |(w, _)| *w);
        self.or_default(key, &list.join(" or "), default, shown, |n| {
            let text = text(n)?;
            words.iter().find(|(w, _)| *w == text).map(|(_, t)| *t)
        })
    }

    /// A text that `convert` takes.
    pub fn text<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        default: (&str, T),
        convert: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.or_default(key, expected, default.1, default.0, |n| convert(&text(n)?))
    }

    /// A list of texts; empty where nothing is said.
    pub fn names(&mut self, key: &'static str, expected: &str) -> Result<Vec<String>, ConfigError> {
        let nothing = toml::Value::Array(Vec::new());
        self.or_default(key, expected, Vec::new(), nothing, |n| match &n.item {
            Item::Array(items) => items.iter().map(|item| leaf(item)?.as_str().map(str::to_owned)).collect(),
            _ => None,
        })
    }

    /// A path, relative to where it was written; the empty text is no path.
    pub fn path_opt(&mut self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let path = self.optional(key, "a path", |n| {
            let text = text(n).filter(|t| !t.contains('\0'))?;
            Some(if text.is_empty() { None } else { Some(n.at.resolve(&text)) })
        })?;
        Ok(path.flatten())
    }

    /// Everything that is left, for the template or whoever else knows what it means.
    pub fn remaining(&mut self) -> Params {
        let mut params = Params::default();
        for (key, node) in std::mem::take(&mut self.rest) {
            let given = Given {
                value: node.value(),
                raw: node.raw.clone(),
                base: node.at.base(),
                at: node.at.to_string(),
            };
            self.remember(&key, node.value(), node.at);
            params.insert(key, given);
        }
        params
    }

    /// Refuses keys that nobody took.
    pub fn finish(self) -> Result<(), ConfigError> {
        self.finish_all().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every key that nobody took.
    pub fn finish_all(self) -> Vec<ConfigError> {
        let unknown = |(key, node): (&String, &Node)| ConfigError::UnknownKey {
            key: self.path(key),
            known: self.known.join(", "),
            at: node.at.clone(),
        };
        self.rest.iter().map(unknown).collect()
    }
}

/// The error for a value that is not what was expected.
pub(super) fn wrong(key: &str, node: &Node, expected: String) -> ConfigError {
    let found = match &node.item {
        Item::Leaf(v) => v.to_string(),
        Item::Array(_) => "an array".to_owned(),
        Item::Table(_) => "a table".to_owned(),
    };
    ConfigError::Value { key: key.to_owned(), found, expected, at: node.at.clone() }
}

/// The tables of an array; a missing one is empty.
pub(super) fn tables(node: Option<Node>, name: &str) -> Result<Vec<Node>, ConfigError> {
    match node {
        None => Ok(Vec::new()),
        Some(Node { item: Item::Array(items), .. }) => Ok(items),
        Some(node) => Err(wrong(name, &node, format!("[[{name}]] tables"))),
    }
}

/// The error for settings that do not go together.
pub(super) fn impossible<T>(what: impl Into<String>, at: &Origin) -> Result<T, ConfigError> {
    Err(ConfigError::Combination { what: what.into(), at: vec![at.clone()] })
}

fn leaf(node: &Node) -> Option<&toml::Value> {
    match &node.item {
        Item::Leaf(v) => Some(v),
        _ => None,
    }
}

/// A text, or whatever was typed on the command line where a text is wanted.
pub(super) fn text(node: &Node) -> Option<String> {
    leaf(node).and_then(toml::Value::as_str).map(str::to_owned).or_else(|| node.raw.clone())
}

/// A finite number, whole or not.
pub(super) fn number(node: &Node) -> Option<f32> {
    let v = leaf(node)?;
    let v = v.as_float().or_else(|| v.as_integer().map(|i| i as f64))? as f32;
    v.is_finite().then_some(v)
}

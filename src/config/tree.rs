//! Settings as a tree in which every value knows where it came from.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::{ConfigError, Origin};

/// A value and its origin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub item: Item,
    pub at: Origin,
    /// What was typed, when it came from the environment or the command line.
    pub raw: Option<String>,
}

/// A TOML value with [`Node`]s inside.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Leaf(toml::Value),
    Array(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    /// An empty table.
    pub fn table(at: Origin) -> Self {
        Self { item: Item::Table(BTreeMap::new()), at, raw: None }
    }

    /// A document. `origin` makes an [`Origin`] of a line number.
    pub fn parse(text: &str, origin: &dyn Fn(usize) -> Origin) -> Result<Self, ConfigError> {
        let lines = Lines::of(text);
        let at = |offset: usize| origin(lines.at(offset));
        let doc = DeTable::parse(text).map_err(|e| syntax(&e, &at))?;
        table(doc.get_ref(), origin(1), &at)
    }

    /// A value typed in the environment or on the command line: TOML, and plain text where it is not TOML.
    pub fn typed(text: &str, origin: &Origin) -> Self {
        let at = |_: usize| origin.clone();
        let parsed =
            DeValue::parse(text.trim()).ok().and_then(|v| value(v.get_ref(), origin.clone(), &at).ok());
        let mut node = parsed.unwrap_or_else(|| Self {
            item: Item::Leaf(toml::Value::String(text.to_owned())),
            at: origin.clone(),
            raw: None,
        });
        node.raw = Some(text.to_owned());
        node
    }

    /// A value from the program.
    pub fn of(v: &toml::Value, at: &Origin) -> Self {
        let item = match v {
            toml::Value::Array(a) => Item::Array(a.iter().map(|v| Self::of(v, at)).collect()),
            toml::Value::Table(t) => {
                Item::Table(t.iter().map(|(k, v)| (k.clone(), Self::of(v, at))).collect())
            }
            leaf => Item::Leaf(leaf.clone()),
        };
        Self { item, at: at.clone(), raw: None }
    }

    /// Puts `node` at `path`, making the tables on the way and replacing whatever is no table.
    pub fn insert(&mut self, path: &[String], node: Self) {
        let Some((key, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.item, Item::Table(_)) {
            *self = Self::table(node.at.clone());
        }
        if let Item::Table(t) = &mut self.item {
            t.entry(key.clone()).or_insert_with(|| Self::table(node.at.clone())).insert(rest, node);
        }
    }

    /// Lays `over` on top: tables merge key by key, everything else replaces.
    pub fn merge(&mut self, over: Self) {
        match (&mut self.item, over.item) {
            (Item::Table(base), Item::Table(over)) => {
                for (key, node) in over {
                    match base.get_mut(&key) {
                        Some(old) => old.merge(node),
                        None => {
                            base.insert(key, node);
                        }
                    }
                }
            }
            (slot, item) => {
                *slot = item;
                self.at = over.at;
                self.raw = over.raw;
            }
        }
    }

    /// The entry `key` of a table.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.item {
            Item::Table(t) => t.get(key),
            _ => None,
        }
    }

    /// The plain value.
    pub fn value(&self) -> toml::Value {
        match &self.item {
            Item::Leaf(v) => v.clone(),
            Item::Array(a) => toml::Value::Array(a.iter().map(Self::value).collect()),
            Item::Table(t) => toml::Value::Table(t.iter().map(|(k, n)| (k.clone(), n.value())).collect()),
        }
    }
}

fn syntax(e: &toml::de::Error, at: &dyn Fn(usize) -> Origin) -> ConfigError {
    ConfigError::Syntax { what: e.message().replace('\n', ", "), at: at(e.span().map_or(0, |s| s.start)) }
}

fn table(t: &DeTable<'_>, here: Origin, at: &dyn Fn(usize) -> Origin) -> Result<Node, ConfigError> {
    let entry = |(key, v): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
        Ok((key.get_ref().to_string(), value(v.get_ref(), at(key.span().start), at)?))
    };
    Ok(Node {
        item: Item::Table(t.iter().map(entry).collect::<Result<_, ConfigError>>()?),
        at: here,
        raw: None,
    })
}

fn value(v: &DeValue<'_>, here: Origin, at: &dyn Fn(usize) -> Origin) -> Result<Node, ConfigError> {
    let out_of_range = |text: &str| ConfigError::Syntax {
        what: format!("the number {text} is out of range"),
        at: here.clone(),
    };
    let item = match v {
        DeValue::Table(t) => return table(t, here, at),
        DeValue::Array(a) => {
            let items = a.iter().map(|v| value(v.get_ref(), at(v.span().start), at));
            Item::Array(items.collect::<Result<_, _>>()?)
        }
        DeValue::String(s) => Item::Leaf(toml::Value::String(s.to_string())),
        DeValue::Boolean(b) => Item::Leaf(toml::Value::Boolean(*b)),
        DeValue::Integer(i) => {
            let n = i64::from_str_radix(i.as_str(), i.radix()).map_err(|_| out_of_range(i.as_str()))?;
            Item::Leaf(toml::Value::Integer(n))
        }
        DeValue::Float(x) => {
            let n = x.as_str().parse().map_err(|_| out_of_range(x.as_str()))?;
            Item::Leaf(toml::Value::Float(n))
        }
        DeValue::Datetime(d) => Item::Leaf(toml::Value::Datetime(*d)),
    };
    Ok(Node { item, at: here, raw: None })
}

/// Byte offsets to line numbers.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i).collect())
    }
    /// Line of the byte at `offset`, from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|&end| end < offset) + 1
    }
}

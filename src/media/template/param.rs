//! Parameters of a template: their declared types and the values given to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::duration::{DURATION_EXPECTED, format_duration, parse_duration};

/// One declared parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Name, lower case with underscores.
    pub name: String,
    /// What values it takes.
    pub ty: ParamType,
    /// Value when none is given; without one the parameter is required.
    pub default: Option<toml::Value>,
    /// What it is for.
    pub doc: String,
}

/// Unit in which an element wants a duration as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Nanoseconds.
    Nanos,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
}

/// What values a parameter takes.
#[derive(Clone, Debug, PartialEq)]
pub enum ParamType {
    /// A whole number in `min..=max`.
    Int {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A finite number in `min..=max`.
    Float {
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Enum(Vec<String>),
    /// A frame rate: `30`, `"30"` or `"30000/1001"`; `0` where the template allows it by a case.
    Fraction,
    /// A duration in `min..=max`, rendered as a whole number of `unit`.
    Duration {
        /// Unit that the element wants.
        unit: TimeUnit,
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// Any text.
    Text,
    /// A text that is never printed.
    Secret,
    /// A path, relative to where it was written down.
    Path,
    /// A URI with one of these schemes.
    Uri(Vec<String>),
    /// A host name or address.
    Host,
    /// A device node or device name.
    Device,
}

/// A checked value: either harmless in a launch string, or to be set on the element.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Checked {
    /// Digits, words from a list: goes into the description as it is.
    Inline(String),
    /// Free text: only ever set through `set_property`.
    Property(String),
}

/// A value given to a parameter, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The value.
    pub value: toml::Value,
    /// The text it was parsed from when it came from the environment or the command line: a text parameter takes that.
    pub raw: Option<String>,
    /// Folder that a relative path is relative to; empty is the current directory.
    pub base: PathBuf,
    /// Where it was given, for messages: `clinic.toml:12`.
    pub at: String,
}

/// The values given to a template's parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(BTreeMap<String, Given>);

impl Params {
    /// Sets `name`, replacing what was there.
    pub fn insert(&mut self, name: impl Into<String>, given: Given) {
        self.0.insert(name.into(), given);
    }
    /// Sets `name` to a value from the program itself; `at` says where it came from in messages.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<toml::Value>, at: impl Into<String>) {
        self.insert(name, Given { value: value.into(), raw: None, base: PathBuf::new(), at: at.into() });
    }
    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> Option<Given> {
        self.0.remove(name)
    }
    /// The value of `name`, if one was given.
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.0.get(name)
    }
    /// All values by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Given)> {
        self.0.iter().map(|(name, given)| (name.as_str(), given))
    }
    /// Every value of `table`, with paths relative to `base`.
    pub fn from_table(table: &toml::Table, base: &Path, at: &str) -> Self {
        let given = |value: &toml::Value| Given {
            value: value.clone(),
            raw: None,
            base: base.to_owned(),
            at: at.to_owned(),
        };
        Self(table.iter().map(|(name, value)| (name.clone(), given(value))).collect())
    }
}

impl Given {
    /// The value as text: a string, or what was typed on the command line.
    fn text(&self) -> Option<&str> {
        self.value.as_str().or(self.raw.as_deref())
    }
}

impl ParamType {
    /// Whether a value may hold any character, so that it must never reach a launch string.
    pub fn is_free_text(&self) -> bool {
        matches!(self, Self::Text | Self::Secret | Self::Path | Self::Uri(_) | Self::Host | Self::Device)
    }

    /// What a value looks like, for messages.
    pub fn expected(&self) -> String {
        match self {
            Self::Int { min, max } => format!("a whole number from {min} to {max}"),
            Self::Float { min, max } => format!("a number from {min} to {max}"),
            Self::Bool => "true or false".to_owned(),
            Self::Enum(words) => match words.as_slice() {
                [only] => format!("{only:?}"),
                [first @ .., last] => {
                    let first: Vec<_> = first.iter().map(|w| format!("{w:?}")).collect();
                    format!("{} or {last:?}", first.join(", "))
                }
                [] => "nothing".to_owned(),
            },
            Self::Fraction => "a frame rate, 30 or \"30000/1001\" for example".to_owned(),
            Self::Duration { min, max, .. } => {
                format!("{DURATION_EXPECTED}, from {} to {}", format_duration(*min), format_duration(*max))
            }
            Self::Text | Self::Secret => "a text without a NUL character".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Uri(schemes) => {
                let schemes: Vec<_> = schemes.iter().map(|s| format!("{s}://")).collect();
                format!("a URI that begins with {}", schemes.join(" or "))
            }
            Self::Host => "a host name or an IP address".to_owned(),
            Self::Device => "a device, \"/dev/video0\" for example".to_owned(),
        }
    }

    /// The value as the launch string or the element takes it; `None` if it is not of this type.
    pub(super) fn check(&self, given: &Given) -> Option<Checked> {
        let inline = |text: String| Some(Checked::Inline(text));
        match self {
            Self::Int { min, max } => {
                let v = given.value.as_integer().filter(|v| (min..=max).contains(&v))?;
                inline(v.to_string())
            }
            Self::Float { min, max } => {
                let v = number(&given.value).filter(|v| (min..=max).contains(&v))?;
                inline(v.to_string())
            }
            Self::Bool => inline(given.value.as_bool()?.to_string()),
            Self::Enum(words) => inline(words.iter().find(|w| Some(w.as_str()) == given.text())?.clone()),
            Self::Fraction => inline(fraction(given)?),
            Self::Duration { unit, min, max } => {
                let d = parse_duration(given.value.as_str()?).ok().filter(|d| (min..=max).contains(&d))?;
                inline(match unit {
                    TimeUnit::Nanos => d.as_nanos().to_string(),
                    TimeUnit::Micros => d.as_micros().to_string(),
                    TimeUnit::Millis => d.as_millis().to_string(),
                })
            }
            Self::Text | Self::Secret | Self::Path | Self::Uri(_) | Self::Host | Self::Device => {
                let text = given.text().filter(|t| !t.contains('\0'))?;
                Some(Checked::Property(self.check_text(text, &given.base)?))
            }
        }
    }

    fn check_text(&self, text: &str, base: &Path) -> Option<String> {
        let ok = match self {
            Self::Path => {
                let path = if text.is_empty() { None } else { Some(base.join(text)) };
                return path?.into_os_string().into_string().ok();
            }
            Self::Uri(schemes) => {
                let (scheme, rest) = text.split_once("://")?;
                schemes.iter().any(|s| s.eq_ignore_ascii_case(scheme))
                    && !rest.is_empty()
                    && !text.contains(|c: char| c.is_whitespace() || c.is_control())
            }
            Self::Host => {
                !text.is_empty()
                    && text.len() <= 253
                    && !text.starts_with('-')
                    && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:%".contains(c))
            }
            Self::Device => !text.is_empty() && !text.contains(char::is_control),
            _ => true,
        };
        ok.then(|| text.to_owned())
    }

    /// Reads the declaration `int(0..64)`, `enum(a|b)`, `uri(rtsp|rtsps)`, `duration_ms(0ms..10s)`, `path`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, args) = match text.split_once('(') {
            Some((name, rest)) => {
                let args = rest
                    .strip_suffix(')')
                    .ok_or_else(|| format!("the type {text:?} lacks its closing bracket"))?;
                (name.trim(), Some(args))
            }
            None => (text, None),
        };
        let range = || args.and_then(|a| a.split_once("..")).map(|(a, b)| (a.trim(), b.trim()));
        let bad_range = || {
            format!(
                "{name} needs a range with the smaller end first, {name}(0..10) for example, found {text:?}"
            )
        };
        let words = || -> Result<Vec<String>, String> {
            let words: Vec<_> = args.unwrap_or_default().split('|').map(|w| w.trim().to_owned()).collect();
            let plain = |w: &String| {
                !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || "_-.+".contains(c))
            };
            if words.iter().all(plain) {
                Ok(words)
            } else {
                Err(format!("{name} needs words of letters, digits and _-.+ separated by |, found {text:?}"))
            }
        };
        let plain = |ty: Self| match args {
            None => Ok(ty),
            Some(_) => Err(format!("{name} takes no arguments, found {text:?}")),
        };
        match name {
            "int" => {
                let (min, max) = range().ok_or_else(bad_range)?;
                match (min.parse(), max.parse()) {
                    (Ok(min), Ok(max)) if min <= max => Ok(Self::Int { min, max }),
                    _ => Err(bad_range()),
                }
            }
            "float" => {
                let (min, max) = range().ok_or_else(bad_range)?;
                match (min.parse::<f64>(), max.parse::<f64>()) {
                    (Ok(min), Ok(max)) if min <= max && min.is_finite() && max.is_finite() => {
                        Ok(Self::Float { min, max })
                    }
                    _ => Err(bad_range()),
                }
            }
            "duration_ns" | "duration_us" | "duration_ms" => {
                let unit = match name {
                    "duration_ns" => TimeUnit::Nanos,
                    "duration_us" => TimeUnit::Micros,
                    _ => TimeUnit::Millis,
                };
                let bad = || {
                    format!("{name} needs a range of durations, {name}(0ms..10s) for example, found {text:?}")
                };
                let (min, max) = range().ok_or_else(bad)?;
                match (parse_duration(min), parse_duration(max)) {
                    (Ok(min), Ok(max)) if min <= max => Ok(Self::Duration { unit, min, max }),
                    _ => Err(bad()),
                }
            }
            "enum" => words().map(Self::Enum),
            "uri" => words().map(Self::Uri),
            "bool" => plain(Self::Bool),
            "fraction" => plain(Self::Fraction),
            "text" => plain(Self::Text),
            "secret" => plain(Self::Secret),
            "path" => plain(Self::Path),
            "host" => plain(Self::Host),
            "device" => plain(Self::Device),
            _ => Err(format!(
                "there is no type {name:?}; there are int, float, bool, enum, fraction, duration_ms, duration_us, \
                 duration_ns, text, secret, path, uri, host and device"
            )),
        }
    }
}

/// A finite number, whole or not.
fn number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|v| v as f64)).filter(|v| v.is_finite())
}

/// `30`, `"30"`, `"30000/1001"` as `n/d`; both fit the 32 bits GStreamer has for them. Zero is `0`.
fn fraction(given: &Given) -> Option<String> {
    let text = match given.value.as_integer() {
        Some(v) => v.to_string(),
        None => given.text()?.trim().to_owned(),
    };
    let (n, d) = text.split_once('/').unwrap_or((&text, "1"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(n) || !digits(d) {
        return None;
    }
    let (n, d): (i32, i32) = (n.parse().ok()?, d.parse().ok()?);
    match (n, d) {
        (_, 0) => None,
        (0, _) => Some("0".to_owned()),
        (n, d) => Some(format!("{n}/{d}")),
    }
}

//! The `#:` lines of a template.

use super::param::{Checked, Given, ParamSpec, ParamType};
use super::syntax::is_param_name;

/// What a `#:` line declares.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Directive {
    /// `live = true`, `false` or `{param}`.
    Live(Live),
    /// `records = true`.
    Records(bool),
    /// `uses = avdec_h264 | openh264dec, jpegdec`: elements GStreamer picks by itself while running, either of two being enough.
    Uses(Vec<String>),
    /// `param threads: int(0..64) = 0 "Decoder threads"`.
    Param(ParamSpec),
    /// `case codec h264 = x264enc ! h264parse`: what stands for `{codec}` when its value is `h264`.
    Case { param: String, value: String, text: String },
}

/// Whether a source delivers in real time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Live {
    /// It does, or it does not.
    Always(bool),
    /// This parameter says so.
    Param(String),
}

/// The elements of one entry of `uses`, any of which is enough: `avdec_h264 | openh264dec`.
pub fn alternatives(entry: &str) -> impl Iterator<Item = &str> {
    entry.split('|').map(str::trim)
}

/// Reads what follows `#:`.
pub(super) fn parse(line: &str) -> Result<Directive, String> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("param ") {
        return param(rest.trim()).map(Directive::Param);
    }
    let (key, value) = line
        .split_once('=')
        .map(|(key, value)| (key.trim(), value.trim()))
        .ok_or_else(|| format!("cannot read {line:?}: expected live, records, uses, param or case"))?;
    if let Some(case) = key.strip_prefix("case ") {
        let (param, case) =
            case.trim().split_once(' ').ok_or("a case reads: case PARAM VALUE = what stands for {PARAM}")?;
        return Ok(Directive::Case {
            param: param.to_owned(),
            value: case.trim().to_owned(),
            text: value.to_owned(),
        });
    }
    let boolean = || value.parse::<bool>().map_err(|_| format!("{key} = {value}: expected true or false"));
    match key {
        "live" => match value.strip_prefix('{').and_then(|v| v.strip_suffix('}')) {
            Some(name) => Ok(Directive::Live(Live::Param(name.to_owned()))),
            None => boolean().map(|b| Directive::Live(Live::Always(b))),
        },
        "records" => boolean().map(Directive::Records),
        "uses" => Ok(Directive::Uses(value.split(',').map(|e| e.trim().to_owned()).collect())),
        _ => Err(format!("there is no {key:?}; expected live, records, uses, param or case")),
    }
}

/// `NAME: TYPE [= DEFAULT] "what it is for"`.
fn param(text: &str) -> Result<ParamSpec, String> {
    const FORM: &str = "a parameter reads: param NAME: TYPE = DEFAULT \"what it is for\"";
    let (name, rest) = text.split_once(':').ok_or(FORM)?;
    let name = name.trim();
    if !is_param_name(name) {
        return Err(format!(
            "the parameter name {name:?} must be lower case letters, digits and single underscores"
        ));
    }
    let quote = rest.find(['"', '=']).ok_or(FORM)?;
    let ty = ParamType::parse(rest[..quote].trim())?;
    let rest = &rest[quote..];
    let (default, rest) = match rest.strip_prefix('=') {
        None => (None, rest),
        Some(rest) => {
            let rest = rest.trim_start();
            let end = match rest.strip_prefix('"') {
                Some(inner) => inner.find('"').map(|i| i + 2),
                None => rest.find(char::is_whitespace),
            };
            let (value, rest) = rest.split_at(end.ok_or(FORM)?);
            (Some(default(name, &ty, value)?), rest)
        }
    };
    let doc = rest.trim().strip_prefix('"').and_then(|d| d.strip_suffix('"')).ok_or(FORM)?;
    Ok(ParamSpec { name: name.to_owned(), ty, default, doc: doc.to_owned() })
}

fn default(name: &str, ty: &ParamType, text: &str) -> Result<toml::Value, String> {
    let wrong = || format!("the default {text} of {name} is not {}", ty.expected());
    let value = toml::de::ValueDeserializer::parse(text)
        .and_then(<toml::Value as serde::Deserialize>::deserialize)
        .map_err(|_| wrong())?;
    // An empty text leaves the element's own default alone, whatever the type demands of a value.
    if ty.is_free_text() && value.as_str() == Some("") {
        return Ok(value);
    }
    let given = Given { value, raw: None, base: std::path::PathBuf::new(), at: String::new() };
    match ty.check(&given) {
        Some(Checked::Inline(_) | Checked::Property(_)) => Ok(given.value),
        None => Err(wrong()),
    }
}

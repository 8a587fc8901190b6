//! A template whose parameters all have values: what `launch` builds from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::directive::Live;
use super::error::TemplateError;
use super::param::{Checked, Given, ParamSpec, ParamType, Params};
use super::syntax::{Mistake, analyse};
use super::{Kind, Template};

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

impl Template {
    /// Checks `params` and puts them in place. Relative paths are joined to the folder of the file that gave them.
    ///
    /// # Errors
    /// A parameter the template does not have, a required one that is missing, a value of the wrong type, range or unit.
    pub fn bind(&self, params: &Params) -> Result<Bound, TemplateError> {
        for (name, given) in params.iter() {
            if self.param(name).is_none() {
                let known: Vec<_> = self.params.iter().map(|p| p.name.as_str()).collect();
                return Err(TemplateError::UnknownParam {
                    kind: self.kind,
                    template: self.name.clone(),
                    param: name.to_owned(),
                    known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
                    at: given.at.clone(),
                });
            }
        }
        let mut values: BTreeMap<&str, Checked> = BTreeMap::new();
        for spec in &self.params {
            let value = match (params.get(&spec.name), &spec.default) {
                (Some(given), default) => {
                    let unset =
                        spec.ty.is_free_text() && default.is_some() && given.value.as_str() == Some("");
                    if unset { Some(Checked::Property(String::new())) } else { spec.ty.check(given) }
                        .ok_or_else(|| self.wrong(spec, given))?
                }
                (None, Some(value)) if spec.ty.is_free_text() && value.as_str() == Some("") => {
                    Checked::Property(String::new())
                }
                (None, Some(value)) => {
                    let given = Given {
                        value: value.clone(),
                        raw: None,
                        base: PathBuf::new(),
                        at: self.origin.clone(),
                    };
                    spec.ty.check(&given).ok_or_else(|| self.wrong(spec, &given))?
                }
                (None, None) => {
                    return Err(TemplateError::Missing {
                        kind: self.kind,
                        template: self.name.clone(),
                        param: spec.name.clone(),
                        expected: spec.ty.expected(),
                        doc: spec.doc.clone(),
                    });
                }
            };
            values.insert(&spec.name, value);
        }
        let analysis =
            self.expand(&values).and_then(|words| analyse(&words)).map_err(|Mistake { line, what }| {
                TemplateError::Malformed { origin: self.origin.clone(), line, what }
            })?;
        let text = |param: &str| match values.get(param) {
            Some(Checked::Property(text) | Checked::Inline(text)) => text.clone(),
            None => String::new(),
        };
        Ok(Bound {
            kind: self.kind,
            origin: self.origin.clone(),
            description: analysis.description,
            factories: analysis.factories,
            settings: analysis
                .assignments
                .into_iter()
                // Only a parameter whose default is empty can be empty here, or a text that is meant to be.
                .filter(|a| {
                    self.param(&a.param).and_then(|p| p.default.as_ref()).is_none()
                        || !text(&a.param).is_empty()
                })
                .map(|a| Setting {
                    value: text(&a.param),
                    element: a.element,
                    factory: a.factory,
                    property: a.property,
                })
                .collect(),
            terminal: match self.kind {
                Kind::Source => analysis.last,
                Kind::Sink => analysis.first,
            },
            name: self.name.clone(),
            live: match &self.live {
                Live::Always(live) => *live,
                Live::Param(name) => text(name) == "true",
            },
            records: self.records.then(|| PathBuf::from(text("path"))),
        })
    }

    fn wrong(&self, spec: &ParamSpec, given: &Given) -> TemplateError {
        TemplateError::Value {
            kind: self.kind,
            param: spec.name.clone(),
            found: if spec.ty == ParamType::Secret { "(hidden)".to_owned() } else { given.value.to_string() },
            expected: spec.ty.expected(),
            at: given.at.clone(),
        }
    }
}

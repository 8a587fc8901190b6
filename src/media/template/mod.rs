//! Sources and sinks as text: gst-launch syntax with declared, typed, checked parameters.
//!
//! Numbers and words from a list are written into the description. Free text (paths, addresses, names) never is:
//! its `property={param}` is taken out, and [`Bound::launch`] sets the property on the finished element. So no file
//! name, however odd, can add an element or change a property.

mod bound;
mod directive;
mod duration;
mod error;
mod find;
mod param;
mod syntax;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub use bound::{Bound, Setting};
pub use directive::{Live, alternatives};
pub use duration::{DURATION_EXPECTED, format_duration, parse_duration};
pub use error::TemplateError;
pub use find::{builtin_names, template_dirs};
pub use param::{Given, ParamSpec, ParamType, Params, TimeUnit};

use directive::Directive;
use param::Checked;
use syntax::{Mistake, Piece, Word, analyse, pieces, sole_hole, words};

/// Longest template read, in bytes.
pub(crate) const MAX_TEMPLATE: u64 = 64 << 10;
/// Settings that `[source]` and `[sink]` have besides a template's parameters.
const RESERVED: [(Kind, &[&str]); 2] =
    [(Kind::Source, &["kind", "pace", "keep_gray", "reconnect"]), (Kind::Sink, &["kind", "latency"])];
/// Most combinations of cases a template may have; each is checked when the template is read.
const MAX_VARIANTS: usize = 256;

/// Whether frames come out or go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One unlinked source pad.
    Source,
    /// One unlinked sink pad.
    Sink,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Sink => "sink",
        })
    }
}

/// A description with holes for its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    kind: Kind,
    name: String,
    origin: String,
    doc: String,
    live: Live,
    records: bool,
    uses: Vec<String>,
    params: Vec<ParamSpec>,
    words: Vec<Word>,
    cases: BTreeMap<(String, String), Vec<Word>>,
}

impl Template {
    /// Reads a template. `origin` names it in messages: a file, or a built-in name.
    ///
    /// # Errors
    /// [`TemplateError::Malformed`] with the line.
    pub fn parse(kind: Kind, name: &str, text: &str, origin: &str) -> Result<Self, TemplateError> {
        Self::read(kind, name, text, origin).map_err(|Mistake { line, what }| TemplateError::Malformed {
            origin: origin.to_owned(),
            line,
            what,
        })
    }

    fn read(kind: Kind, name: &str, text: &str, origin: &str) -> Result<Self, Mistake> {
        let mut template = Self {
            kind,
            name: name.to_owned(),
            origin: origin.to_owned(),
            doc: String::new(),
            live: Live::Always(false),
            records: false,
            uses: Vec::new(),
            params: Vec::new(),
            words: Vec::new(),
            cases: BTreeMap::new(),
        };
        // Comments become empty lines, so that words keep their line numbers.
        let mut description = String::new();
        let mut case_lines = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let mistake = |what: String| Mistake { line, what };
            if let Some(directive) = text.trim_start().strip_prefix("#:") {
                match directive::parse(directive).map_err(mistake)? {
                    Directive::Live(live) => template.live = live,
                    Directive::Records(records) => template.records = records,
                    Directive::Uses(uses) => template.uses = uses,
                    Directive::Param(param) if template.param(&param.name).is_some() => {
                        return Err(mistake(format!("the parameter {:?} is declared twice", param.name)));
                    }
                    Directive::Param(param)
                        if RESERVED
                            .iter()
                            .any(|(k, names)| *k == kind && names.contains(&param.name.as_str())) =>
                    {
                        return Err(mistake(format!("{:?} is a setting of sonomask itself", param.name)));
                    }
                    Directive::Param(param) => template.params.push(param),
                    Directive::Case { param, value, text } => {
                        let words = words(&text, line)?;
                        if template.cases.insert((param.clone(), value.clone()), words).is_some() {
                            return Err(mistake(format!("the case {param} {value} is given twice")));
                        }
                        case_lines.push((line, param, value));
                    }
                }
            } else if let Some(comment) = text.trim_start().strip_prefix('#') {
                if template.params.is_empty() && description.trim().is_empty() {
                    template.doc.push_str(comment.trim());
                    template.doc.push(' ');
                }
            } else {
                description.push_str(text);
            }
            description.push('\n');
        }
        template.doc.truncate(template.doc.trim_end().len());
        template.words = words(&description, 1)?;
        template.verify(&case_lines)?;
        Ok(template)
    }

    /// Refuses what can be refused without values: every combination of cases must be a sound description.
    fn verify(&self, case_lines: &[(usize, String, String)]) -> Result<(), Mistake> {
        for (line, param, value) in case_lines {
            let fits = match self.param(param).map(|p| &p.ty) {
                Some(ParamType::Enum(words)) => words.contains(value),
                Some(ParamType::Fraction) => value == "0",
                Some(ParamType::Int { min, max }) => {
                    value.parse().is_ok_and(|v: i64| (*min..=*max).contains(&v))
                }
                Some(ParamType::Bool) => value.parse::<bool>().is_ok(),
                _ => false,
            };
            if !fits {
                let what = format!("there is no parameter {param:?} that can be {value:?} and takes cases");
                return Err(Mistake { line: *line, what });
            }
        }
        for word in self.words.iter().chain(self.cases.values().flatten()) {
            for piece in pieces(&word.text) {
                if let Piece::Hole(name) = piece
                    && self.param(name).is_none()
                {
                    let what = format!(
                        "{{{name}}} is not declared; add a line #: param {name}: TYPE \"what it is for\""
                    );
                    return Err(Mistake { line: word.line, what });
                }
            }
        }
        let at_top = |what: String| Mistake { line: 1, what };
        if let Live::Param(name) = &self.live
            && self.param(name).is_none_or(|p| p.ty != ParamType::Bool)
        {
            return Err(at_top(format!("live = {{{name}}} needs a parameter {name:?} of type bool")));
        }
        if self.records && self.param("path").is_none_or(|p| p.ty != ParamType::Path) {
            return Err(at_top("records = true needs a parameter \"path\" of type path".to_owned()));
        }
        let mut variants: Vec<BTreeMap<&str, Checked>> = vec![BTreeMap::new()];
        for param in &self.params {
            let values = self.samples(param);
            if variants.len() * values.len() > MAX_VARIANTS {
                return Err(at_top(format!("the cases have more than {MAX_VARIANTS} combinations")));
            }
            variants = variants
                .iter()
                .flat_map(|v| {
                    values.iter().map(|value| {
                        let mut v = v.clone();
                        v.insert(&param.name, value.clone());
                        v
                    })
                })
                .collect();
        }
        for variant in &variants {
            analyse(&self.expand(variant)?)?;
        }
        Ok(())
    }

    /// Values of `param` that can make a difference to the description's structure.
    fn samples(&self, param: &ParamSpec) -> Vec<Checked> {
        let structural = self.words.iter().any(|w| sole_hole(&w.text) == Some(&param.name));
        let cases = self.cases.keys().filter(|(p, _)| *p == param.name).map(|(_, v)| v.clone());
        let mut texts: Vec<String> = match &param.ty {
            ty if ty.is_free_text() => return vec![Checked::Property(String::new())],
            ParamType::Enum(words) if structural => words.clone(),
            ParamType::Enum(words) => words.iter().take(1).cloned().collect(),
            ParamType::Bool => vec!["true".to_owned(), "false".to_owned()],
            _ => vec!["1".to_owned()],
        };
        texts.extend(cases);
        texts.sort();
        texts.dedup();
        texts.into_iter().map(Checked::Inline).collect()
    }

    /// The words with cases and inline values in place; only free text is left as holes.
    fn expand(&self, values: &BTreeMap<&str, Checked>) -> Result<Vec<Word>, Mistake> {
        let case = |param: &str| match values.get(param) {
            Some(Checked::Inline(value)) => self.cases.get(&(param.to_owned(), value.clone())),
            _ => None,
        };
        let fill = |word: &Word| -> Result<Word, Mistake> {
            let mut text = String::new();
            for piece in pieces(&word.text) {
                match piece {
                    Piece::Text(t) => text.push_str(t),
                    Piece::Hole(name) => match (values.get(name), case(name).map(Vec::as_slice)) {
                        (_, Some([word])) => text.push_str(&word.text),
                        (_, Some(_)) => {
                            let what = format!("a case of {name} inside of {:?} must be one word", word.text);
                            return Err(Mistake { line: word.line, what });
                        }
                        (Some(Checked::Inline(value)), None) => text.push_str(value),
                        _ => {
                            text.push('{');
                            text.push_str(name);
                            text.push('}');
                        }
                    },
                }
            }
            Ok(Word { text, line: word.line })
        };
        let mut out = Vec::new();
        for word in &self.words {
            match sole_hole(&word.text).and_then(case) {
                Some(words) => {
                    for word in words {
                        out.push(fill(word)?);
                    }
                }
                None => out.push(fill(word)?),
            }
        }
        Ok(out)
    }

    /// Source or sink.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// Name in a config.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The file it was read from, or its built-in name.
    pub fn origin(&self) -> &str {
        &self.origin
    }
    /// The comment at its top, on one line.
    pub fn doc(&self) -> &str {
        &self.doc
    }
    /// Declared parameters, in the order of their declaration.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }
    /// Whether it delivers in real time.
    pub fn live(&self) -> &Live {
        &self.live
    }
    /// Whether it writes the file that its parameter `path` names.
    pub fn records(&self) -> bool {
        self.records
    }

    fn param(&self, name: &str) -> Option<&ParamSpec> {
        self.params.iter().find(|p| p.name == name)
    }

    /// Factory names of the elements it needs with the default values, and of those it says GStreamer will pick while
    /// running, some with others that do as well (see [`alternatives`]); for `doctor`. Sorted.
    pub fn elements(&self) -> Vec<String> {
        let mut all = self.factories_with(&self.defaults());
        all.extend(self.uses.iter().cloned());
        all.sort();
        all.dedup();
        all
    }

    /// Elements that it needs only with another value of one parameter, with that setting (`output = "kms"`); for
    /// `doctor`. In the order of the parameters.
    pub fn elements_by_choice(&self) -> Vec<(String, String)> {
        let always = self.elements();
        let mut found = Vec::new();
        for param in &self.params {
            for value in self.samples(param) {
                let Checked::Inline(word) = &value else { continue };
                let setting = match param.ty {
                    ParamType::Enum(_) => format!("{} = {word:?}", param.name),
                    _ => format!("{} = {word}", param.name),
                };
                let mut values = self.defaults();
                values.insert(&param.name, value);
                let more = self.factories_with(&values).into_iter().filter(|e| !always.contains(e));
                found.extend(more.map(|element| (element, setting.clone())));
            }
        }
        found
    }

    /// Every parameter with its default, or with any value that fits where there is none.
    fn defaults(&self) -> BTreeMap<&str, Checked> {
        let values = self.params.iter().map(|p| {
            let default = p.default.clone().map(|value| Given {
                value,
                raw: None,
                base: PathBuf::new(),
                at: String::new(),
            });
            let checked = default.and_then(|given| p.ty.check(&given));
            (p.name.as_str(), checked.or_else(|| self.samples(p).into_iter().next()))
        });
        values.filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn factories_with(&self, values: &BTreeMap<&str, Checked>) -> Vec<String> {
        // Every combination was analysed when the template was read.
        let analysis = self.expand(values).and_then(|words| analyse(&words));
        analysis.map(|a| a.factories).unwrap_or_default()
    }
}

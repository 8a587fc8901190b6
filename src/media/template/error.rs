//! What can be wrong with a template or with the values given to it.

use std::path::PathBuf;

use super::Kind;

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file that should hold a template cannot be read.
    #[error("cannot read the template: {source}: {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The template's own text is wrong.
    #[error("{what} ({origin}:{line})")]
    Malformed {
        /// File or built-in name.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong and what was expected.
        what: String,
    },
    /// No template of this name, built in or in the folders searched.
    #[error("there is no {kind} named {name:?}; there are {known} ({at})")]
    NotFound {
        /// Source or sink.
        kind: Kind,
        /// Name asked for.
        name: String,
        /// Names there are, separated by commas.
        known: String,
        /// Folders searched besides the built-in ones.
        at: String,
    },
    /// A value for a parameter that the template does not have.
    #[error("{kind} {template:?} has no parameter {param:?}; it has {known} ({at})")]
    UnknownParam {
        /// Source or sink.
        kind: Kind,
        /// The template.
        template: String,
        /// The parameter given.
        param: String,
        /// Parameters it has, separated by commas.
        known: String,
        /// Where the value was given.
        at: String,
    },
    /// A required parameter without a value.
    #[error("{kind} {template:?} needs {kind}.{param}: {expected} ({doc})")]
    Missing {
        /// Source or sink.
        kind: Kind,
        /// The template.
        template: String,
        /// The parameter.
        param: String,
        /// What a value looks like.
        expected: String,
        /// What the template says of it.
        doc: String,
    },
    /// A value of the wrong type, range or unit.
    #[error("{kind}.{param} = {found}: expected {expected} ({at})")]
    Value {
        /// Source or sink.
        kind: Kind,
        /// The parameter.
        param: String,
        /// The value given, or its type where it is secret.
        found: String,
        /// What was expected.
        expected: String,
        /// Where the value was given.
        at: String,
    },
    /// GStreamer has no such element here.
    #[error("GStreamer has no element {element:?} here; {} ({origin})", install_hint(*.package))]
    NoElement {
        /// Factory name.
        element: String,
        /// Debian package that has it, if known.
        package: Option<&'static str>,
        /// The template that asks for it.
        origin: String,
    },
    /// GStreamer refuses the description or a property of it.
    #[error("GStreamer refuses the template: {what} ({origin})")]
    Launch {
        /// The template.
        origin: String,
        /// What GStreamer says.
        what: String,
    },
}

fn install_hint(package: Option<&str>) -> String {
    match package {
        Some(package) => format!("install it with: apt-get install {package}"),
        None => "install the GStreamer plugin that has it".to_owned(),
    }
}

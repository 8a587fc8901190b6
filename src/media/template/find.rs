//! Where templates come from: the built-in ones, and folders in which users drop their own.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Kind, MAX_TEMPLATE, Template, TemplateError};

const BUILTIN: &[(Kind, &str, &str)] = &[
    (Kind::Source, "file", include_str!("../../../pipelines/source-file.launch")),
    (Kind::Source, "v4l2", include_str!("../../../pipelines/source-v4l2.launch")),
    (Kind::Source, "decklink", include_str!("../../../pipelines/source-decklink.launch")),
    (Kind::Source, "rtsp", include_str!("../../../pipelines/source-rtsp.launch")),
    (Kind::Source, "srt", include_str!("../../../pipelines/source-srt.launch")),
    (Kind::Source, "udp", include_str!("../../../pipelines/source-udp.launch")),
    (Kind::Source, "test", include_str!("../../../pipelines/source-test.launch")),
    (Kind::Sink, "display", include_str!("../../../pipelines/sink-display.launch")),
    (Kind::Sink, "record-mp4", include_str!("../../../pipelines/sink-record-mp4.launch")),
    (Kind::Sink, "record-mkv", include_str!("../../../pipelines/sink-record-mkv.launch")),
    (Kind::Sink, "rtp", include_str!("../../../pipelines/sink-rtp.launch")),
    (Kind::Sink, "srt", include_str!("../../../pipelines/sink-srt.launch")),
    (Kind::Sink, "null", include_str!("../../../pipelines/sink-null.launch")),
];

/// Names of the built-in templates of `kind`.
pub fn builtin_names(kind: Kind) -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().filter(move |(k, ..)| *k == kind).map(|(_, name, _)| *name)
}

/// Folders searched for users' templates, best first: `pipelines/` beside the config file, `$SONOMASK_PIPELINES`,
/// `$XDG_CONFIG_HOME/sonomask/pipelines` (by default `~/.config/sonomask/pipelines`).
pub fn template_dirs(config_dir: Option<&Path>, env: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let env = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let user = env("XDG_CONFIG_HOME").or_else(|| env("HOME").map(|home| home.join(".config")));
    config_dir
        .map(|dir| dir.join("pipelines"))
        .into_iter()
        .chain(env("SONOMASK_PIPELINES"))
        .chain(user.map(|dir| dir.join("sonomask/pipelines")))
        .collect()
}

impl Template {
    /// The built-in template `name`; `None` if there is none.
    ///
    /// # Errors
    /// [`TemplateError::Malformed`], which the tests rule out.
    pub fn builtin(kind: Kind, name: &str) -> Option<Result<Self, TemplateError>> {
        let (.., text) = BUILTIN.iter().find(|(k, n, _)| (*k, *n) == (kind, name))?;
        Some(Self::parse(kind, name, text, &file_name(kind, name)))
    }

    /// The template `name`: the first file `source-NAME.launch` (or `sink-NAME.launch`) in `dirs`, else the built-in one.
    ///
    /// # Errors
    /// No such template, a file that cannot be read, a mistake in it.
    pub fn find(kind: Kind, name: &str, dirs: &[PathBuf]) -> Result<Self, TemplateError> {
        // A name is never a way out of the folder.
        let plain =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        for dir in dirs.iter().filter(|_| plain) {
            let path = dir.join(file_name(kind, name));
            match read(&path) {
                Ok(text) => return Self::parse(kind, name, &text, &path.display().to_string()),
                Err(e)
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                    ) => {}
                Err(source) => return Err(TemplateError::Read { path, source }),
            }
        }
        Self::builtin(kind, name).unwrap_or_else(|| Err(not_found(kind, name, dirs)))
    }

    /// Every template of `kind` that [`Template::find`] would find, by name. Files that cannot be used come as errors.
    pub fn all(kind: Kind, dirs: &[PathBuf]) -> Vec<Result<Self, TemplateError>> {
        names(kind, dirs).iter().map(|name| Self::find(kind, name, dirs)).collect()
    }
}

fn file_name(kind: Kind, name: &str) -> String {
    format!("{kind}-{name}.launch")
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_TEMPLATE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TEMPLATE {
        return Err(std::io::Error::other(format!("longer than {MAX_TEMPLATE} bytes")));
    }
    Ok(text)
}

fn names(kind: Kind, dirs: &[PathBuf]) -> Vec<String> {
    let prefix = format!("{kind}-");
    let mut names: Vec<String> = builtin_names(kind).map(str::to_owned).collect();
    for entry in dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten() {
        let file = entry.file_name();
        let name =
            file.to_str().and_then(|f| f.strip_prefix(&prefix)).and_then(|f| f.strip_suffix(".launch"));
        names.extend(name.map(str::to_owned));
    }
    names.sort();
    names.dedup();
    names
}

fn not_found(kind: Kind, name: &str, dirs: &[PathBuf]) -> TemplateError {
    let at: Vec<_> = dirs.iter().map(|d| d.display().to_string()).collect();
    TemplateError::NotFound {
        kind,
        name: name.to_owned(),
        known: names(kind, dirs).join(", "),
        at: if at.is_empty() {
            "only the built-in ones".to_owned()
        } else {
            format!("searched {}", at.join(", "))
        },
    }
}

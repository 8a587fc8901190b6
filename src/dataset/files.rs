//! Which files a data set has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Problem;

/// Extensions of pictures.
const EXTENSIONS: [&str; 10] = ["png", "jpg", "jpeg", "tif", "tiff", "bmp", "pnm", "pgm", "ppm", "pbm"];

/// The folder that was named, or the first usual one that is there.
pub(super) fn folder(
    root: &Path,
    named: Option<&Path>,
    usual: &[&str],
    what: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<PathBuf> {
    let candidates: Vec<PathBuf> = match named {
        Some(named) => vec![root.join(named)],
        None => usual.iter().map(|name| root.join(name)).collect(),
    };
    let found = candidates.iter().find(|path| path.is_dir()).cloned();
    if found.is_none() {
        problems.push(Problem::NoFolder { what, looked_for: candidates });
    }
    found
}

/// The pictures of a folder by their names without extension. A folder that is not there is empty: of a class in no image.
pub(super) fn by_stem(folder: &Path, problems: &mut Vec<Problem>) -> BTreeMap<String, PathBuf> {
    let mut files = Vec::new();
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => files.push(entry.path()),
                    Err(e) => {
                        problems.push(Problem::Unreadable { file: folder.to_owned(), what: e.to_string() })
                    }
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => problems.push(Problem::Unreadable { file: folder.to_owned(), what: e.to_string() }),
    }
    files.sort();
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in files.into_iter().filter(|file| is_picture(file)) {
        let Some(stem) = file.file_stem().and_then(|stem| stem.to_str()) else {
            problems.push(Problem::Unreadable { file, what: "its name is not UTF-8".into() });
            continue;
        };
        if stem.contains(['\n', '\r']) {
            // Lists have a name a line.
            problems.push(Problem::Unreadable { file, what: "its name has a line break".into() });
            continue;
        }
        match found.get(stem) {
            Some(other) => problems.push(Problem::SameName { files: [other.clone(), file] }),
            None => {
                found.insert(stem.to_owned(), file);
            }
        }
    }
    found
}

/// By extension; hidden files are left alone.
fn is_picture(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
    !hidden && is_extension(extension) && file.is_file()
}

/// Whether `extension`, without the point, is a picture's.
pub(super) fn is_extension(extension: &str) -> bool {
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

//! Files that are whole or not there.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// How the names of files begin that are not whole yet.
const BEGUN: &str = ".sonomask-";

/// A file beside `path` that takes its name with [`finish`], with a file's usual permissions.
///
/// # Errors
/// If the folder cannot be made or written to.
pub fn begin(path: &Path) -> io::Result<NamedTempFile> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    tempfile::Builder::new().prefix(BEGUN).permissions(Permissions::from_mode(0o644)).tempfile_in(dir)
}

/// Writes `bytes` to `path`; a reader never sees a part of them.
///
/// # Errors
/// If the folder or the file cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = begin(path)?;
    file.write_all(bytes)?;
    finish(file, path)
}

/// Gives `file` the name `path`.
///
/// # Errors
/// What the system says.
pub fn finish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.persist(path)?;
    Ok(())
}

/// Gives `file` the name `path` once it is on the disk: if the machine loses its power, what stood there before is still whole.
///
/// # Errors
/// What the system says.
pub fn finish_on_disk(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    finish(file, path)
}

/// `name`, or where that is taken the first free one of `name-2`, `name-3`, ... before the extension.
pub fn free_name(name: &Path) -> PathBuf {
    let stem = name.file_stem().unwrap_or_default().to_string_lossy();
    let extension = name.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    let others = (2u32..).map(|n| name.with_file_name(format!("{stem}-{n}{extension}")));
    std::iter::once(name.to_owned()).chain(others).find(|p| !p.exists()).unwrap_or_else(|| name.to_owned())
}

/// `out/demo.mp4` becomes `out/demo.incomplete.mp4`: the name of a file of which there is a beginning alone.
pub fn incomplete(target: &Path) -> PathBuf {
    let stem = target.file_stem().unwrap_or_default().to_string_lossy();
    let name = match target.extension() {
        Some(ext) => format!("{stem}.incomplete.{}", ext.to_string_lossy()),
        None => format!("{stem}.incomplete"),
    };
    target.with_file_name(name)
}

/// Removes from `dir` what was begun and never finished, as after a kill. Nobody may be writing there.
///
/// # Errors
/// What the system says.
pub fn sweep(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(BEGUN) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a picture of `width * height` pixels of `color` as PNG.
///
/// # Errors
/// A size that does not fit the data, or what [`write`] says.
pub fn write_png(
    path: &Path,
    data: &[u8],
    width: usize,
    height: usize,
    color: image::ExtendedColorType,
) -> io::Result<()> {
    write(path, &png(data, width, height, color)?)
}

/// A picture of `width * height` pixels of `color` as the bytes of a PNG.
///
/// # Errors
/// A size that does not fit the data.
pub fn png(data: &[u8], width: usize, height: usize, color: image::ExtendedColorType) -> io::Result<Vec<u8>> {
    let side = |v: usize| u32::try_from(v).map_err(io::Error::other);
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    image::ImageEncoder::write_image(encoder, data, side(width)?, side(height)?, color)
        .map_err(io::Error::other)?;
    Ok(png)
}

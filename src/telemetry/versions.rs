//! Versions of the product and of what it runs on.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The folder of the libtorch that is loaded into this process.
pub fn libtorch_dir() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|l| l.ends_with("/libtorch_cpu.so"))?;
    let file = PathBuf::from(line.get(line.find('/')?..)?);
    Some(file.parent()?.to_owned())
}

/// Versions by name: `sonomask`, `gstreamer`, `libtorch`.
pub fn versions() -> BTreeMap<&'static str, String> {
    // Every distribution of libtorch carries this file beside its `lib` folder.
    let libtorch = libtorch_dir()
        .and_then(|dir| std::fs::read_to_string(dir.parent()?.join("build-version")).ok())
        .map_or_else(|| "2.11 (no build-version file)".into(), |v| v.trim().to_owned());
    BTreeMap::from([
        ("sonomask", env!("CARGO_PKG_VERSION").to_owned()),
        ("gstreamer", gstreamer::version_string().to_string()),
        ("libtorch", libtorch),
    ])
}

//! Versions of the product and of what it runs on.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// Where compilers leave their names in what they make.
const COMPILERS: &[u8] = b".comment\0";
/// How rustc begins there.
const RUSTC: &str = "rustc version ";
/// Most bytes that are read of one table or section of a program.
const MOST: u64 = 1 << 20;

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

/// The rustc that built this program, as it says in the program itself; `None` where that was taken out.
pub fn rustc() -> Option<String> {
    let program = File::open(std::env::current_exe().ok()?).ok()?;
    let said = section(&program, COMPILERS)?;
    let mut names = said.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    names.find_map(|name| name.strip_prefix(RUSTC).map(str::to_owned))
}

/// A section of a 64-bit little-endian ELF file, by its name with the zero at its end.
fn section(file: &File, name: &[u8]) -> Option<Vec<u8>> {
    let read = |at: u64, size: u64| {
        let size = usize::try_from(size).ok().filter(|_| size <= MOST)?;
        let mut bytes = vec![0_u8; size];
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    };
    let head = read(0, 64)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    // Places of elf(5): where the table of sections is, the size of an entry, how many there are, and which of them has the names.
    let table = number(&head, 0x28, 8)?;
    let (each, count, names) = (number(&head, 0x3a, 2)?, number(&head, 0x3c, 2)?, number(&head, 0x3e, 2)?);
    let table = read(table, each * count)?;
    let entries: Vec<&[u8]> = table.chunks_exact(usize::try_from(each).ok()?.max(1)).collect();
    let content = |entry: &[u8]| read(number(entry, 0x18, 8)?, number(entry, 0x20, 8)?);
    let names = content(entries.get(usize::try_from(names).ok()?)?)?;
    let called = |entry: &[u8]| {
        let at = usize::try_from(number(entry, 0, 4)?).ok()?;
        Some(names.get(at..)?.starts_with(name))
    };
    content(entries.iter().find(|entry| called(entry) == Some(true))?)
}

/// The number of `size` bytes at `at`.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_program_says_which_rustc_built_it() {
        let said = rustc().unwrap();
        assert!(said.starts_with("1.") && said.contains('('), "{said}");
    }

    #[test]
    fn what_is_no_program_or_cut_has_no_sections() {
        let mut head = [0; 4096];
        File::open(std::env::current_exe().unwrap()).unwrap().read_exact(&mut head).unwrap();
        for bytes in [&b"#!/bin/sh\n"[..], &head[..20], &head[..64], &head[..]] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            assert_eq!(section(&file, COMPILERS), None);
        }
    }
}

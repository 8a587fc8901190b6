//! Where weights are searched that a preset or a default names, so that the program works outside of a checkout too.

use std::path::{Path, PathBuf};

/// Folders in which weights are searched, best first: `weights/` of the current directory, `$SONOMASK_WEIGHTS`,
/// `$XDG_DATA_HOME/sonomask/weights` (by default `~/.local/share/sonomask/weights`), and `weights/` beside the program (an unpacked
/// archive) or two folders above it (a checkout, from `target/release`). `exe` is the program's own path.
pub fn weights_dirs(env: impl Fn(&str) -> Option<String>, exe: Option<&Path>) -> Vec<PathBuf> {
    let env = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let data = env("XDG_DATA_HOME").or_else(|| env("HOME").map(|home| home.join(".local/share")));
    let beside = exe.and_then(Path::parent);
    let above = beside.and_then(Path::parent).and_then(Path::parent);
    std::iter::once(PathBuf::from("weights"))
        .chain(env("SONOMASK_WEIGHTS"))
        .chain(data.map(|dir| dir.join("sonomask/weights")))
        .chain(beside.into_iter().chain(above).map(|dir| dir.join("weights")))
        .collect()
}

/// The folders of [`weights_dirs`] for this process.
pub fn own_weights_dirs() -> Vec<PathBuf> {
    weights_dirs(|name| std::env::var(name).ok(), std::env::current_exe().ok().as_deref())
}

/// The first file `name` in `dirs`; where there is none, its place in the first of them.
pub fn find_weights(name: &Path, dirs: &[PathBuf]) -> PathBuf {
    let found = dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.or_else(|| dirs.first().map(|dir| dir.join(name))).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_searched_in_a_fixed_order() {
        let env = |name: &str| match name {
            "HOME" => Some("/home/ann".to_owned()),
            "SONOMASK_WEIGHTS" => Some("/models".to_owned()),
            _ => None,
        };
        let exe = Path::new("/src/sonomask/target/release/sonomask");
        let expected = [
            "weights",
            "/models",
            "/home/ann/.local/share/sonomask/weights",
            "/src/sonomask/target/release/weights",
            "/src/sonomask/weights",
        ];
        assert_eq!(weights_dirs(env, Some(exe)), expected.map(PathBuf::from));
        let data = |name: &str| (name == "XDG_DATA_HOME").then(|| "/data".to_owned());
        assert_eq!(weights_dirs(data, None), ["weights", "/data/sonomask/weights"].map(PathBuf::from));
        assert_eq!(weights_dirs(|_| Some(String::new()), None), [PathBuf::from("weights")]);
    }

    #[test]
    fn the_first_file_wins_and_the_first_folder_is_named_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ["a", "b", "c"].map(|name| dir.path().join(name));
        for d in &dirs[1..] {
            std::fs::create_dir(d).unwrap();
            std::fs::write(d.join("x.pth"), d.to_str().unwrap()).unwrap();
        }
        let find = |name: &str| find_weights(Path::new(name), &dirs);
        assert_eq!(find("x.pth"), dirs[1].join("x.pth"));
        assert_eq!(find("y.pth"), dirs[0].join("y.pth"));
        // A folder is no weights file.
        std::fs::create_dir_all(dirs[0].join("x.pth")).unwrap();
        assert_eq!(find("x.pth"), dirs[1].join("x.pth"));
    }
}

//! What makes a run this run and no other.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::TrainSpec;
use super::lesson::Lesson;
use crate::segment::{ModelSpec, Segmenter as _};
use crate::weights::hex;

/// Raised whenever a step computes something else: what was begun before is then not gone on with.
const RECIPE: u32 = 2;

/// What a run depends on, each by its name and its hash, so that a run is not gone on with as another one.
pub fn fingerprint(spec: &TrainSpec, lesson: &Lesson<'_>) -> String {
    let noise: Vec<f64> = spec.datasets.iter().map(|data| data.noise).collect();
    // Where files lie changes nothing, and what they hold is hashed; nor do those change a step that say what is measured and written.
    let nowhere = PathBuf::new();
    let model =
        ModelSpec { weights: nowhere.clone(), ppn: None, presence_threshold: 0.0, ..spec.model.clone() };
    let spec = TrainSpec {
        model,
        cache: nowhere.clone(),
        out: nowhere,
        datasets: Vec::new(),
        validate_every: 1,
        patience: 0,
        half: true,
        ..spec.clone()
    };
    let info = lesson.net.sam.info();
    let ppn = info.ppn.as_ref().and_then(|ppn| ppn.sha256.as_deref()).unwrap_or("none");
    let settings = hex(&Sha256::digest(format!("{spec:?} {noise:?}")));
    let (weights, pictures) = (&info.weights_sha256, &lesson.material.hash);
    format!("recipe={RECIPE} settings={settings} weights={weights} predictor={ppn} pictures={pictures}")
}

/// In which of these two runs differ, in words.
pub fn difference(begun: &str, now: &str) -> String {
    let differs = |part: &str| {
        let of = |all: &str| {
            all.split(' ').find_map(|p| Some(p.strip_prefix(part)?.strip_prefix('=')?.to_owned()))
        };
        of(begun) != of(now)
    };
    let parts = [
        ("recipe", "version of this program"),
        ("settings", "settings"),
        ("weights", "weights"),
        ("predictor", "predictor to go on with"),
        ("pictures", "pictures, masks or another division of them"),
    ];
    let found: Vec<&str> = parts.iter().filter(|(part, _)| differs(part)).map(|(_, said)| *said).collect();
    // Versions of this program before 2026-12 wrote one hash of everything.
    if begun.contains('=') {
        found.join(" and ")
    } else {
        "settings, weights or pictures, or by another version".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let run = |settings: &str, pictures: &str| {
            format!("recipe=2 settings={settings} weights=w predictor=none pictures={pictures}")
        };
        assert_eq!(difference(&run("a", "b"), &run("c", "b")), "settings");
        let both = difference(&run("a", "b"), &run("c", "d"));
        assert_eq!(both, "settings and pictures, masks or another division of them");
        assert!(difference("0123abcd", &run("a", "b")).contains("another version"));
    }
}

//! What the program finds around it: elements, weights and configurations, from wherever it is called.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::{folder, picture, run};
use crate::program_support::said;

#[track_caller]
fn said_stdout(output: &Output) -> String {
    said(output, 0);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn doctor_tells_what_is_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = run(root, &["doctor", "--json"]);
    said(&output, 0);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<&str> =
        found["pipelines"].as_array().expect("pipelines").iter().filter_map(|p| p["name"].as_str()).collect();
    for name in [
        "source-file",
        "source-v4l2",
        "source-decklink",
        "source-rtsp",
        "source-srt",
        "source-udp",
        "source-test",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    assert!(
        found["weights"]
            .as_array()
            .expect("weights")
            .iter()
            .any(|w| w["verdict"].as_str().is_some_and(|v| v.contains("published")))
    );
    let here = folder();
    let output = run(here.path(), &["doctor", "--weights", "absent.pth"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "without weights: {text}");
    assert!(text.contains("make setup"), "{text}");
}

#[test]
fn presets_and_defaults_find_their_weights_outside_of_a_checkout() {
    let here = folder();
    // The checkout's, seen from the program.
    let text = said_stdout(&run(here.path(), &["doctor"]));
    assert!(text.contains("lite_medsam.pth  lite-medsam"), "{text}");
    let config = ["run", "--preset", "cine", "--print-config"];
    let text = said_stdout(&run(here.path(), &config));
    let line = |text: &str| text.lines().find(|l| l.starts_with("weights = ")).unwrap_or_default().to_owned();
    assert!(line(&text).contains("/weights/lite_medsam.pth"), "{text}");
    assert!(!line(&text).contains(&here.path().display().to_string()), "{text}");
    // One's own folder comes first, and a path of one's own is taken as it stands.
    std::fs::create_dir(here.path().join("weights")).expect("a folder");
    std::fs::write(here.path().join("weights/lite_medsam.pth"), "mine").expect("a file");
    let text = said_stdout(&run(here.path(), &config));
    let mine = std::fs::canonicalize(here.path()).expect("a path").join("weights/lite_medsam.pth");
    assert!(line(&text).contains(&mine.display().to_string()), "{text}");
    let text = said_stdout(&run(
        here.path(),
        &[&config[..], &["--set", "model.weights=\"weights/none.pth\""]].concat(),
    ));
    assert!(line(&text).contains(&mine.with_file_name("none.pth").display().to_string()), "{text}");
}

#[test]
fn the_printed_configuration_can_be_loaded_from_anywhere() {
    let dir = folder();
    let printed = run(Path::new(env!("CARGO_MANIFEST_DIR")), &["process", "--print-config"]);
    said(&printed, 0);
    std::fs::write(dir.path().join("c.toml"), &printed.stdout).expect("a file");
    picture(&dir.path().join("a.png"), 64, 64, 0);
    let output = run(
        dir.path(),
        &["process", "a.png", "--config", "c.toml", "--output", "o.mp4", "--box", "9,9,40,40"],
    );
    said(&output, 0);
}

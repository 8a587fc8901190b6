//! Every family as a person meets it: the table in the README, and the program from picture to mask with weights made from a
//! rule (which segment nothing, so what is looked at is the way, not the anatomy).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod answers;
mod files;
mod modes;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/overlay.png");

/// Runs the program; exit code, stdout and stderr.
fn sonomask(args: &[&str]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_sonomask")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn json(args: &[&str]) -> Value {
    let (code, stdout, stderr) = sonomask(args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A family's weights from the rule with a predictor of two classes, in `dir`.
fn generated(dir: &Path, family: &str, form: &str) -> String {
    let file = dir.join(format!("{family}.{form}.safetensors"));
    let args = ["weights", "generate", family, utf8(&file), "--ppn", form, "--classes", "nerve,vessel"];
    let (code, _, stderr) = sonomask(&args);
    assert_eq!(code, 0, "{stderr}");
    let facts = json(&["weights", "inspect", utf8(&file), "--json"]);
    assert_eq!(facts["family"], family);
    assert_eq!(facts["keys"]["missing"], serde_json::json!([]));
    assert_eq!(facts["keys"]["unexpected"], serde_json::json!([]));
    utf8(&file).to_owned()
}

fn classes(result: &Value) -> Vec<&str> {
    result["results"].as_array().unwrap().iter().map(|r| r["class"].as_str().unwrap()).collect()
}

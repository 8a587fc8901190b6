//! `sonomask weights` as a person calls it: results on stdout, messages on stderr, exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn sonomask(args: &[&str]) -> Done {
    let done = Command::new(env!("CARGO_BIN_EXE_sonomask")).args(args).output().unwrap();
    Done {
        code: done.status.code().unwrap(),
        stdout: String::from_utf8(done.stdout).unwrap(),
        stderr: String::from_utf8(done.stderr).unwrap(),
    }
}

fn root(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).to_str().unwrap().to_owned()
}

fn lite() -> String {
    root("weights/lite_medsam.pth")
}

fn made(dir: &tempfile::TempDir, name: &str, header: &str, data: usize) -> String {
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat();
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn list_knows_every_published_file_and_what_is_here() {
    let done = sonomask(&["weights", "list", "--json", "--dir", &root("weights")]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let list = done.json();
    let rows = list["published"].as_array().unwrap();
    let of = |name: &str| rows.iter().find(|r| r["name"] == name).unwrap();
    assert_eq!(of("lite-medsam")["present"], true);
    assert_eq!(of("medsam2")["family"], "sam2.1-hiera-tiny");
    assert!(rows.iter().all(|r| r["sha256"].as_str().unwrap().len() == 64));
    let text = sonomask(&["weights", "list"]).stdout;
    for word in ["sam2.1-hiera-large", "898.1 MB", "Apache-2.0", "dl.fbaipublicfiles.com", "2647878d5dfa"] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn verify_tells_published_files_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("sam2.1_hiera_tiny.pt");
    std::fs::write(&fake, "no weights").unwrap();
    let fake = fake.to_str().unwrap();
    let good = sonomask(&["weights", "verify", &lite()]);
    assert_eq!(good.code, 0);
    assert!(good.stdout.contains("is the published lite-medsam"), "{}", good.stdout);
    let mixed = sonomask(&["weights", "verify", "--json", &lite(), fake, "no/such/file.pt"]);
    assert_eq!(mixed.code, 1);
    assert!(mixed.stderr.contains("cannot read the weights") && mixed.stderr.contains("no/such/file.pt"));
    let files = &mixed.json()["files"];
    assert_eq!(files[0]["published"], "lite-medsam");
    assert_eq!(
        (&files[1]["published"], &files[1]["differs_from"]),
        (&Value::Null, &"sam2.1-hiera-tiny".into())
    );
    assert!(files[2]["error"].is_string());
    assert_eq!(sonomask(&["weights", "verify"]).code, 2);
}

#[test]
fn inspect_says_what_a_file_is() {
    let done = sonomask(&["weights", "inspect", "--json", &lite()]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let report = done.json();
    assert_eq!(report["family"], "lite-medsam");
    assert_eq!(report["published"], "lite-medsam");
    assert_eq!(report["format"], "torch-zip");
    assert_eq!(report["bytes"], 39_370_479);
    assert_eq!(report["keys"]["missing"], Value::Array(Vec::new()));
    assert_eq!(report["keys"]["unexpected"], Value::Array(Vec::new()));
    let lightning =
        sonomask(&["weights", "inspect", "--json", &root("fuzz/corpus/checkpoint/lightning.ckpt")]);
    let report = lightning.json();
    assert_eq!(lightning.code, 1, "it is of no family");
    assert_eq!((&report["under"], &report["lora_rank"]), (&"state_dict".into(), &2.into()));
    assert_eq!((&report["adapters"], &report["prompt_predictor"]), (&true.into(), &true.into()));
    assert_eq!(report["learned_prompts"][0], "shoulder");
    assert!(report["foreign"].as_array().unwrap().contains(&"argparse.Namespace".into()));
    let text = sonomask(&["weights", "inspect", &lite()]).stdout;
    assert!(text.contains("all there, none unexpected"), "{text}");
}

#[test]
fn missing_unexpected_and_misshapen_keys_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let header = r#"{"image_encoder.patch_embed.seq.0.c.weight":{"dtype":"F32","shape":[32,3,1,1],"data_offsets":[0,384]},
        "image_encoder.patch_embed.seq.0.bn.weight":{"dtype":"F32","shape":[2],"data_offsets":[384,392]},
        "stranger":{"dtype":"F32","shape":[1],"data_offsets":[392,396]}}"#;
    let file = made(&dir, "odd.safetensors", header, 396);
    let done = sonomask(&["weights", "inspect", "--json", &file]);
    let report = done.json();
    assert_eq!((done.code, &report["family"]), (1, &"lite-medsam".into()));
    let keys = &report["keys"];
    assert_eq!(keys["unexpected"], serde_json::json!(["stranger"]));
    assert!(keys["missing"].as_array().unwrap().contains(&"mask_decoder.iou_token.weight".into()), "{keys}");
    let wrong = keys["misshapen"].as_array().unwrap();
    let batch_norm = wrong.iter().find(|w| w["name"] == "image_encoder.patch_embed.seq.0.bn.weight").unwrap();
    assert_eq!((&batch_norm["expected"], &batch_norm["found"]), (&[32].into(), &[2].into()));
}

#[test]
fn the_wrong_family_is_told_what_the_file_is() {
    let wrong = sonomask(&["weights", "inspect", "--model", "sam2.1-hiera-tiny", &lite()]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (1, ""));
    assert!(
        wrong.stderr.contains("the weights are lite-medsam, asked for was sam2.1-hiera-tiny"),
        "{}",
        wrong.stderr
    );
    let unknown = sonomask(&["weights", "inspect", "--model", "sam3", &lite()]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("unknown model family \"sam3\""), "{}", unknown.stderr);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let picture = root("tests/fixtures/lite_medsam");
    let run = sonomask(&[
        "segment",
        &picture,
        "--weights",
        &lite(),
        "--model",
        "medsam",
        "--box",
        "x=1,1,9,9",
        "--out",
        out,
    ]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("the weights are lite-medsam, asked for was medsam"), "{}", run.stderr);
}

#[test]
fn hostile_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("evil.pth");
    std::fs::write(&file, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.\x80\x02].").unwrap();
    let done = sonomask(&["weights", "inspect", file.to_str().unwrap()]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("it names os.system"), "{}", done.stderr);
    let done =
        sonomask(&["weights", "convert", file.to_str().unwrap(), &format!("{}.safetensors", file.display())]);
    assert_eq!((done.code, std::fs::read_dir(dir.path()).unwrap().count()), (1, 1));
}

#[test]
fn convert_writes_what_inspect_then_reads_and_replaces_nothing_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("lite.safetensors");
    let out = out.to_str().unwrap();
    let done = sonomask(&["weights", "convert", &lite(), out, "--dtype", "bf16"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let report = sonomask(&["weights", "inspect", "--json", out]).json();
    assert_eq!((&report["family"], &report["format"]), (&"lite-medsam".into(), &"safetensors".into()));
    assert_eq!(report["metadata"]["family"], "lite-medsam");
    assert_eq!(
        report["metadata"]["source_sha256"],
        "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
    );
    assert!(report["dtypes"]["bf16"].as_u64().unwrap() > 100 && report["dtypes"]["f32"].is_null());
    assert!(report["keys"]["missing"].as_array().unwrap().is_empty());
    let again = sonomask(&["weights", "convert", &lite(), out]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("--overwrite replaces it"), "{}", again.stderr);
    assert_eq!(sonomask(&["weights", "convert", &lite(), out, "--overwrite", "--dtype", "f16"]).code, 0);
    for bad in
        [&[out, out][..], &[lite().as_str(), "x.pt"], &[lite().as_str(), "x.safetensors", "--dtype", "f8"]]
    {
        let args = [&["weights", "convert"], bad].concat();
        assert_eq!(sonomask(&args).code, 2, "{bad:?}");
    }
}

#[test]
fn download_of_an_unknown_name_lists_the_known() {
    let done = sonomask(&["weights", "download", "sam3"]);
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("known are lite-medsam, mobile-sam"), "{}", done.stderr);
    let here = sonomask(&["weights", "download", "lite-medsam", "--to", &root("weights")]);
    assert_eq!(here.code, 0, "{}", here.stderr);
    assert!(here.stdout.trim().ends_with("lite_medsam.pth") && here.stderr.contains("here already"));
}

#[test]
fn generate_refuses_what_could_not_be_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let good = at("w.safetensors");
    for (file, more, words) in [
        (at("w.pth"), &[][..], ".safetensors"),
        (good.clone(), &["--ppn", "single-scale", "--classes", "a,a"], "\"a\" is empty or there twice"),
        (good.clone(), &["--ppn", "single-scale", "--classes", "a,,b"], "\"\" is empty or there twice"),
    ] {
        let done = sonomask(&[&["weights", "generate", "lite-medsam", &file], more].concat());
        assert_eq!(done.code, 2, "{more:?}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{more:?}: {}", done.stderr);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

//! What is said of the networks and by their files: the README's table, family, metadata, and limits of numbers.

use std::process::Command;

use serde_json::Value;
use sonomask::nn::Sam;
use sonomask::weights::{Blank, Family, Weights};
use tch::Device;

use super::{PICTURE, classes, generated, json, sonomask, utf8};

/// Cells of the README's row of a family.
fn row(readme: &str, family: Family) -> Vec<&str> {
    let start = format!("| `{family}` |");
    let line = readme.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("the README has no row for {family}"));
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_readme_says_what_the_networks_are() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let gflop = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gflop.json")).unwrap();
    let gflop: Value = serde_json::from_slice(&gflop).unwrap();
    let mut megabytes = Vec::new();
    for family in Family::ALL {
        let view = Weights::new(&Blank, Device::Cpu);
        let net = Sam::new(&view, family, None).unwrap();
        let millions = format!("{:.1}", view.parameters() as f64 / 1e6);
        let cells = row(&readme, family);
        let side = net.input_size().to_string();
        assert!(
            cells[1].starts_with(&side) && cells[2] == millions,
            "{family}: {side}, {millions}; {cells:?}"
        );
        assert_eq!(cells[3].parse::<f64>().ok(), gflop[family.name()].as_f64(), "{family}");
        let other = [32, 512, 40]
            .map(|side| Sam::new(&Weights::new(&Blank, Device::Cpu), family, Some(side)).is_ok());
        let any = family.is_sam2() || matches!(family, Family::LiteMedSam | Family::MobileSam);
        assert_eq!(other, [any, any, false], "{family}: sizes other than its own");
        megabytes.push((family, format!("{:.0}", view.bytes() as f64 / 1e6), cells[4]));
        assert_eq!(cells[1].ends_with("multiples of 32"), any, "{family}");
    }
    megabytes.retain(|(_, is, said)| is != said);
    assert!(megabytes.is_empty(), "weights in MB, and as the README has them: {megabytes:?}");
}

#[test]
fn another_family_than_asked_for_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let weights = generated(dir.path(), "mobile-sam", "single-scale");
    let out = dir.path().join("out");
    let ask =
        ["segment", PICTURE, "--out", utf8(&out), "--weights", &weights, "--model", "sam2.1-hiera-tiny"];
    let (code, _, stderr) = sonomask(&ask);
    assert_ne!(code, 0);
    assert!(stderr.contains("the weights are mobile-sam, asked for was sam2.1-hiera-tiny"), "{stderr}");
}

/// `file` with other metadata, beside it.
fn with_metadata(file: &str, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> String {
    let bytes = std::fs::read(file).unwrap();
    let end = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let mut header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    change(header["__metadata__"].as_object_mut().unwrap());
    let header = serde_json::to_vec(&header).unwrap();
    let mut changed = (header.len() as u64).to_le_bytes().to_vec();
    changed.extend(header);
    changed.extend(&bytes[end..]);
    let other = format!("{file}.changed.safetensors");
    std::fs::write(&other, changed).unwrap();
    other
}

#[test]
fn the_handling_of_pictures_is_what_the_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = generated(dir.path(), "sam2.1-hiera-tiny", "single-scale");
    let out = dir.path().join("out");
    let args = |weights: &str| {
        let fixed = ["segment", PICTURE, "--json", "--input-size", "256", "--mode", "autonomous", "--out"];
        let all = [&fixed[..], &[utf8(&out), "--weights", weights]].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let score = |weights: &str| {
        let args = args(weights);
        let result = json(&args.iter().map(String::as_str).collect::<Vec<_>>());
        result["results"][0]["score"].as_f64().unwrap()
    };
    let mut scores = vec![score(&file)];
    for name in ["sam2rad", "sam2rad-square", "sam2-video"] {
        let other = with_metadata(&file, |m| drop(m.insert("preprocess".into(), name.into())));
        scores.push(score(&other));
    }
    for (i, a) in scores.iter().enumerate() {
        assert!(scores[..i].iter().all(|b| (a - b).abs() > 1e-7), "two handlings are one: {scores:?}");
    }
    let unknown = with_metadata(&file, |m| drop(m.insert("preprocess".into(), "sideways".into())));
    let args = args(&unknown);
    let (code, _, stderr) = sonomask(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_ne!(code, 0);
    for part in ["preprocess = \"sideways\"", "sam2rad, sam2rad-square or sam2-video", unknown.as_str()] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn a_predictor_is_used_at_the_side_that_its_file_names_and_warns_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let file = generated(dir.path(), "lite-medsam", "pyramid");
    let taught = with_metadata(&file, |m| drop(m.insert("input_size".into(), "192".into())));
    let used = |more: &[&str]| {
        let args = [&["segment", PICTURE, "--json", "--out", utf8(dir.path()), "--weights", &taught], more];
        let (code, stdout, stderr) = sonomask(&args.concat());
        assert_eq!(code, 0, "{stderr}");
        let result: Value = serde_json::from_str(&stdout).unwrap();
        (result["model"]["input_size"].as_u64(), stderr)
    };
    let (side, said) = used(&[]);
    assert_eq!(side, Some(192));
    assert!(!said.contains("pixels a side"), "{said}");
    let (side, said) = used(&["--input-size", "128"]);
    assert_eq!(side, Some(128));
    let warning = "trained with an input of 192 pixels a side, asked for are 128: expect worse masks";
    assert!(said.contains(warning), "{said}");
}

#[test]
fn an_input_of_too_few_cells_for_a_pyramid_is_refused_when_loading() {
    let dir = tempfile::tempdir().unwrap();
    for (family, least) in [("mobile-sam", 128), ("sam2.1-hiera-tiny", 128), ("lite-medsam", 32)] {
        let weights = generated(dir.path(), family, "pyramid");
        let out = dir.path().join("out");
        let used = |side: u64| {
            let side = side.to_string();
            sonomask(&["segment", PICTURE, "--out", utf8(&out), "--weights", &weights, "--input-size", &side])
        };
        let (code, _, stderr) = used(least);
        assert_eq!(code, 0, "{family} at {least}: {stderr}");
        if least > 32 {
            let (code, _, stderr) = used(least - 32);
            assert_ne!(code, 0, "{family}");
            let expected = format!("the input size: of {} pixels a side", least - 32);
            let at_least = format!("expected at least {least} pixels");
            assert!(stderr.contains(&expected) && stderr.contains(&at_least), "{family}: {stderr}");
        }
    }
}

#[test]
fn names_of_classes_belong_to_a_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let file = generated(dir.path(), "lite-medsam", "single-scale");
    let dataset = json(&["segment", PICTURE, "--json", "--out", utf8(dir.path()), "--weights", &file]);
    let dataset = dataset["model"]["ppn"]["dataset"].as_str().unwrap().to_owned();
    let named = with_metadata(&file, |m| {
        let own = format!("classes.{dataset}");
        m.insert(own, r#"["one","two"]"#.into());
    });
    let args = ["segment", PICTURE, "--json", "--mode", "autonomous", "--presence-threshold", "0"];
    let result = json(&[&args[..], &["--out", utf8(dir.path()), "--weights", &named]].concat());
    assert_eq!(classes(&result), ["one", "two"]);
}

#[test]
fn numbers_that_cannot_be_meant_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let file = generated(dir.path(), "lite-medsam", "single-scale");
    for (option, value, expected) in [
        ("--input-size", "0", "expected 1 to 4096"),
        ("--input-size", "9223372036854775808", "expected 1 to 4096"),
        ("--max-hole-area", "18446744073709551615", "expected 0 to 1048576"),
        ("--max-sprinkle-area", "1048577", "expected 0 to 1048576"),
        ("--threads", "257", "expected 0 to 256"),
        ("--presence-threshold", "1.5", "expected 0 to 1"),
        ("--presence-threshold", "NaN", "expected 0 to 1"),
    ] {
        let out = dir.path().join("out");
        let (code, _, stderr) =
            sonomask(&["segment", PICTURE, "--out", utf8(&out), "--weights", &file, option, value]);
        assert_eq!(code, 2, "{option} {value}: {stderr}");
        assert!(stderr.contains(expected) && !out.exists(), "{option} {value}: {stderr}");
    }
}

#[test]
fn memory_that_is_not_there_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let weights = generated(dir.path(), "sam2.1-hiera-tiny", "single-scale");
    let shell = r#"ulimit -v 3500000 && exec "$0" "$@""#;
    let out = dir.path().join("out");
    let args = ["segment", PICTURE, "--mode", "autonomous", "--input-size", "4096", "--device", "cpu"];
    let done = Command::new("sh")
        .args(["-c", shell, env!("CARGO_BIN_EXE_sonomask")])
        .args(args)
        .args(["--weights", &weights, "--out", utf8(&out)])
        .output()
        .unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("can't allocate memory"), "{stderr}");
    assert!(!stderr.contains("frame #"), "{stderr}");
}

//! Every family as a person meets it: the table in the README, and the program from picture to mask with weights made from a
//! rule (which segment nothing, so what is looked at is the way, not the anatomy).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::mask::ClassMask;
use sonomask::nn::Sam;
use sonomask::segment::{DeviceChoice, Guidance, Mode, ModelSpec, Prompt, PromptError, SegmentError, load};
use sonomask::stage::StageTimes;
use sonomask::weights::{Blank, Family, Weights};
use tch::Device;

const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/overlay.png");

/// Size of the picture.
const WIDTH: u32 = 534;
const HEIGHT: u32 = 512;

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
        let other =
            [512, 768].map(|side| Sam::new(&Weights::new(&Blank, Device::Cpu), family, Some(side)).is_ok());
        assert_eq!(other, [family.is_sam2(); 2], "{family}: sizes other than its own");
        megabytes.push((family, format!("{:.0}", view.bytes() as f64 / 1e6), cells[4]));
        assert_eq!(cells[1].ends_with("multiples of 32"), family.is_sam2(), "{family}");
    }
    megabytes.retain(|(_, is, said)| is != said);
    assert!(megabytes.is_empty(), "weights in MB, and as the README has them: {megabytes:?}");
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

fn modes(family: &str, form: &str, size: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let weights = generated(dir.path(), family, form);
    let out = dir.path().join("out");
    let with = |more: &[&str]| {
        let mut args = vec!["segment", PICTURE, "--json", "--out", utf8(&out), "--weights", &weights];
        if let Some(size) = size {
            args.extend(["--input-size", size]);
        }
        args.extend(more);
        json(&args)
    };
    let alone = with(&["--mode", "autonomous", "--presence-threshold", "0"]);
    assert_eq!(classes(&alone), ["nerve", "vessel"], "{family} {form}");
    assert_eq!(alone["model"]["ppn"]["form"], form);
    assert!(alone["model"]["weights_bytes"].as_u64().unwrap() > 1_000_000);

    let bounded = ["--box", "vessel=40,40,120,110", "--presence-threshold", "0"];
    let assisted = with(&[&bounded[..], &["--mode", "assisted"]].concat());
    assert_eq!(classes(&assisted), ["nerve", "vessel"], "{family} {form}");
    let score = |result: &Value, class: &str| {
        let all = result["results"].as_array().unwrap();
        all.iter().find(|r| r["class"] == class).unwrap()["score"].as_f64().unwrap()
    };
    // Round-off only: classes with a box are decoded apart from those without.
    let differ = |a: &Value, b: &Value, class| (score(a, class) - score(b, class)).abs();
    assert!(differ(&assisted, &alone, "nerve") < 1e-5, "{family} {form}: a box of another class changed it");
    assert!(differ(&assisted, &alone, "vessel") > 1e-4, "{family} {form}: the box changed nothing");

    // Points and masks, of a class that the predictor knows and of one that it does not.
    let rough = dir.path().join("rough.png");
    let mut drawn = image::GrayImage::new(WIDTH, HEIGHT);
    for (x, y) in (40..110).flat_map(|y| (40..120).map(move |x| (x, y))) {
        drawn.put_pixel(x, y, image::Luma([255]));
    }
    drawn.save(&rough).unwrap();
    for (option, place) in [("--point", "80,75,+"), ("--mask-prompt", utf8(&rough))] {
        let (known, new) = (format!("vessel={place}"), format!("other={place}"));
        let by_hand =
            with(&[option, &known, option, &new, "--mode", "assisted", "--presence-threshold", "0"]);
        assert_eq!(classes(&by_hand), ["nerve", "vessel", "other"], "{family} {form} {option}");
        assert!(differ(&by_hand, &alone, "nerve") < 1e-5, "{family} {form} {option}");
        assert!(differ(&by_hand, &alone, "vessel") > 1e-5, "{family} {form}: {option} changed nothing");
        let manual = with(&[option, &known, "--mode", "manual", "--presence-threshold", "0"]);
        assert_eq!(classes(&manual), ["vessel"], "{family} {form} {option}");
        let apart = (score(&manual, "vessel") - score(&by_hand, "other")).abs();
        assert!(apart < 1e-5, "{family} {form} {option}: {apart} between manual and beside a predictor");
    }

    let manual = with(&[&bounded[..], &["--mode", "manual"]].concat());
    assert_eq!(classes(&manual), ["vessel"], "{family} {form}");
    assert_ne!(
        score(&manual, "vessel"),
        score(&assisted, "vessel"),
        "the predictor took part in manual mode"
    );
}

#[test]
fn modes_of_lite_medsam() {
    modes("lite-medsam", "single-scale", None);
}

#[test]
fn modes_of_sam2_with_three_scales() {
    modes("sam2.1-hiera-tiny", "high-res", Some("256"));
}

#[test]
fn modes_of_sam2_with_one_scale() {
    modes("sam2-hiera-small", "single-scale", Some("256"));
}

#[test]
fn modes_of_mobile_sam_with_three_scales() {
    modes("mobile-sam", "high-res", None);
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

/// The modes change from frame to frame of one recording, and a class that is not certain enough has no mask.
#[test]
fn a_recording_changes_its_mode_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| utf8(&dir.path().join(name)).to_owned();
    let weights = generated(dir.path(), "sam2.1-hiera-tiny", "single-scale");
    let (code, _, stderr) = sonomask(&["phantom", "-o", &file("loop.mkv"), "--frames", "4"]);
    assert_eq!(code, 0, "{stderr}");
    let guide = r#"{"frame": 1, "mode": "manual", "prompts": [{"class": "vessel", "box": [40, 40, 120, 110]}]}
{"frame": 2, "mode": "assisted"}
{"frame": 3, "mode": "autonomous", "clear": ["vessel"]}
"#;
    std::fs::write(file("guide.jsonl"), guide).unwrap();
    let (weights, masks) = (format!("model.weights={weights:?}"), file("masks"));
    let report = |threshold: &str| {
        let _ = std::fs::remove_dir_all(&masks);
        let threshold = format!("model.presence_threshold={threshold}");
        json(&[
            "process",
            &file("loop.mkv"),
            "-o",
            &file("out.mkv"),
            "--json",
            "--masks",
            &masks,
            "--guide",
            &file("guide.jsonl"),
            "--set",
            &weights,
            "--set",
            "model.family=sam2.1-hiera-tiny",
            "--set",
            "model.input_size=256",
            "--set",
            "model.mode=autonomous",
            "--set",
            &threshold,
            "--set",
            "output.masks_format=rle",
        ])
    };
    let all = report("0.0");
    assert_eq!((&all["frames"]["in"], &all["frames"]["segmented"]), (&4.into(), &4.into()), "{all}");
    assert!(all["peak_rss_bytes"].as_u64().unwrap() > all["model"]["weights_bytes"].as_u64().unwrap());
    // Per frame: the classes that have a mask. The box that the preset brings along is none of them.
    let found = || {
        let mut frames = vec![(Vec::new(), 0); 4];
        for line in std::fs::read_to_string(Path::new(&masks).join("masks.jsonl")).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let frame = &mut frames[line["frame"].as_u64().unwrap() as usize];
            frame.0.push(line["class"].as_str().unwrap().to_owned());
            // One run over the whole picture: an empty mask.
            frame.1 += usize::from(line["counts"].as_array().unwrap().len() == 1);
        }
        frames
    };
    let classes: Vec<_> = found().into_iter().map(|(classes, _)| classes).collect();
    let by_frame = [&["nerve", "vessel"][..], &["vessel"], &["nerve", "vessel"], &["nerve", "vessel"]];
    assert_eq!(classes, by_frame);
    report("1.0");
    assert!(found().iter().all(|(classes, empty)| classes.len() == *empty), "uncertain classes have masks");
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

/// `prompts` about the picture, to a network of random weights with two classes.
fn answers(weights: &str, spec: ModelSpec, prompts: Vec<Prompt>) -> Result<Vec<ClassMask>, SegmentError> {
    let picture = image::open(PICTURE).unwrap().into_rgba8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let plane = Plane { data: picture.as_raw(), stride: width * 4 };
    let view = ImageView::new(PixelFormat::Rgbx, width, height, YuvColor::default(), vec![plane]).unwrap();
    let spec = ModelSpec { weights: weights.into(), presence_threshold: 0.0, ..spec };
    let mut model = load(&spec, &DeviceChoice::Cpu.resolve().unwrap()).unwrap();
    let guidance = Guidance { mode: Mode::Assisted, prompts };
    model.segment(&view, &guidance, true, &mut StageTimes::default())
}

fn bounded(class: usize) -> Prompt {
    Prompt { class, bbox: Some([40.0, 40.0, 300.0, 300.0]), ..Prompt::default() }
}

#[test]
fn logits_are_the_networks_own_and_a_class_has_one_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let weights = generated(dir.path(), "lite-medsam", "single-scale");
    let segment = |area: usize, prompts: Vec<Prompt>| {
        let spec = ModelSpec { max_hole_area: area, max_sprinkle_area: area, ..ModelSpec::new("") };
        answers(&weights, spec, prompts)
    };
    let (raw, cleaned) = (segment(0, vec![bounded(0)]).unwrap(), segment(1 << 20, vec![bounded(0)]).unwrap());
    for (raw, cleaned) in raw.iter().zip(&cleaned) {
        assert_eq!(raw.logits.as_ref().unwrap().values, cleaned.logits.as_ref().unwrap().values);
    }
    // A mask of which everything is a hole or an island is all inside or all outside.
    assert!(raw.iter().zip(&cleaned).any(|(raw, cleaned)| raw.mask != cleaned.mask), "nothing was cleaned");

    let refused = segment(0, vec![bounded(1), bounded(1)]).unwrap_err();
    assert!(matches!(refused, SegmentError::Prompt(PromptError::Twice { class: 1 })), "{refused}");
}

/// A person speaks of one of the two, so that they are decoded apart.
#[test]
fn classes_do_not_overlap_where_they_are_not_to() {
    let dir = tempfile::tempdir().unwrap();
    let weights = generated(dir.path(), "lite-medsam", "single-scale");
    let segment = |non_overlapping| {
        let spec = ModelSpec { non_overlapping, ..ModelSpec::new("") };
        let found = answers(&weights, spec, vec![bounded(0)]).unwrap();
        assert_eq!(found.iter().map(|m| m.class).collect::<Vec<_>>(), [0, 1]);
        found
    };
    let (both, apart) = (segment(false), segment(true));
    let of = |found: &[ClassMask], class: usize| found[class].mask.data().to_vec();
    let claimed = of(&both, 0).into_iter().zip(of(&both, 1));
    let given = of(&apart, 0).into_iter().zip(of(&apart, 1));
    let mut shared = 0;
    for (claimed, given) in claimed.zip(given) {
        shared += usize::from(claimed == (1, 1));
        // One has it, of those that claim it.
        let whose = if claimed == (1, 1) { [(1, 0), (0, 1)] } else { [claimed; 2] };
        assert!(whose.contains(&given), "{claimed:?} {given:?}");
    }
    assert!(shared > 100, "{shared} pixels are claimed twice");
    for (both, apart) in both.iter().zip(&apart) {
        assert_eq!(both.logits.as_ref().unwrap().values, apart.logits.as_ref().unwrap().values);
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

#[test]
fn the_memory_works_in_process_for_every_policy_and_both_versions_of_sam2() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let clip = at("clip.mp4");
    // Another patient from frame 8 on.
    let (code, _, stderr) = sonomask(&[
        "phantom",
        "--output",
        &clip,
        "--frames",
        "12",
        "--set",
        "phantom.seed=41",
        "--set",
        "phantom.width=160",
        "--set",
        "phantom.height=128",
        "--set",
        "phantom.scene_cut=8",
    ]);
    assert_eq!(code, 0, "{stderr}");
    let files = ["sam2.1-hiera-tiny", "sam2-hiera-tiny"]
        .map(|family| (family, generated(dir.path(), family, "single-scale")));
    let runs = [
        (&files[0], "first", 2),
        (&files[0], "every", 12),
        (&files[0], "interval", 3),
        (&files[1], "first", 2),
    ];
    for ((family, weights), policy, asked) in runs {
        let (family, weights) = (format!("model.family={family}"), format!("model.weights=\"{weights}\""));
        let policy = format!("memory.predictor={policy}");
        let mut args = vec!["process", clip.as_str(), "--json"];
        let (out, masks) = (at("out.mp4"), at("masks"));
        args.extend(["--output", &out, "--masks", &masks]);
        // Of weights that segment nothing everything counts as found.
        for set in [
            family.as_str(),
            &weights,
            "model.input_size=64",
            "model.presence_threshold=0",
            "memory.enabled=true",
            &policy,
            "memory.interval=5",
            "memory.trial=0",
            "memory.min_score=0",
            "memory.min_area=0",
        ] {
            args.extend(["--set", set]);
        }
        let report = json(&args);
        let counts = &report["memory"];
        assert_eq!(report["frames"]["segmented"], 12);
        assert_eq!(
            (&counts["asked"], &counts["resets"]["scene_cut"]),
            (&asked.into(), &1.into()),
            "{args:?}: {counts}"
        );
        assert!(counts["bank_frames_most"].as_u64().unwrap() <= 2 * 10, "{counts}");
        // The preset's example of a box is none of the predictor's business.
        let kinds: std::collections::BTreeSet<String> = std::fs::read_dir(&masks)
            .unwrap()
            .filter_map(|e| Some(e.unwrap().file_name().to_str()?.split_once('_')?.1.to_owned()))
            .collect();
        assert_eq!(kinds, ["nerve.png", "vessel.png"].map(String::from).into());
        for stage in ["memory_attention", "memory_encoder"] {
            assert_eq!(report["stages_ms"][stage]["count"], 12, "{stage}");
        }
    }
    let (code, _, stderr) = sonomask(&[
        "process",
        &clip,
        "--output",
        &at("v1.mp4"),
        "--set",
        "memory.enabled=true",
        "--box",
        "nerve=10,10,90,90",
    ]);
    assert_eq!(code, 2);
    assert!(stderr.contains("lite-medsam has no memory"), "{stderr}");
}

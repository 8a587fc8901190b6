//! `sonomask eval` as its users call it: what stands on stdout, exit codes, files.

mod program_support;

use std::path::Path;
use std::process::{Command, Output};

use program_support::{said, sonomask, weights};
use serde_json::Value;
use sonomask::phantom::{Phantom, PhantomConfig};

/// Size of the pictures.
const SIZE: (usize, usize) = (120, 96);

fn eval(dir: &Path, args: &[&str]) -> Output {
    sonomask(dir).arg("eval").args(args).output().expect("the program starts")
}

#[track_caller]
fn json(output: &Output) -> Value {
    said(output, 0);
    serde_json::from_slice(&output.stdout).expect("JSON and nothing else on stdout")
}

/// Two pictures of the phantom: nerve is 1 and vessel is 2 in the masks; in the second there is no vessel.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["data/imgs", "data/gts"] {
        std::fs::create_dir_all(dir.path().join(name)).expect("a folder");
    }
    let (width, height) = SIZE;
    let phantom = Phantom::new(PhantomConfig { width, height, frames: None, ..PhantomConfig::default() });
    let mut phantom = phantom.expect("a phantom");
    for (index, classes) in [&["nerve", "vessel"][..], &["nerve"]].into_iter().enumerate() {
        let mut labels = vec![0u8; width * height];
        for truth in phantom.truth(index as u64) {
            let Some(label) = classes.iter().position(|name| *name == truth.class.name()) else { continue };
            for (label_at, inside) in labels.iter_mut().zip(truth.mask.data()) {
                if *inside != 0 {
                    *label_at = label as u8 + 1;
                }
            }
        }
        let save = |folder: &str, data: &[u8]| {
            let file = dir.path().join(format!("data/{folder}/p{index}.png"));
            let gray = image::ExtendedColorType::L8;
            image::save_buffer(file, data, width as u32, height as u32, gray).expect("a picture");
        };
        save("imgs", &phantom.image(index as u64));
        save("gts", &labels);
    }
    let config = format!(
        "[model]\nfamily = \"lite-medsam\"\nweights = {:?}\n[[classes]]\nname = \"nerve\"\n[[classes]]\nname = \"vessel\"\n",
        weights()
    );
    std::fs::write(dir.path().join("c.toml"), config).expect("a file");
    dir
}

/// Weights made by rule with a predictor of two classes, as g.safetensors.
fn generate(dir: &Path) {
    let mut generate = Command::new(env!("CARGO_BIN_EXE_sonomask"));
    generate.current_dir(dir).args(["weights", "generate", "lite-medsam", "g.safetensors", "--ppn"]);
    said(
        &generate.args(["single-scale", "--classes", "nerve,vessel"]).output().expect("the program starts"),
        0,
    );
}

#[test]
fn boxes_of_a_configuration_as_json_and_as_files() {
    let dir = folder();
    let args = [
        "--config",
        "c.toml",
        "--data",
        "data",
        "--mode",
        "box",
        "--json",
        "--out",
        "out",
        "--spacing",
        "0.5",
    ];
    let found = json(&eval(dir.path(), &args));
    assert_eq!((found["schema"].as_u64(), found["n"].as_u64()), (Some(1), Some(2)));
    assert_eq!((found["dataset"].as_str(), found["mode"].as_str()), (Some("data"), Some("box")));
    let (nerve, vessel) = (&found["classes"]["nerve"], &found["classes"]["vessel"]);
    assert_eq!((nerve["n_present"].as_u64(), vessel["n_present"].as_u64()), (Some(2), Some(1)));
    for (what, scores) in [("nerve", nerve), ("vessel", vessel), ("mean", &found["mean"])] {
        for name in ["dice", "iou"] {
            let value = scores[name].as_f64().expect("a number");
            let range: Vec<f64> = scores[format!("{name}_ci95")]
                .as_array()
                .expect("two ends")
                .iter()
                .filter_map(Value::as_f64)
                .collect();
            assert!(
                (0.0..=1.0).contains(&value) && range[0] <= value && value <= range[1],
                "{what} {name} {scores}"
            );
        }
    }
    // The box alone leaves little to find on the phantom's vessel, a dark disc.
    assert!(vessel["dice"].as_f64() > Some(0.5), "{vessel}");
    let mean = (nerve["dice"].as_f64().unwrap_or(9.0) + vessel["dice"].as_f64().unwrap_or(9.0)) / 2.0;
    assert!((found["mean"]["dice"].as_f64().unwrap_or(0.0) - mean).abs() < 1e-12);
    assert_eq!(vessel["specificity"], Value::Null);
    let (px, mm) = (&vessel["centroid_px"]["mean"], &vessel["centroid_mm"]["mean"]);
    assert!((px.as_f64().expect("px") - 2.0 * mm.as_f64().expect("mm")).abs() < 1e-9);
    let mut files: Vec<String> = std::fs::read_dir(dir.path().join("out"))
        .expect("a folder")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, ["cases.csv", "report.html", "summary.csv", "summary.json", "summary.md"]);
    let cases = std::fs::read_to_string(dir.path().join("out/cases.csv")).expect("a file");
    assert!(cases.contains("box,p1,0,vessel,false,0,0,0,0,,,"), "not asked for: {cases}");
}

#[test]
fn several_modes_with_a_predictor_and_its_tables() {
    let dir = folder();
    generate(dir.path());
    let args = [
        "--weights",
        "g.safetensors",
        "--data",
        "data",
        "--mode",
        "auto",
        "--mode",
        "auto+box",
        "--json",
        "--limit",
        "1",
    ];
    let found = json(&eval(dir.path(), &args));
    let modes: Vec<_> =
        found["evaluations"].as_array().expect("a list").iter().map(|e| e["mode"].as_str()).collect();
    assert_eq!(modes, [Some("auto"), Some("auto+box")], "labels are the predictor's classes in their order");
    assert_eq!(found["n"].as_u64(), Some(1));
    let tables = "others = [\"points\"]\n[[datasets]]\nname = \"P\"\ndata = \"data\"\nonly = \"one.txt\"\n\
        classes = [{ name = \"nerve\", label = 1 }, { name = \"vessel\", label = 2 }]\n\
        [[models]]\nname = \"G\"\ndecoder = \"lora\"\nweights = { P = \"g.safetensors\" }\n";
    std::fs::write(dir.path().join("t.toml"), tables).expect("a file");
    std::fs::write(dir.path().join("one.txt"), "p0\n").expect("a file");
    let output = eval(dir.path(), &["--tables", "t.toml", "--out", "t", "--views", "2"]);
    said(&output, 0);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("| Model | Decoder | P LP | P BB+LP |") && text.contains("| G | LoRA | "),
        "{text}"
    );
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("a file");
    assert_eq!(read("t/tables.csv").lines().count(), 4);
    assert!(read("t/tables.html").contains("<th>P BB+LP</th>"));
    let tables: serde_json::Value = serde_json::from_str(&read("t/tables.json")).expect("JSON");
    let cell = &tables["cells"][0];
    assert_eq!(cell["views"].as_u64(), Some(2));
}

#[test]
fn classes_do_not_overlap_by_a_flag_or_a_setting() {
    let dir = folder();
    generate(dir.path());
    let drawn = |out: &str, more: &[&str]| -> u64 {
        let mut args = vec!["--weights", "g.safetensors", "--data", "data", "--limit", "1", "--out", out];
        args.extend(["--presence-threshold", "0", "--mode", "auto"]);
        args.extend(more);
        said(&eval(dir.path(), &args), 0);
        let cases = std::fs::read_to_string(dir.path().join(out).join("cases.csv")).expect("a file");
        let mut lines = cases.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let column = lines.next().and_then(|names| names.iter().position(|name| *name == "mask_px"));
        lines.map(|cells| cells[column.expect("a column")].parse::<u64>().expect("a number")).sum()
    };
    let both = drawn("both", &[]);
    let flag = drawn("flag", &["--non-overlapping"]);
    assert!(0 < flag && flag < both, "{flag} of {both} pixels");
    assert_eq!(drawn("set", &["--set", "model.non_overlapping=true"]), flag);
}

#[test]
fn cases_of_parts_are_put_together_and_compared_picture_by_picture() {
    let dir = folder();
    generate(dir.path());
    let run = |out: &str, threshold: &str, more: &[&str]| {
        let mut args = vec!["--weights", "g.safetensors", "--data", "data", "--out", out];
        args.extend(["--presence-threshold", threshold]);
        args.extend(more);
        said(&eval(dir.path(), &args), 0);
    };
    for part in ["p0", "p1"] {
        std::fs::write(dir.path().join(part).with_extension("txt"), part).expect("a file");
        run(part, "0", &["--only", &format!("{part}.txt")]);
    }
    run("whole", "0", &[]);
    run("views", "0", &["--views", "2"]);
    let whole = std::fs::read_to_string(dir.path().join("whole/summary.json")).expect("a file");
    let whole: Value = serde_json::from_str(&whole).expect("JSON");
    let found = json(&eval(dir.path(), &["--cases", "p1/cases.csv", "p0/cases.csv", "--json"]));
    let of = |found: &Value| {
        [&found["evaluations"][0]["classes"], &found["evaluations"][0]["mean"]].map(Clone::clone)
    };
    assert_eq!(of(&found), of(&whole), "two parts are the whole");
    assert_eq!(found.get("differences"), None);

    let cases = ["--cases", "p0/cases.csv", "p1/cases.csv"];
    let found = json(&eval(dir.path(), &[&cases[..], &["--against", "views/cases.csv", "--json"]].concat()));
    let differences = found["differences"].as_array().expect("a list");
    assert_eq!(differences.len(), 3, "two classes and their mean: {found}");
    let mut apart = 0.0;
    for difference in differences {
        let number = |name: &str| difference["dice"][name].as_f64().expect("a number");
        assert!((number("value") - number("against") - number("difference")).abs() < 1e-9, "{difference}");
        apart += number("difference").abs();
    }
    assert!(apart > 0.0, "two views are not one: {found}");
    let nerve = found["evaluations"][0]["classes"]["nerve"]["dice"].as_f64();
    assert_eq!(differences[0]["dice"]["value"].as_f64(), nerve, "{found}");
    let output = eval(dir.path(), &["--cases", "p0/cases.csv", "--against", "whole/cases.csv"]);
    said(&output, 0);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("| auto | nerve | 1 | ") && text.contains(" | +0.000 [+0.000, +0.000] |"),
        "{text}"
    );
    assert!(text.contains("\n1 pictures are in one of the two alone"), "{text}");

    std::fs::write(dir.path().join("half.csv"), "mode,image\nauto,p0\n").expect("a file");
    let whole = std::fs::read_to_string(dir.path().join("whole/cases.csv")).expect("a file");
    std::fs::write(dir.path().join("nerve.csv"), whole.replace(",vessel,", ",nerves,")).expect("a file");
    for (args, expected) in [
        (&["--cases", "p0/cases.csv", "whole/cases.csv"][..], "case 1: nerve auto of p0 is there twice"),
        (&["--cases", "nowhere.csv"], "cannot read the cases: nowhere.csv"),
        (&["--cases", "half.csv"], "missing field `view`"),
        (
            &["--cases", "p0/cases.csv", "nerve.csv"],
            "nerve.csv has the classes nerve, nerves, the file before it",
        ),
        (&["--cases", "p0/cases.csv", "--against", "nerve.csv"], "the classes are nerve, vessel, those of"),
        (&["--cases", "p0/cases.csv", "--against", "p1/cases.csv"], "no picture is in both"),
        (&["--cases", "p0/cases.csv", "--patient", "_"], "--patient: 1 of 1 names have no"),
        (&["--cases", "p0/cases.csv", "--mode", "box"], "--mode"),
        (&["--against", "p0/cases.csv"], "--cases"),
    ] {
        let text = said(&eval(dir.path(), args), 2);
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}

#[test]
fn wrong_requests_end_with_2_before_any_work() {
    let dir = folder();
    let base = ["--config", "c.toml", "--data", "data"];
    let with = |more: &[&str]| eval(dir.path(), &[&base[..], more].concat());
    for (more, expected) in [
        (&["--mode", "magic"][..], "expected auto, auto+box, auto+points, box, box-regions or points"),
        (&["--mode", "auto"], "the mode auto needs a prompt predictor, and the model has none"),
        (&["--class", "nerve"], "--class nerve: expected NAME=LABEL"),
        (&["--class", "nerve=0"], "label 0, which is background"),
        (&["--class", "nerve=1"], "have label 2, expected one of [0, 1]"),
        (&["--only", "none.txt"], "cannot read the list"),
        (&["--spacing", "0"], "expected millimetres above 0"),
        (&["--limit", "0"], "--limit"),
        (&["--set", "model.enabled=false"], "there is nothing to evaluate"),
        (&["--patient", "_"], "--patient: 2 of 2 names have no \"_\" behind the patient's part: p0, p1"),
        (&["--patient", "_", "--limit", "1"], "1 of 1 names have no"),
        (&["--patient", ""], "--patient: the mark behind the patient's part of a name is empty"),
        (&["--set", "model.weights=\"nowhere.pth\""], "there are no weights at this path"),
    ] {
        let text = said(&with(more), 2);
        assert!(text.contains(expected), "{more:?}: {text}");
    }
    let text = said(&eval(dir.path(), &["--weights", &weights(), "--data", "data"]), 2);
    assert!(text.contains("give --class NAME=LABEL for each"), "{text}");
    assert!(said(&eval(dir.path(), &["--config", "c.toml"]), 2).contains("give --data DIR"));
    std::fs::remove_file(dir.path().join("data/gts/p0.png")).expect("it is there");
    std::fs::write(dir.path().join("data/gts/p9.png"), "x").expect("a file");
    let text = said(&with(&[]), 2);
    assert!(text.contains("no mask for the image") && text.contains("no image for the mask"), "{text}");
}

#[test]
fn what_is_odd_in_the_data_is_told_and_does_not_end_it() {
    let dir = folder();
    let (width, height) = (SIZE.0 as u32, SIZE.1 as u32);
    let image = |value: u16| image::ImageBuffer::from_pixel(width, height, image::Luma([value]));
    // Twelve bits of sixteen; and a whole picture that is dark, with eight.
    image(4095).save(dir.path().join("data/imgs/p0.png")).expect("a picture");
    let dark = image::GrayImage::new(width, height);
    dark.save(dir.path().join("data/imgs/p1.png")).expect("a picture");
    let classes = ["--class", "nerve=1", "--class", "vessel=2", "--class", "bone=3"];
    let args = ["--config", "c.toml", "--data", "data", "--mode", "auto"];
    let text = said(&eval(dir.path(), &[&args[..], &classes[..]].concat()), 2);
    assert!(text.contains("1 of 2 images have 16 bits and use less than a quarter"), "{text}");
    assert!(text.contains("class \"bone\" is in no image, and counts for specificity alone"), "{text}");
    assert!(text.contains("needs a prompt predictor"), "all that was odd is allowed: {text}");
    // Told how many bits are in use, it has nothing to say of them; in less than these the picture does not go.
    let text = said(&eval(dir.path(), &[&args[..], &["--bits", "12"]].concat()), 2);
    assert!(text.contains("needs a prompt predictor") && !text.contains("16 bits"), "{text}");
    let text = said(&eval(dir.path(), &[&args[..], &["--bits", "11"]].concat()), 2);
    assert!(
        text.contains("a pixel of 4095, where 11 bits are said to be in use: expected 0 to 2047"),
        "{text}"
    );
    image(20_000).save(dir.path().join("data/imgs/p0.png")).expect("a picture");
    let text = said(&eval(dir.path(), &args), 2);
    assert!(!text.contains("16 bits"), "{text}");
}

#[test]
fn wrong_tables_are_refused_with_their_line() {
    let dir = folder();
    for name in ["lite_medsam.pth", "nerve-vessel.safetensors"] {
        let ours = format!("{}/weights/{name}", env!("CARGO_MANIFEST_DIR"));
        std::os::unix::fs::symlink(ours, dir.path().join(name)).expect("a link");
    }
    let good = "[[datasets]]\nname = \"P\"\ndata = \"data\"\n\
        classes = [{ name = \"nerve\", label = 1 }, { name = \"vessel\", label = 2 }]\n\
        [[models]]\nname = \"M\"\nweights = \"w.pth\"\n";
    for (from, to, expected) in [
        ("weights", "wheights", "unknown key models[0].wheights"),
        ("weights = \"w.pth\"", "", "models[0].weights = nothing: expected the checkpoint"),
        ("weights = \"w.pth\"", "weights = { Q = \"w.pth\" }", "for data sets: P (t.toml:7)"),
        (
            "weights = \"w.pth\"",
            "weights = \"w.pth\"\n[[models]]\nname = \"M\"",
            "a name that no other entry has (t.toml:9)",
        ),
        ("label = 1", "label = 0", "datasets[0].classes = an array: expected a list like"),
        ("[[models]]", "[[model]]", "unknown key model;"),
        (
            "weights = \"w.pth\"",
            "weights = \"w.pth\"\ndecoder = \"half\"",
            "\"frozen\" or \"lora\" or \"attention\" or \"full\" (t.toml:8)",
        ),
        (
            "weights = \"w.pth\"",
            "weights = \"lite_medsam.pth\"\nppn = \"nerve-vessel.safetensors\"",
            "the predictor was trained with another: expected decoder = \"attention\"",
        ),
        ("name = \"P\"", "name = \"P\"", "M on P: there are no weights at this path"),
        ("data = \"data\"", "data = \"data\"\npatient = \"_\"", "the data set \"P\": 2 of 2 names have no"),
    ] {
        std::fs::write(dir.path().join("t.toml"), good.replace(from, to)).expect("a file");
        let text = said(&eval(dir.path(), &["--tables", "t.toml", "--out", "t"]), 2);
        assert!(text.contains(expected), "{to}: {text}");
    }
    assert!(said(&eval(dir.path(), &["--tables", "t.toml"]), 2).contains("--out"));
    assert!(
        said(&eval(dir.path(), &["--tables", "t.toml", "--out", "t", "--mode", "box"]), 2).contains("--mode")
    );
}

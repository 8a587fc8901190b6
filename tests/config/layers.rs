//! Where every value comes from: defaults, presets, files, environment and arguments, and how it is printed.

use std::path::Path;
use std::time::Duration;

use sonomask::config::{
    Config, DisplayChoice, LoadArgs, Origin, PaceChoice, QueueChoice, TrainConfig, preset_names,
};
use sonomask::media::template::{Kind, Template};
use sonomask::segment::DeviceChoice;
use sonomask::weights::Checkpoint;

use super::{Env, load, refusal, sink_of, write};

#[test]
fn later_layers_win_and_every_value_knows_its_origin() {
    let (_dir, path) =
        write("preset = \"cine\"\n[model]\ndevice = \"cuda:1\"\nthreads = 2\nwatchdog = \"3s\"\n");
    let env = [("SONOMASK__MODEL__THREADS", "3"), ("SONOMASK__MODEL__WATCHDOG", "4s"), ("PATH", "/bin")];
    let config = load(Some("bedside"), Some(&path), &env, &["model.watchdog=5s"]).unwrap();
    assert_eq!(config.preset.as_deref(), Some("cine"));
    assert_eq!(config.stream.display, DisplayChoice::Paired);
    assert_eq!(config.model.device, DeviceChoice::Cuda(1));
    assert_eq!(config.model.threads, 3);
    assert_eq!(config.model.watchdog, Duration::from_secs(5));
    let origin = |key: &str| config.origin(key).to_string().replace(path.to_str().unwrap(), "c.toml");
    assert_eq!(origin("model.device"), "c.toml:3");
    assert_eq!(origin("model.threads"), "environment SONOMASK__MODEL__THREADS");
    assert_eq!(origin("model.watchdog"), "--set model.watchdog");
    assert!(origin("model.family").starts_with("preset cine:"));
    assert_eq!(load(None, None, &[], &[]).unwrap().origin("model.family"), Origin::Default);
}

#[test]
fn flags_win_over_everything() {
    let flags = [("model.device", "cpu".into(), "--device"), ("sink.path", "a \"b\".mp4".into(), "--output")];
    let set = ["model.device=cuda:0".to_owned()];
    let args =
        LoadArgs { preset: Some("cine"), file: None, env: std::iter::empty(), set: &set, flags: &flags };
    let config = Config::load(args).unwrap();
    assert_eq!(
        (config.model.device, config.origin("model.device").to_string()),
        (DeviceChoice::Cpu, "--device".to_owned())
    );
    assert_eq!(sink_of(&config).unwrap().records(), Some(Path::new("a \"b\".mp4")));
}

#[test]
fn a_preset_can_come_from_any_layer() {
    let (_dir, path) = write("preset = \"demo\"\n");
    let preset = |env: Env<'_>, set: &[&str]| load(None, Some(&path), env, set).unwrap().preset.unwrap();
    assert_eq!(preset(&[], &[]), "demo");
    assert_eq!(preset(&[("SONOMASK__PRESET", "cine")], &[]), "cine");
    assert_eq!(preset(&[("SONOMASK__PRESET", "cine")], &["preset=benchmark"]), "benchmark");
    assert_eq!(
        refusal("\npreset = \"bedsite\""),
        "there is no preset \"bedsite\"; there are bedside, cine, benchmark, demo, nerve-vessel (c.toml:2)"
    );
}

#[test]
fn every_preset_loads_passes_its_checks_and_names_every_key() {
    let everything: Vec<String> = keys(&load(None, None, &[], &[]).unwrap());
    for name in preset_names() {
        let config = load(Some(name), None, &[], &[]).unwrap();
        config.check(name == "bedside").unwrap();
        for key in &everything {
            assert!(matches!(config.origin(key), Origin::Preset(..)), "{name} does not have {key}");
        }
        // Parameters of its templates are real ones.
        let source = if name == "benchmark" { None } else { Some(config.source.kind.as_str()) };
        for (kind, name, params) in [
            (Kind::Source, source, &config.source.params),
            (Kind::Sink, Some(config.sink.kind.as_str()), &config.sink.params),
        ] {
            let Some(template) = name.map(|n| Template::builtin(kind, n).unwrap().unwrap()) else { continue };
            for (key, _) in params.iter() {
                assert!(template.params().iter().any(|p| p.name == key), "{key}");
            }
        }
    }
    let bedside = load(Some("bedside"), None, &[], &[]).unwrap();
    assert!(bedside.bind_source().unwrap().unwrap().is_live());
    assert_eq!(load(Some("benchmark"), None, &[], &[]).unwrap().bind_source().unwrap(), None);
}

/// `section.key` of every setting in effect.
fn keys(config: &Config) -> Vec<String> {
    let mut section = String::new();
    let mut out = Vec::new();
    for line in config.to_toml().lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            out.push(format!("{section}.{key}"));
        }
    }
    out
}

#[test]
fn the_printed_configuration_reads_back_the_same() {
    for name in preset_names() {
        let config = load(Some(name), None, &[], &["sink.odd key=1"]).unwrap();
        // Paths are printed whole: the text means the same files wherever it is saved.
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("configs")).unwrap();
        let path = dir.path().join("configs/c.toml");
        std::fs::write(&path, config.to_toml()).unwrap();
        let again = load(None, Some(&path), &[], &[]).unwrap();
        let here = std::path::absolute("weights/lite_medsam.pth").unwrap();
        assert_eq!(again.model.weights, Some(here));
        assert_eq!(
            (&again.model.family, again.model.watchdog),
            (&config.model.family, config.model.watchdog)
        );
        assert_eq!((again.stream, again.overlay), (config.stream, config.overlay));
        assert_eq!((again.phantom, again.source.kind), (config.phantom, config.source.kind));
        let boxes = |c: &[sonomask::config::ClassConfig]| {
            c.iter().map(|c| (c.name.clone(), c.color, c.bbox)).collect::<Vec<_>>()
        };
        assert_eq!(boxes(&again.classes), boxes(&config.classes));
    }
}

#[test]
fn secrets_are_not_printed() {
    let set = ["source.kind=srt", "source.uri=srt://a:1", "source.passphrase=7133771337"];
    let config = load(Some("bedside"), None, &[], &set).unwrap();
    assert!(config.to_toml().contains("# passphrase = (hidden) # --set source.passphrase"));
    assert!(!config.to_toml().contains("7133771337"));
    // A passphrase of digits is still a text.
    config.bind_source().unwrap();
    let message =
        load(None, None, &[], &["source.password=hunter2", "model.threads=x"]).unwrap_err().to_string();
    assert!(!message.contains("hunter2"));
}

#[test]
fn paths_are_relative_to_whoever_wrote_them() {
    let (dir, path) = write(
        "[model]\nweights = \"w/a.pth\"\n[sink]\nkind = \"record-mkv\"\npath = \"out.mkv\"\n[output]\nreport = \"/abs/r.json\"\n",
    );
    let config = load(Some("cine"), Some(&path), &[], &["output.masks=m"]).unwrap();
    assert_eq!(config.model.weights.as_deref(), Some(dir.path().join("w/a.pth").as_path()));
    assert_eq!(sink_of(&config).unwrap().records(), Some(dir.path().join("out.mkv").as_path()));
    assert_eq!(config.output.report.as_deref(), Some(Path::new("/abs/r.json")));
    assert_eq!(config.output.masks.as_deref(), Some(Path::new("m")));
    assert_eq!(config.output.contact_sheet, None);
    assert_eq!(
        load(Some("cine"), None, &[], &[]).unwrap().model.weights.as_deref(),
        Some(Path::new("weights/lite_medsam.pth"))
    );
}

#[test]
fn another_kind_does_not_inherit_parameters() {
    let set = ["source.path=odd \" name.mp4", "source.kind=file"];
    let config = load(Some("bedside"), None, &[], &set).unwrap();
    let bound = config.bind_source().unwrap().unwrap();
    assert!(!bound.is_live());
    assert_eq!(config.source.reconnect, Some(Duration::from_secs(2)));
    let config =
        load(Some("bedside"), None, &[], &["source.kind=v4l2", "source.device=/dev/video7"]).unwrap();
    assert_eq!(config.source.params.get("device").unwrap().value.as_str(), Some("/dev/video7"));
    assert!(config.source.params.get("io_mode").is_some());
}

#[test]
fn arrays_and_tables_can_be_set_from_the_command_line() {
    let set = [
        "classes=[{ name = \"v\", box = [1, 2, 3.5, 4], points = [{ x = 1, y = 2, positive = false }] }]",
        "phantom.seed=9",
    ];
    let config = load(Some("benchmark"), None, &[], &set).unwrap();
    assert_eq!(config.classes.len(), 1);
    assert_eq!(config.classes[0].bbox, Some([1.0, 2.0, 3.5, 4.0]));
    assert!(!config.classes[0].points[0].positive);
    assert_eq!(config.phantom["seed"].as_integer(), Some(9));
    assert_eq!(config.phantom["width"].as_integer(), Some(1280));
}

#[test]
fn pace_auto_follows_the_source_the_display_and_the_queue() {
    let config = |set: &[&str]| load(None, None, &[], set).unwrap();
    assert_eq!(config(&[]).source.pace, PaceChoice::Auto);
    assert_eq!(config(&[]).stream.queue, QueueChoice::Lossless);
    assert!(!config(&[]).realtime(false));
    assert!(config(&[]).realtime(true));
    assert!(config(&["stream.display=latest"]).realtime(false));
    assert!(config(&["stream.display=paired", "stream.queue=latest"]).realtime(false));
    assert!(config(&["source.pace=realtime"]).realtime(false));
    assert_eq!(config(&["source.reconnect=0s"]).source.reconnect, None);
}

#[test]
fn the_training_configurations_load_and_the_annotated_one_has_the_defaults() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let read = |file: &Path, set: &[String]| {
        let args = LoadArgs { preset: None, file: Some(file), env: std::iter::empty(), set, flags: &[] };
        TrainConfig::load(args).unwrap()
    };
    for (name, stages) in [("train-nerve-vessel", 3), ("train-phantom", 2)] {
        let config = read(&here.join(format!("{name}.toml")), &[]);
        assert!(config.spec.stages.len() == stages && config.spec.datasets.len() == 1, "{name}");
        // What a file that was trained with it carries names no folder of this machine.
        assert!(!config.portable().contains(env!("CARGO_MANIFEST_DIR")), "{}", config.portable());
    }
    // The recipes behind benches/results/training.md.
    for (name, stages) in [("frozen", 2), ("two-blocks", 3), ("kept-views", 3), ("new-views", 3)] {
        let config = read(&here.join(format!("../benches/training/{name}.toml")), &[]);
        assert!(config.spec.stages.len() == stages && config.spec.datasets.len() == 1, "{name}");
    }
    let shipped = Checkpoint::open(&here.join("../weights/nerve-vessel.safetensors")).unwrap();
    // Wherever its files went.
    let recipe = |file: &Path| {
        let text = read(file, &[]).portable();
        text.lines().filter(|line| !line.starts_with("out = ")).map(str::to_owned).collect::<Vec<_>>()
    };
    // What it was trained with, with the defaults of settings that came later.
    let (_dir, told) = write(&shipped.metadata()["config"]);
    let written = recipe(&here.join("train-nerve-vessel.toml"));
    assert_eq!(recipe(&told), written, "the file was trained by another recipe");
    let manual = read(&here.join("train.toml"), &[]);
    let (_dir, path) = write("[model]\nweights = \"w\"\n[[datasets]]\ndata = \"d\"\nclasses = [\"a\"]\n");
    let plain = read(&path, &[]);
    let values = |config: &TrainConfig, section: &str| {
        let text = config.portable();
        let from = text.find(section).unwrap();
        let rest = &text[from..];
        rest[..rest.find("\n[run]").unwrap_or(rest.len())].to_owned()
    };
    assert_eq!(values(&manual, "[predictor]"), values(&plain, "[predictor]"));
}

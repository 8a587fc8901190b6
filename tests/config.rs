//! Configuration: layers, provenance, refusals with their line.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use sonomask::config::{
    Config, ConfigError, DisplayChoice, LoadArgs, Origin, PaceChoice, QueueChoice, TrainConfig, preset_names,
};
use sonomask::media::template::{Bound, Kind, Template, TemplateError};
use sonomask::segment::DeviceChoice;
use sonomask::weights::Checkpoint;

type Env<'a> = &'a [(&'a str, &'a str)];

fn load(
    preset: Option<&str>,
    file: Option<&Path>,
    env: Env<'_>,
    set: &[&str],
) -> Result<Config, ConfigError> {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::load(LoadArgs { preset, file, env, set: &set, flags: &[] })
}

/// A folder with a file `c.toml` of this content.
fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

/// The sink's template with its values.
fn sink_of(config: &Config) -> Result<Bound, TemplateError> {
    Template::find(Kind::Sink, &config.sink.kind, &config.template_dirs)?.bind(&config.sink.params)
}

/// The refusal of a file, with its path shortened to `c.toml`.
fn refusal(text: &str) -> String {
    let (_dir, path) = write(text);
    load(None, Some(&path), &[], &[]).unwrap_err().to_string().replace(path.to_str().unwrap(), "c.toml")
}

/// The refusal by [`Config::check`] or, without a prompt predictor, [`Config::check_prompts`].
fn impossible(text: &str, live: bool) -> String {
    let (_dir, path) = write(text);
    let config = load(None, Some(&path), &[], &[]).unwrap();
    config
        .check(live)
        .and_then(|()| config.check_prompts(&[]))
        .unwrap_err()
        .to_string()
        .replace(path.to_str().unwrap(), "c.toml")
}

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
fn templates_beside_the_file_are_found_and_their_values_checked_with_the_line() {
    let (dir, path) = write("[source]\nkind = \"mine\"\nlevel = 11\n");
    std::fs::create_dir(dir.path().join("pipelines")).unwrap();
    let template =
        "#: param level: int(0..10) = 5 \"Level\"\nvideotestsrc horizontal-speed={level} ! videoconvert\n";
    std::fs::write(dir.path().join("pipelines/source-mine.launch"), template).unwrap();
    let message = load(None, Some(&path), &[], &[]).unwrap().bind_source().unwrap_err().to_string();
    assert_eq!(
        message,
        format!("source.level = 11: expected a whole number from 0 to 10 ({}:3)", path.display())
    );
    let message =
        load(None, Some(&path), &[], &["source.volume=1"]).unwrap().bind_source().unwrap_err().to_string();
    assert!(message.contains("no parameter \"volume\"; it has level (--set source.volume)"), "{message}");
}

#[test]
fn unknown_keys_and_wrong_values_are_refused_with_their_line() {
    const DURATION: &str = "a duration with a unit (ns, us, ms, s, min or h), \"200ms\" for example";
    for (text, message) in [
        ("[model]\n\ndevise = 1", "unknown key model.devise; expected enabled, family, weights, ppn, dataset, only, mode, presence_threshold, views, precision, input_size, max_hole_area, max_sprinkle_area, non_overlapping, device, threads, cuda_graphs, watchdog, restart_backoff, max_restarts (c.toml:3)".to_owned()),
        ("\n[modell]\nx = 1", "unknown key modell; expected preset, source, phantom, model, memory, classes, stream, overlay, sink, output (c.toml:2)".to_owned()),
        ("model.device = \"gpu\"", "model.device = \"gpu\": expected \"auto\", \"cpu\" or \"cuda:N\" (c.toml:1)".to_owned()),
        ("model = 3", "model = 3: expected a table (c.toml:1)".to_owned()),
        ("[model]\nthreads = -1", "model.threads = -1: expected a whole number from 0 to 256 (c.toml:2)".to_owned()),
        ("[model]\nthreads = \"4\"", "model.threads = \"4\": expected a whole number from 0 to 256 (c.toml:2)".to_owned()),
        ("[stream]\nmax_mask_age = 200", format!("stream.max_mask_age = 200: expected {DURATION}, at least 1ms, at most 24h (c.toml:2)")),
        ("[stream]\nmax_mask_age = \"200\"", format!("stream.max_mask_age = \"200\": expected {DURATION}, at least 1ms, at most 24h (c.toml:2)")),
        ("[model]\nwatchdog = \"0s\"", format!("model.watchdog = \"0s\": expected {DURATION}, at least 100ms, at most 24h (c.toml:2)")),
        ("[stream]\ndisplay_depth = 0", "stream.display_depth = 0: expected a whole number from 1 to 64 (c.toml:2)".to_owned()),
        ("[stream]\ndisplay = \"both\"", "stream.display = \"both\": expected \"paired\" or \"latest\" (c.toml:2)".to_owned()),
        ("[overlay]\nfill_alpha = 1.5", "overlay.fill_alpha = 1.5: expected a number from 0 to 1 (c.toml:2)".to_owned()),
        ("[overlay]\nfill_alpha = nan", "overlay.fill_alpha = nan: expected a number from 0 to 1 (c.toml:2)".to_owned()),
        ("[overlay]\nfill = 1", "overlay.fill = 1: expected true or false (c.toml:2)".to_owned()),
        ("[[classes]]\nname = \"a\"\ncolor = \"red\"", "classes[0].color = \"red\": expected a colour like \"#ffcc00\" (c.toml:3)".to_owned()),
        ("[[classes]]\nbox = [0, 0, 1, 1]", "classes[0].name = nothing: expected a name (c.toml:1)".to_owned()),
        ("[[classes]]\nname = \"a/b\"", "classes[0].name = \"a/b\": expected 1 to 64 characters without / and \\ (c.toml:2)".to_owned()),
        ("[[classes]]\nname = \"a\"\nbox = [5, 0, 1, 1]", "classes[0].box = an array: expected [x0, y0, x1, y1] in pixels, with x0 < x1 and y0 < y1 (c.toml:3)".to_owned()),
        ("[[classes]]\nname = \"a\"\nunits = \"fraction\"\nbox = [0, 0, 1, 2]", "classes[0].box = an array: expected [x0, y0, x1, y1] in fractions of the frame, 0 to 1, with x0 < x1 and y0 < y1 (c.toml:4)".to_owned()),
        ("[[classes]]\nname = \"a\"\n\n[[classes]]\nname = \"a\"", "two classes are named \"a\"; every class needs a name of its own (c.toml:1; c.toml:4)".to_owned()),
        ("[[classes]]\nname = \"a\"\npoints = [{ x = 1 }]", "classes[0].points = an array: expected at most 256 of { x = ..., y = ..., positive = true } in pixels (c.toml:3)".to_owned()),
        ("[source]\nkind = \"../x\"", "source.kind = \"../x\": expected the name of a template: letters, digits, - and _ (c.toml:2)".to_owned()),
        ("[output]\nmasks_format = \"tiff\"", "output.masks_format = \"tiff\": expected \"png\" or \"rle\" (c.toml:2)".to_owned()),
    ] {
        assert_eq!(refusal(text), message, "{text}");
    }
    let syntax = refusal("[model]\ndevice = \n");
    assert!(syntax.starts_with("not valid TOML: ") && syntax.ends_with("(c.toml:2)"), "{syntax}");
    let syntax = refusal("a = 99999999999999999999");
    assert!(syntax.ends_with("(c.toml:1)"), "{syntax}");
    assert!(refusal("[model]\nthreads = 1\nthreads = 2").ends_with("(c.toml:3)"));
}

#[test]
fn bad_overrides_name_the_argument() {
    let message = |env: Env<'_>, set: &[&str]| load(None, None, env, set).unwrap_err().to_string();
    assert_eq!(
        message(&[], &["model.device"]),
        "expected key=value, model.device=cpu for example (--set model.device)"
    );
    assert_eq!(
        message(&[], &["model..x=1"]),
        "expected key=value, model.device=cpu for example (--set model..x=1)"
    );
    assert_eq!(
        message(&[("SONOMASK__", "x")], &[]),
        "expected TABLE__KEY after SONOMASK__, SONOMASK__MODEL__DEVICE for example (environment SONOMASK__)"
    );
    assert_eq!(
        message(&[("SONOMASK__STREAM__DISPLAY_DEPTH", "many")], &[]),
        "stream.display_depth = \"many\": expected a whole number from 1 to 64 (environment SONOMASK__STREAM__DISPLAY_DEPTH)"
    );
    assert!(
        message(&[], &["model.threads.x=1"]).contains("model.threads = a table: expected a whole number")
    );
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
fn impossible_combinations_are_refused_with_both_places() {
    let class = "[[classes]]\nname = \"a\"\nbox = [0, 0, 9, 9]\n[model]\nweights = \"w\"\n";
    for (text, live, message) in [
        (
            "[source]\nkind = \"v4l2\"\n[stream]\nqueue = \"lossless\"",
            true,
            "stream.queue = \"lossless\" makes the source wait, and a live source cannot wait: expected \"latest\" (c.toml:4; c.toml:2)",
        ),
        (
            "[source]\npace = \"fast\"\n[stream]\nqueue = \"latest\"",
            true,
            "source.pace = \"fast\": a live source sets its own pace: expected \"auto\" or \"realtime\" (c.toml:2; default)",
        ),
        (
            "[source]\npace = \"fast\"\n[stream]\nqueue = \"latest\"\ndisplay = \"latest\"",
            false,
            "expected pace \"auto\" or \"realtime\", or display \"paired\" (c.toml:5; c.toml:2)",
        ),
        (
            "[source]\npace = \"fast\"\n[stream]\nqueue = \"latest\"",
            false,
            "expected pace \"auto\" or \"realtime\", or queue \"lossless\" (c.toml:4; c.toml:2)",
        ),
        (
            "[stream]\nqueue = \"latest\"\nno_signal = \"20ms\"",
            true,
            "expected \"0s\" (off) or at least \"100ms\" (c.toml:3)",
        ),
        (
            "[stream]\ndisplay = \"latest\"",
            false,
            "expected queue \"latest\", or display \"paired\" (c.toml:2; default)",
        ),
        (
            "[model]\nweights = \"w\"",
            false,
            "lite-medsam needs to be told what to segment: expected at least one [[classes]] with a box, points or a mask_prompt, or model.enabled = false (default)",
        ),
        (
            "[memory]\nenabled = true\n[model]\nweights = \"w\"",
            false,
            "memory.enabled = true, and lite-medsam has no memory: only SAM 2 and 2.1 can follow objects from frame to frame; expected one of their families, or memory.enabled = false (c.toml:2; default)",
        ),
        (
            "[memory]\nenabled = true\n[model]\nfamily = \"sam2-hiera-tiny\"\nviews = 3\nweights = \"w\"",
            false,
            "model.views = 3 with memory.enabled = true: a memory is of a frame as it is; expected 1 view, or no memory (c.toml:5; c.toml:2)",
        ),
        (
            "[model]\nweights = \"w\"\nmode = \"autonomous\"",
            false,
            "needs a prompt predictor, and neither model.ppn nor the weights have one: expected model.ppn, or mode \"manual\" (c.toml:3; default)",
        ),
        (
            "[[classes]]\nname = \"a\"\n[model]\nweights = \"w\"",
            false,
            "the class \"a\" has no prompt: lite-medsam expects a box, points or a mask_prompt (c.toml:1)",
        ),
        (
            "[[classes]]\nname = \"a\"\nbox = [0, 0, 1, 1]",
            false,
            "model.weights is not set: expected the weights file of lite-medsam, or model.enabled = false (default)",
        ),
        (
            &format!("{class}[sink]\nkind = \"record-mp4\"\npath = \"o\"\n[output]\nreport = \"o\""),
            false,
            "sink.path and output.report are the same path: expected two different ones (c.toml:8; c.toml:10)",
        ),
    ] {
        let found = impossible(text, live);
        assert!(found.contains(message), "{text}\n found {found}\n expected {message}");
    }
    let (_dir, path) = write("model.enabled = false");
    load(None, Some(&path), &[], &[]).unwrap().check(false).unwrap();
    let phantom = load(Some("benchmark"), None, &[], &["source.seed=1"])
        .unwrap()
        .bind_source()
        .unwrap_err()
        .to_string();
    assert_eq!(phantom, "source.seed = 1: the phantom takes its settings from [phantom] (--set source.seed)");
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
fn a_missing_file_is_one_clear_message() {
    let message = load(None, Some(Path::new("/nowhere/c.toml")), &[], &[]).unwrap_err().to_string();
    assert!(
        message.starts_with("cannot read the configuration: ") && message.ends_with(": /nowhere/c.toml"),
        "{message}"
    );
}

proptest! {
    #[test]
    fn garbage_never_panics(text in any::<String>()) {
        let (_dir, path) = write(&text);
        let _ = load(Some("cine"), Some(&path), &[], &[]);
    }

    #[test]
    fn nearly_right_toml_never_panics(
        lines in prop::collection::vec(
            "(\\[(source|model|memory|stream|overlay|sink|output|phantom)\\]|\\[\\[classes\\]\\]|(kind|device|box|points|color|name|pace|display|latency|watchdog|fill_alpha|preset) = (\"[ -~]{0,6}\"|-?[0-9]{1,20}|[0-9]\\.[0-9]|nan|true|\\[[0-9, ]{0,9}\\]|\\{ x = 1 \\}))",
            0..12,
        )
    ) {
        let (_dir, path) = write(&lines.join("\n"));
        if let Ok(config) = load(None, Some(&path), &[], &[]) {
            let _ = (config.check(true), config.check(false), config.bind_source(), sink_of(&config), config.to_toml());
        }
    }

    #[test]
    fn overrides_never_panic(argument in any::<String>(), value in any::<String>()) {
        let _ = load(Some("bedside"), None, &[("SONOMASK__SOURCE__DEVICE", &value)], &[&argument, &format!("sink.x={value}")]);
    }

    #[test]
    fn a_text_arrives_as_it_was_typed(value in "[^\0]{1,20}") {
        let config = load(None, None, &[], &["source.kind=rtsp", "source.uri=rtsp://h/", &format!("source.user={value}")]).unwrap();
        let bound = config.bind_source().unwrap().unwrap();
        let bin = bound.launch().unwrap();
        use gstreamer::prelude::*;
        let source = bin.iterate_elements().into_iter().flatten().find(|e| e.factory().unwrap().name() == "rtspsrc").unwrap();
        // TOML's own quotes are TOML.
        if toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|t| Some(t["v"].as_str()?.to_owned())).is_none() {
            prop_assert_eq!(source.property::<Option<String>>("user-id"), Some(value));
        }
    }
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
    for (name, stages) in [("frozen", 2), ("two-blocks", 3), ("kept-views", 3)] {
        let config = read(&here.join(format!("../benches/training/{name}.toml")), &[]);
        assert!(config.spec.stages.len() == stages && config.spec.datasets.len() == 1, "{name}");
    }
    let shipped = Checkpoint::open(&here.join("../weights/nerve-vessel.safetensors")).unwrap();
    let recipe = read(&here.join("train-nerve-vessel.toml"), &[]).portable();
    // What it was trained with, with the defaults of settings that came later.
    let (_dir, told) = write(&shipped.metadata()["config"]);
    assert_eq!(read(&told, &[]).portable(), recipe, "the file was trained by another recipe");
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

//! What is refused, and with which words: keys, values and combinations; any other text does no harm.

use std::path::Path;

use proptest::prelude::*;

use super::{Env, load, refusal, sink_of, write};

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
        // TOML's own quotes are TOML, with or without blanks around them.
        if toml::from_str::<toml::Table>(&format!("v = {}", value.trim())).ok().and_then(|t| Some(t["v"].as_str()?.to_owned())).is_none() {
            prop_assert_eq!(source.property::<Option<String>>("user-id"), Some(value));
        }
    }
}

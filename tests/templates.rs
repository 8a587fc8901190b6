//! Pipeline templates: no injection, sound built-ins, honest refusals, and recordings that keep their times.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use proptest::prelude::*;
use sonomask::media::launch::package_of;
use sonomask::media::template::{
    Bound, Kind, Live, Params, Template, TemplateError, alternatives, builtin_names,
};

fn builtin(kind: Kind, name: &str) -> Template {
    Template::builtin(kind, name).unwrap().unwrap()
}

fn params(toml: &str) -> Params {
    Params::from_table(&toml.parse().unwrap(), Path::new(""), "test.toml:1")
}

fn bound(kind: Kind, name: &str, toml: &str) -> Bound {
    builtin(kind, name).bind(&params(toml)).unwrap()
}

fn refusal(kind: Kind, text: &str, toml: &str) -> String {
    Template::parse(kind, "t", text, "t.launch").unwrap().bind(&params(toml)).unwrap_err().to_string()
}

fn malformed(text: &str) -> String {
    Template::parse(Kind::Sink, "t", text, "t.launch").unwrap_err().to_string()
}

/// Factory names of everything in the bin, sorted.
fn factories(bin: &gst::Bin) -> Vec<String> {
    let mut names: Vec<String> = bin
        .iterate_elements()
        .into_iter()
        .flatten()
        .map(|e| e.factory().unwrap().name().to_string())
        .collect();
    names.sort();
    names
}

fn only(bin: &gst::Bin, factory: &str) -> gst::Element {
    bin.iterate_elements().into_iter().flatten().find(|e| e.factory().unwrap().name() == factory).unwrap()
}

/// Every parameter without a default gets a value.
fn required(template: &Template) -> Params {
    let mut params = Params::default();
    for spec in template.params().iter().filter(|p| p.default.is_none()) {
        let value = match spec.name.as_str() {
            "path" => "some file.mp4",
            "uri" if template.name() == "rtsp" => "rtsp://camera.example/stream",
            "uri" => "srt://127.0.0.1:7001",
            "host" => "127.0.0.1",
            other => panic!("no value for {other}"),
        };
        params.set(&spec.name, value, "test");
    }
    params
}

#[test]
fn every_builtin_launches_with_one_ghost_pad_and_only_known_packages() {
    gst::init().unwrap();
    for kind in [Kind::Source, Kind::Sink] {
        for name in builtin_names(kind) {
            let template = builtin(kind, name);
            assert!(!template.doc().is_empty(), "{name}");
            for element in template.elements() {
                for element in alternatives(&element) {
                    assert!(package_of(element).is_some(), "{name}: no package for {element}");
                }
            }
            let bin = template
                .bind(&required(&template))
                .unwrap()
                .launch()
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            let (pads, pad) = match kind {
                Kind::Source => (bin.src_pads(), "src"),
                Kind::Sink => (bin.sink_pads(), "sink"),
            };
            assert_eq!(pads.iter().map(|p| p.name().to_string()).collect::<Vec<_>>(), [pad], "{name}");
            assert_eq!(bin.pads().len(), 1, "{name} has pads on both sides");
        }
    }
}

#[test]
fn every_word_of_every_enum_is_accepted_by_its_element() {
    gst::init().unwrap();
    for kind in [Kind::Source, Kind::Sink] {
        for name in builtin_names(kind) {
            let template = builtin(kind, name);
            for spec in template.params() {
                let sonomask::media::template::ParamType::Enum(words) = &spec.ty else { continue };
                for word in words {
                    let mut params = required(&template);
                    params.set(&spec.name, word.as_str(), "test");
                    match template.bind(&params).unwrap().launch() {
                        Ok(_) => {}
                        // Not every machine has every window system; the hint must still be right.
                        Err(TemplateError::NoElement { package: Some(_), .. }) => {}
                        Err(e) => panic!("{name}.{} = {word}: {e}", spec.name),
                    }
                }
            }
        }
    }
}

#[test]
fn live_and_recording_sources_are_told_apart() {
    assert!(!bound(Kind::Source, "file", "path = 'x'").is_live());
    assert!(bound(Kind::Source, "v4l2", "").is_live());
    assert_eq!(builtin(Kind::Source, "test").live(), &Live::Param("is_live".to_owned()));
    assert!(bound(Kind::Source, "test", "").is_live());
    assert!(!bound(Kind::Source, "test", "is_live = false").is_live());
    let recording = bound(Kind::Sink, "record-mp4", "path = 'out.mp4'");
    assert_eq!(recording.records(), Some(Path::new("out.mp4")));
    assert_eq!(bound(Kind::Sink, "null", "").records(), None);
}

#[test]
fn a_relative_path_belongs_to_the_folder_of_the_file_that_named_it() {
    let table = "path = 'loop.mp4'".parse().unwrap();
    let bound = builtin(Kind::Source, "file")
        .bind(&Params::from_table(&table, Path::new("/clinic"), "c.toml:3"))
        .unwrap();
    let bin = bound.launch().unwrap();
    assert_eq!(only(&bin, "filesrc").property::<String>("location"), "/clinic/loop.mp4");
}

fn nasty() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("\\".to_owned()),
        Just("!".to_owned()),
        Just(" ! ".to_owned()),
        Just("\n".to_owned()),
        Just(" fakesink name=x ".to_owned()),
        Just("{path}".to_owned()),
        Just(";".to_owned()),
        Just("=".to_owned()),
        Just(")".to_owned()),
        Just("(".to_owned()),
        Just("name=evil".to_owned()),
        Just("%s%n".to_owned()),
        "[^\0]{0,8}",
        "\\PC{0,8}",
    ];
    prop::collection::vec(part, 1..8).prop_map(|parts| parts.concat()).prop_filter("empty", |s| !s.is_empty())
}

proptest! {
    #[test]
    fn no_path_changes_the_pipeline(text in nasty()) {
        gst::init().unwrap();
        for (kind, name, element) in
            [(Kind::Source, "file", "filesrc"), (Kind::Sink, "record-mp4", "filesink"), (Kind::Sink, "record-mkv", "filesink")]
        {
            let template = builtin(kind, name);
            let launch = |text: &str| {
                let mut params = Params::default();
                params.set("path", text, "test");
                template.bind(&params).unwrap().launch().unwrap()
            };
            let (plain, odd) = (launch("a"), launch(&text));
            prop_assert_eq!(only(&odd, element).property::<String>("location"), text.clone());
            prop_assert_eq!(factories(&odd), factories(&plain));
        }
    }

    #[test]
    fn no_text_changes_the_pipeline(text in nasty()) {
        gst::init().unwrap();
        let template = builtin(Kind::Source, "rtsp");
        let launch = |text: &str| {
            let mut params = Params::default();
            params.set("uri", "rtsp://camera.example/stream", "test");
            params.set("user", text, "test");
            params.set("password", text, "test");
            template.bind(&params).unwrap().launch().unwrap()
        };
        let (plain, odd) = (launch("a"), launch(&text));
        prop_assert_eq!(only(&odd, "rtspsrc").property::<String>("user-id"), text.clone());
        prop_assert_eq!(only(&odd, "rtspsrc").property::<String>("user-pw"), text);
        prop_assert_eq!(factories(&odd), factories(&plain));
    }

    #[test]
    fn no_text_gets_through_a_checked_type(text in nasty()) {
        let refused = |kind, name: &str, param: &str| {
            let mut params = required(&builtin(kind, name));
            params.set(param, text.as_str(), "test");
            builtin(kind, name).bind(&params)
        };
        prop_assert!(refused(Kind::Source, "test", "width").is_err());
        prop_assert!(refused(Kind::Source, "test", "is_live").is_err());
        prop_assert!(refused(Kind::Source, "test", "pattern").is_err());
        // What a host may look like leaves nothing that means anything to the parser.
        if let Ok(bound) = refused(Kind::Sink, "rtp", "host") {
            prop_assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:%".contains(c)));
            prop_assert!(!bound.description().contains("host="));
        }
    }

    #[test]
    fn no_template_text_panics(text in "(#:? ?(param|case|live|records)? ?[a-z{}=:()|\" .!\n]{0,30}\n?){0,6}") {
        let _ = Template::parse(Kind::Source, "t", &text, "t.launch");
    }

    #[test]
    fn no_garbage_panics(text in any::<String>()) {
        let _ = Template::parse(Kind::Sink, "t", &text, "t.launch");
    }
}

#[test]
fn a_nul_is_refused() {
    let mut params = Params::default();
    params.set("path", "a\0b", "x.toml:2");
    assert!(
        builtin(Kind::Source, "file")
            .bind(&params)
            .unwrap_err()
            .to_string()
            .contains("expected a path (x.toml:2)")
    );
}

#[test]
fn wrong_values_are_refused_with_what_was_expected() {
    let text = "#: param n: int(0..64) = 3 \"N\"\n#: param t: duration_ms(0ms..10s) = \"1s\" \"T\"\n#: param c: enum(a|b|c) \"C\"\n\
                #: param f: float(0..1) = 0.5 \"F\"\n#: param r: fraction = 30 \"R\"\n#: param u: uri(rtsp) = \"\" \"U\"\n\
                fakesink num-buffers={n} blocksize={t} silent={c} location={u} a={f} b={r}\n";
    let at = "(test.toml:1)";
    for (toml, message) in [
        ("c = 'a'\nn = 65", format!("sink.n = 65: expected a whole number from 0 to 64 {at}")),
        ("c = 'a'\nn = '3'", format!("sink.n = \"3\": expected a whole number from 0 to 64 {at}")),
        ("c = 'd'", format!("sink.c = \"d\": expected \"a\", \"b\" or \"c\" {at}")),
        ("", "sink \"t\" needs sink.c: \"a\", \"b\" or \"c\" (C)".to_owned()),
        ("c = 'a'\nq = 1", format!("sink \"t\" has no parameter \"q\"; it has n, t, c, f, r, u {at}")),
        ("c = 'a'\nf = nan", format!("sink.f = nan: expected a number from 0 to 1 {at}")),
        (
            "c = 'a'\nr = '30/0'",
            format!("sink.r = \"30/0\": expected a frame rate, 30 or \"30000/1001\" for example {at}"),
        ),
        (
            "c = 'a'\nu = 'http://x'",
            format!("sink.u = \"http://x\": expected a URI that begins with rtsp:// {at}"),
        ),
        (
            "c = 'a'\nt = 200",
            format!(
                "sink.t = 200: expected a duration with a unit (ns, us, ms, s, min or h), \"200ms\" for example, from 0s to 10s {at}"
            ),
        ),
    ] {
        assert_eq!(refusal(Kind::Sink, text, toml), message);
    }
}

#[test]
fn a_secret_is_never_printed() {
    let text = "#: param s: secret \"S\"\nfakesink location={s}\n";
    let template = Template::parse(Kind::Sink, "t", text, "t.launch").unwrap();
    assert!(!refusal(Kind::Sink, text, "s = 7133").contains("7133"));
    assert!(!format!("{:?}", template.bind(&params("s = 'hunter2'")).unwrap()).contains("hunter2"));
}

#[test]
fn mistakes_in_a_template_are_refused_with_their_line() {
    let path = "#: param path: path \"P\"\n";
    for (text, message) in [
        (
            format!("{path}filesrc\nlocation=a{{path}}"),
            "{path} is free text and must be the whole value of a property",
        ),
        (format!("{path}a ! video/x-raw,format={{path}} ! b"), "{path} is free text"),
        (format!("{path}a location=\"{{path}}\""), "{path} is free text"),
        (
            format!("{path}a name={{path}}"),
            "the property \"name\" cannot be set from a text parameter (t.launch:2)",
        ),
        (format!("{path}{{path}} ! b"), "{path} is free text"),
        (format!("{path}location={{path}} a"), "belongs to no element (t.launch:2)"),
        (
            "a x={what}".to_owned(),
            "{what} is not declared; add a line #: param what: TYPE \"what it is for\" (t.launch:1)",
        ),
        ("a!b location=3".to_owned(), "cannot read \"a!b\""),
        ("a x=\"open".to_owned(), "is left open at the end (t.launch:1)"),
        (String::new(), "the description has no element (t.launch:1)"),
        ("#: param n: integer \"N\"\na".to_owned(), "there is no type \"integer\""),
        ("\n#: param n: int(5..1) \"N\"\na".to_owned(), "(t.launch:2)"),
        (
            "#: param n: int(0..9) = 10 \"N\"\na".to_owned(),
            "the default 10 of n is not a whole number from 0 to 9 (t.launch:1)",
        ),
        ("#: param kind: text \"K\"\na".to_owned(), "\"kind\" is a setting of sonomask itself (t.launch:1)"),
        (
            "#: wat = 1\na".to_owned(),
            "there is no \"wat\"; expected live, records, uses, param or case (t.launch:1)",
        ),
        ("#: records = true\na".to_owned(), "records = true needs a parameter \"path\" of type path"),
        (
            "#: case c x = a\na".to_owned(),
            "there is no parameter \"c\" that can be \"x\" and takes cases (t.launch:1)",
        ),
    ] {
        let found = malformed(&text);
        assert!(found.contains(message), "{text:?}\n found {found}\n expected {message}");
    }
}

#[test]
fn a_missing_element_comes_with_its_package() {
    let launch = |element: &str| {
        let text = format!("{element} ! fakesink");
        Template::parse(Kind::Sink, "t", &text, "mine.launch")
            .unwrap()
            .bind(&Params::default())
            .unwrap()
            .launch()
    };
    let message = launch("avdec_nothing").unwrap_err().to_string();
    let expected = "GStreamer has no element \"avdec_nothing\" here; install it with: apt-get install gstreamer1.0-libav (mine.launch)";
    assert_eq!(message, expected);
    assert!(
        launch("wholly-unknown")
            .unwrap_err()
            .to_string()
            .contains("install the GStreamer plugin that has it")
    );
}

#[test]
fn elements_that_only_some_values_need_are_told_with_the_value() {
    let display = builtin(Kind::Sink, "display");
    assert_eq!(display.elements(), ["autovideosink", "videoconvert", "waylandsink"]);
    let choice = |element: &str, setting: &str| (element.to_owned(), setting.to_owned());
    let mut found = display.elements_by_choice();
    found.sort();
    let expected = [
        choice("glimagesink", "output = \"gl\""),
        choice("kmssink", "output = \"kms\""),
        choice("ximagesink", "output = \"x11\""),
        choice("xvimagesink", "output = \"xv\""),
    ];
    assert_eq!(found, expected);
    let mkv = builtin(Kind::Sink, "record-mkv").elements_by_choice();
    assert_eq!(mkv, [choice("avenc_ffv1", "codec = \"ffv1\"")]);
    let udp = builtin(Kind::Source, "udp").elements_by_choice();
    for element in ["rtph265depay", "rtpjpegdepay", "rtpmp2tdepay"] {
        assert!(udp.iter().any(|(e, _)| e == element), "{udp:?}");
    }
    assert!(builtin(Kind::Sink, "null").elements_by_choice().is_empty());
}

#[test]
fn a_users_template_is_found_and_shadows_a_builtin() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = [dir.path().join("absent"), dir.path().to_owned()];
    std::fs::write(dir.path().join("sink-null.launch"), "# Mine.\nfakesink\n").unwrap();
    std::fs::write(dir.path().join("sink-own.launch"), "identity ! fakesink\n").unwrap();
    assert_eq!(Template::find(Kind::Sink, "null", &dirs).unwrap().doc(), "Mine.");
    assert_eq!(Template::find(Kind::Sink, "own", &dirs).unwrap().elements(), ["fakesink", "identity"]);
    assert!(!Template::find(Kind::Sink, "null", &[]).unwrap().doc().contains("Mine"));
    assert_eq!(Template::all(Kind::Sink, &dirs).len(), 7);
    let missing = Template::find(Kind::Sink, "nil", &dirs).unwrap_err().to_string();
    assert!(missing.contains("no sink named \"nil\"; there are display, null, own, record-mkv"), "{missing}");
    assert!(matches!(Template::find(Kind::Sink, "../null", &dirs), Err(TemplateError::NotFound { .. })));
}

/// Runs to the end of the stream; the first error otherwise.
fn run(pipeline: &gst::Pipeline) -> Result<(), String> {
    pipeline.set_state(gst::State::Playing).map_err(|e| e.to_string())?;
    let bus = pipeline.bus().unwrap();
    let message = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    let result = match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(()),
        Some(gst::MessageView::Error(e)) => Err(format!("{} {:?}", e.error(), e.debug())),
        _ => Err("neither an end nor an error in a minute".to_owned()),
    };
    pipeline.set_state(gst::State::Null).unwrap();
    result
}

/// What was decoded: PTS, duration, and the bytes of each frame.
struct Decoded {
    caps: gst::Caps,
    frames: Vec<(u64, Option<u64>, Vec<u8>)>,
}

/// Reads everything that comes out of `bin`.
fn decode(bin: &gst::Bin) -> Result<Decoded, String> {
    let pipeline = gst::Pipeline::new();
    let sink = gst_app::AppSink::builder().sync(false).build();
    pipeline.add_many([bin.upcast_ref::<gst::Element>(), sink.upcast_ref()]).unwrap();
    bin.link(&sink).unwrap();
    pipeline.set_state(gst::State::Playing).map_err(|e| e.to_string())?;
    let mut decoded = Decoded { caps: gst::Caps::new_empty(), frames: Vec::new() };
    let bus = pipeline.bus().unwrap();
    let mut error = None;
    // 30 seconds of silence are enough.
    for _ in 0..300 {
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(100)) else {
            error = bus.pop_filtered(&[gst::MessageType::Error]);
            if error.is_some() || sink.is_eos() {
                break;
            }
            continue;
        };
        let buffer = sample.buffer().unwrap();
        let bytes = buffer.map_readable().unwrap().to_vec();
        decoded.frames.push((
            buffer.pts().unwrap().nseconds(),
            buffer.duration().map(|d| d.nseconds()),
            bytes,
        ));
        decoded.caps = sample.caps_owned().unwrap();
    }
    let eos = sink.is_eos();
    pipeline.set_state(gst::State::Null).unwrap();
    match error.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Error(e)) => Err(e.error().to_string()),
        _ if !eos => Err("no end of stream".to_owned()),
        _ => Ok(decoded),
    }
}

fn decode_file(path: &Path) -> Result<Decoded, String> {
    let mut params = Params::default();
    params.set("path", path.to_str().unwrap(), "test");
    decode(&builtin(Kind::Source, "file").bind(&params).unwrap().launch().unwrap())
}

/// Irregular times, as a scanner that changes its frame rate has them.
fn irregular(count: u64) -> Vec<u64> {
    (0..count).map(|i| i * 33_300_000 + (i % 5) * (i % 3) * 1_700_000).collect()
}

/// Sends frames with `times` into the sink `name`, at the even size that the product would fix.
fn record(name: &str, toml: &str, format: &str, size: (i32, i32), times: &[u64]) -> Vec<Vec<u8>> {
    let bin = bound(Kind::Sink, name, toml).launch().unwrap();
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", format)
        .field("width", size.0)
        .field("height", size.1)
        .field("framerate", gst::Fraction::new(0, 1))
        .build();
    let fixed = bin.by_name("sonomask_fixed").unwrap();
    fixed.set_property(
        "caps",
        gst::Caps::builder("video/x-raw")
            .field("width", (size.0 + 1) / 2 * 2)
            .field("height", (size.1 + 1) / 2 * 2)
            .build(),
    );
    let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).build();
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([source.upcast_ref::<gst::Element>(), bin.upcast_ref()]).unwrap();
    source.link(&bin).unwrap();
    let info = gstreamer_video::VideoInfo::from_caps(&caps).unwrap();
    let mut sent = Vec::new();
    for (i, &pts) in times.iter().enumerate() {
        let end = times.get(i + 1).copied().unwrap_or(pts + 33_300_000);
        let bytes: Vec<u8> = (0..info.size()).map(|b| (b / 7 * (i + 3) % 251) as u8).collect();
        let mut buffer = gst::Buffer::from_slice(bytes.clone());
        let b = buffer.get_mut().unwrap();
        b.set_pts(gst::ClockTime::from_nseconds(pts));
        b.set_duration(gst::ClockTime::from_nseconds(end - pts));
        source.push_buffer(buffer).unwrap();
        sent.push(bytes);
    }
    source.end_of_stream().unwrap();
    run(&pipeline).unwrap();
    sent
}

fn assert_times(found: &Decoded, times: &[u64], within: Duration) {
    assert_eq!(
        found.frames.len(),
        times.len(),
        "{:?}",
        found.frames.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>()
    );
    for (i, ((pts, ..), expected)) in found.frames.iter().zip(times).enumerate() {
        let error = Duration::from_nanos(pts.abs_diff(*expected));
        assert!(error <= within, "frame {i}: {pts} instead of {expected}, {error:?} off");
    }
}

#[test]
fn an_mp4_keeps_every_frame_and_its_time() {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it's \"odd\" ! name.mp4");
    let times = irregular(40);
    let toml = toml::Table::from_iter([("path".to_owned(), path.to_str().unwrap().into())]).to_string();
    record("record-mp4", &toml, "RGBx", (161, 121), &times);
    let decoded = decode_file(&path).unwrap();
    // Half a tick of the file's clock, 1/90000 s.
    assert_times(&decoded, &times, Duration::from_nanos(5_556));
    let caps = decoded.caps.structure(0).unwrap();
    assert_eq!((caps.get::<i32>("width").unwrap(), caps.get::<i32>("height").unwrap()), (162, 122));
    assert_eq!(caps.get::<&str>("format").unwrap(), "I420");
    // What the file itself says, before a decoder guesses.
    let text = "#: param path: path \"P\"\nfilesrc location={path} ! qtdemux ! identity";
    let mut params = Params::default();
    params.set("path", path.to_str().unwrap(), "test");
    let bin = Template::parse(Kind::Source, "t", text, "t").unwrap().bind(&params).unwrap().launch().unwrap();
    let coded = decode(&bin).unwrap();
    assert_eq!(coded.caps.structure(0).unwrap().get::<&str>("profile").unwrap(), "high");
    for (i, (_, duration, _)) in coded.frames.iter().enumerate() {
        let expected = times.get(i + 1).map_or(33_300_000, |next| next - times[i]);
        assert!(
            duration.unwrap().abs_diff(expected) <= 11_112,
            "frame {i} lasts {duration:?} instead of {expected}"
        );
    }
}

#[test]
fn an_mkv_keeps_the_time_of_its_first_frame_and_an_mp4_counts_from_it() {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (sink, file, within, start) in
        [("record-mp4", "a.mp4", 5_556, 0), ("record-mkv", "a.mkv", 5_000, 700_000_000)]
    {
        let path = dir.path().join(file);
        let times = |start: u64| irregular(10).iter().map(|t| t + start).collect::<Vec<u64>>();
        record(sink, &format!("path = '{}'", path.display()), "I420", (64, 48), &times(700_000_000));
        assert_times(&decode_file(&path).unwrap(), &times(start), Duration::from_nanos(within));
    }
}

#[test]
fn an_mkv_keeps_every_frame_and_its_time() {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mkv");
    let times = irregular(40);
    record("record-mkv", &format!("path = '{}'", path.display()), "NV12", (160, 120), &times);
    // Half a tick of the file's clock, 10 us.
    assert_times(&decode_file(&path).unwrap(), &times, Duration::from_nanos(5_000));
}

#[test]
fn ffv1_keeps_every_bit() {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for format in ["I420", "BGRx", "GRAY8"] {
        let path = dir.path().join(format);
        let times = irregular(12);
        let sent = record(
            "record-mkv",
            &format!("codec = 'ffv1'\npath = '{}'", path.display()),
            format,
            (64, 48),
            &times,
        );
        let decoded = decode_file(&path).unwrap();
        assert_times(&decoded, &times, Duration::from_nanos(5_000));
        for (i, (sent, (.., found))) in sent.iter().zip(&decoded.frames).enumerate() {
            let keep = |bytes: &[u8]| -> Vec<u8> {
                // The fourth byte of BGRx means nothing.
                bytes
                    .iter()
                    .enumerate()
                    .filter(|(b, _)| format != "BGRx" || b % 4 != 3)
                    .map(|(_, v)| *v)
                    .collect()
            };
            assert!(keep(sent) == keep(found), "{format} frame {i} differs ({})", decoded.caps);
        }
    }
}

#[test]
fn a_source_whose_pads_come_late_can_be_started_again() {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mkv");
    // Sound as well: its pad must not take the place of the picture's.
    let text = format!(
        "matroskamux name=m ! filesink location={} \
         audiotestsrc num-buffers=40 ! audioconvert ! avenc_ac3 ! m. \
         videotestsrc num-buffers=15 ! video/x-raw,width=64,height=48 ! x264enc ! m.",
        path.display()
    );
    run(gst::parse::launch(&text).unwrap().downcast_ref().unwrap()).unwrap();
    let mut params = Params::default();
    params.set("path", path.to_str().unwrap(), "test");
    let bin = builtin(Kind::Source, "file").bind(&params).unwrap().launch().unwrap();
    let pipeline = gst::Pipeline::new();
    let sink = gst_app::AppSink::builder().sync(false).build();
    pipeline.add_many([bin.upcast_ref::<gst::Element>(), sink.upcast_ref()]).unwrap();
    bin.link(&sink).unwrap();
    for round in 0..3 {
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut frames = 0;
        while sink.try_pull_sample(gst::ClockTime::from_seconds(10)).is_some() {
            frames += 1;
        }
        assert_eq!((frames, sink.is_eos()), (15, true), "round {round}");
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn an_mkv_cut_off_in_the_middle_can_be_played_up_to_there() {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole.mkv"), dir.path().join("cut.mkv"));
    record(
        "record-mkv",
        &format!("codec = 'ffv1'\npath = '{}'", whole.display()),
        "I420",
        (160, 120),
        &irregular(60),
    );
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let frames = decode_file(&cut).unwrap().frames.len();
    assert!((20..=40).contains(&frames), "{frames} of 60 frames are left of half a file");
}

#[test]
fn the_test_source_delivers_what_it_promises() {
    gst::init().unwrap();
    let toml =
        "is_live = false\nframes = 25\nwidth = 322\nheight = 242\nrate = '30000/1001'\nformat = 'GRAY8'";
    let decoded = decode(&bound(Kind::Source, "test", toml).launch().unwrap()).unwrap();
    let times: Vec<u64> = (0..25).map(|i| i * 1_001_000_000 / 30).collect();
    assert_times(&decoded, &times, Duration::from_nanos(1));
    let caps = decoded.caps.structure(0).unwrap();
    assert_eq!((caps.get::<i32>("width").unwrap(), caps.get::<&str>("format").unwrap()), (322, "GRAY8"));
}

#[test]
fn rtp_and_srt_reach_their_sources() {
    gst::init().unwrap();
    for (sink, sink_toml, source, source_toml) in [
        ("rtp", "host = '127.0.0.1'\nport = 47311", "udp", "port = 47311\naddress = '127.0.0.1'"),
        ("srt", "uri = 'srt://127.0.0.1:47312'", "srt", "uri = 'srt://127.0.0.1:47312?mode=listener'"),
    ] {
        let receiver = gst::Pipeline::new();
        let appsink = gst_app::AppSink::builder().sync(false).build();
        let bin = bound(Kind::Source, source, source_toml).launch().unwrap();
        receiver.add_many([bin.upcast_ref::<gst::Element>(), appsink.upcast_ref()]).unwrap();
        bin.link(&appsink).unwrap();
        receiver.set_state(gst::State::Playing).unwrap();
        let sender = gst::Pipeline::new();
        let test = bound(Kind::Source, "test", "width = 160\nheight = 120").launch().unwrap();
        let out = bound(Kind::Sink, sink, sink_toml).launch().unwrap();
        sender.add_many([test.upcast_ref::<gst::Element>(), out.upcast_ref()]).unwrap();
        test.link(&out).unwrap();
        sender.set_state(gst::State::Playing).unwrap();
        for _ in 0..10 {
            let sample = appsink.try_pull_sample(gst::ClockTime::from_seconds(20));
            let sample = sample.unwrap_or_else(|| panic!("{sink}: nothing arrived"));
            assert_eq!(sample.caps().unwrap().structure(0).unwrap().get::<i32>("width").unwrap(), 160);
        }
        sender.set_state(gst::State::Null).unwrap();
        receiver.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn garbage_and_sound_alone_end_with_an_error() {
    gst::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (garbage, sound) = (dir.path().join("garbage.mp4"), dir.path().join("sound.mkv"));
    std::fs::write(&garbage, (0..100_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<_>>())
        .unwrap();
    let text = format!(
        "audiotestsrc num-buffers=20 ! audioconvert ! matroskamux ! filesink location={}",
        sound.display()
    );
    run(gst::parse::launch(&text).unwrap().downcast_ref().unwrap()).unwrap();
    for path in [&garbage, &sound, &dir.path().join("absent.mp4")] {
        assert!(decode_file(path).is_err(), "{}", path.display());
    }
}

//! What the stream costs without a model: the same GStreamer elements with and without sonomask between source and sink.
//!
//! A live test picture and an H.264 recording, at 720p and 1080p, at 30 frames/s. Every run is a process of its own, and
//! runs with and without sonomask alternate. Counted is the CPU time of the whole process (user and system, getrusage)
//! per frame, from the frame after the start-up to the end of the stream. Both sides read through the product's own
//! source templates; the side without ends in a `fakesink` at once.
//!
//! `cargo bench --bench stream` takes about four minutes and prints Markdown. `SONOMASK_BENCH_PAIRS` sets another number
//! of pairs, `SONOMASK_BENCH_FRAMES` another length.

use std::fmt::Display;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;
use sonomask::media::template::{Kind, Params, Template};
use sonomask::media::{Pace, SinkPipeline, SourcePipeline};
use sonomask::overlay::{Overlay, Style};
use sonomask::pipeline::{DisplayMode, ExchangeConfig, Plan, QueueMode, SidecarConfig, run};

/// Frames of start-up that are not counted.
const START: u32 = 30;
const FRAMES: u32 = 150;
const PAIRS: usize = 6;
const SIZES: [(u32, u32); 2] = [(1280, 720), (1920, 1080)];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--child", side, source] => child(side, source),
        // `cargo test --benches` only wants to know that it starts.
        _ if args.iter().any(|a| a == "--test") => {}
        _ => parent(),
    }
}

/// A setting from the environment.
fn setting<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn frames() -> u32 {
    setting("SONOMASK_BENCH_FRAMES", FRAMES).max(2 * START)
}

// --- the parent: pairs and the table ---

fn parent() {
    gst::init().expect("GStreamer starts");
    let pairs: usize = setting("SONOMASK_BENCH_PAIRS", PAIRS).max(1);
    let dir = tempfile::tempdir().expect("a folder");
    println!("{}, {} frames a run, {pairs} pairs", hardware(), frames());
    println!("load before: {}\n", load());
    println!(
        "| source | size | without, ms CPU a frame | with | difference pair by pair | more | added latency p50 / p99 / max, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (w, h) in SIZES {
        let file = dir.path().join(format!("{h}.mp4"));
        record(&file, w, h);
        measure("live test picture", &format!("{w}x{h}"), pairs, w, h);
        measure("H.264 file", file.to_str().expect("UTF-8"), pairs, w, h);
    }
    println!("\nload after: {}", load());
    println!("Each cell: median (lower to upper quartile).");
}

fn measure(name: &str, source: &str, pairs: usize, w: u32, h: u32) {
    let (mut without, mut with, mut more, mut share) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut latency: [Vec<f64>; 3] = Default::default();
    for pair in 0..pairs {
        // Either side goes first as often as the other.
        let mut sides = ["plain", "ours"];
        sides.rotate_left(pair % 2);
        let mut cost = [0.0; 2];
        for side in sides {
            let figures = spawn(side, source);
            cost[usize::from(side == "ours")] = figures[0];
            for (all, one) in latency.iter_mut().zip(&figures[1..]) {
                all.push(*one);
            }
        }
        let [a, b] = cost;
        without.push(a);
        with.push(b);
        more.push(b - a);
        share.push((b / a - 1.0) * 100.0);
    }
    let [p50, p99, max] = latency.map(|v| format!("{:.3}", quartiles(v)[1]));
    println!(
        "| {name} | {w}x{h} | {} | {} | {} | {} % | {p50} / {p99} / {max} |",
        cell(without, 3, false),
        cell(with, 3, false),
        cell(more, 3, true),
        cell(share, 1, true),
    );
}

fn spawn(side: &str, source: &str) -> Vec<f64> {
    let me = std::env::current_exe().expect("this bench's own path");
    let out = Command::new(me).args(["--child", side, source]).output().expect("a child process");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{side} {source}: {}", String::from_utf8_lossy(&out.stderr));
    text.split_whitespace().map(|v| v.parse().expect("a number")).collect()
}

fn cell(values: Vec<f64>, digits: usize, sign: bool) -> String {
    let show = |v: f64| if sign { format!("{v:+.digits$}") } else { format!("{v:.digits$}") };
    let [low, mid, high] = quartiles(values).map(show);
    format!("{mid} ({low} to {high})")
}

/// Lower quartile, median, upper quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|q| {
        let at = q * (values.len() - 1) as f64;
        let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
        low + (high - low) * at.fract()
    })
}

fn record(file: &Path, w: u32, h: u32) {
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc pattern=smpte75 num-buffers={} ! video/x-raw,format=I420,width={w},height={h},framerate=30/1 \
         ! timeoverlay ! videoconvert ! video/x-raw,format=I420 ! x264enc speed-preset=ultrafast bitrate=8000 ! h264parse ! mp4mux ! filesink location={}",
        frames(),
        file.display()
    ));
    play(&pipeline.expect("a recorder"));
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn hardware() -> impl Display {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown CPU", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{name}, {cores} cores, {}", gst::version_string())
}

// --- a child: one run ---

/// Prints milliseconds of CPU a frame, and p50, p99 and max of the added latency in milliseconds.
fn child(side: &str, source: &str) {
    gst::init().expect("GStreamer starts");
    let (bin, live) = source_bin(source);
    let spent = count(&bin);
    if side == "ours" {
        let [p50, p99, max] = ours(bin, live);
        println!("{} {p50} {p99} {max}", spent());
    } else {
        let pipeline = gst::Pipeline::new();
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", !live)
            .property("enable-last-sample", false)
            .build()
            .expect("a sink");
        pipeline.add_many([bin.upcast_ref::<gst::Element>(), &sink]).expect("a pipeline");
        bin.link(&sink).expect("a link");
        play(pipeline.upcast_ref());
        println!("{}", spent());
    }
}

/// The product's template for `source`: a size such as `1280x720` is the live test picture, anything else a file.
fn source_bin(source: &str) -> (gst::Bin, bool) {
    let mut params = Params::default();
    let number = |v: &str| v.parse::<u32>().ok();
    let size = source.split_once('x').and_then(|(w, h)| number(w).zip(number(h)));
    let name = match size {
        Some((w, h)) => {
            for (key, value) in [("width", w), ("height", h), ("frames", frames())] {
                params.set(key, i64::from(value), "the bench");
            }
            "test"
        }
        None => {
            params.set("path", source, "the bench");
            "file"
        }
    };
    let template = Template::builtin(Kind::Source, name).expect("a template").expect("that parses");
    (template.bind(&params).and_then(|b| b.launch()).expect("a source"), size.is_some())
}

/// Counts CPU time between the end of the start-up and the end of the stream, both seen at the end of `source`. The
/// answer is in milliseconds a frame.
fn count(source: &gst::Bin) -> impl Fn() -> f64 + use<> {
    let pad = source.static_pad("src").expect("a source pad");
    let (seen, begin, end) = (AtomicU32::new(0), Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
    let (begins, ends) = (begin.clone(), end.clone());
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        match &info.data {
            Some(gst::PadProbeData::Event(e)) if e.type_() == gst::EventType::Eos => {
                *ends.lock() = Some(used())
            }
            Some(gst::PadProbeData::Buffer(_)) if seen.fetch_add(1, Ordering::Relaxed) + 1 == START => {
                *begins.lock() = Some(used());
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    move || {
        let (begin, end) = (begin.lock().expect("enough frames"), end.lock().expect("an end"));
        (end - begin).as_secs_f64() * 1e3 / f64::from(frames() - START)
    }
}

/// User and system time of this process.
fn used() -> Duration {
    // SAFETY: rusage is plain data for which all zeros is valid, and getrusage writes only into it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn play(pipeline: &gst::Element) {
    let bus = pipeline.bus().expect("a bus");
    pipeline.set_state(gst::State::Playing).expect("it plays");
    for message in bus.iter_timed(gst::ClockTime::from_seconds(120)) {
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(e) => panic!("{}", e.error()),
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null).expect("it stops");
}

fn ours(source: gst::Bin, live: bool) -> [f64; 3] {
    let template = Template::builtin(Kind::Sink, "null").expect("a template").expect("that parses");
    let sink = template.bind(&Params::default()).and_then(|b| b.launch()).expect("a sink");
    let plan = Plan {
        source: SourcePipeline::from_bin(source, live, Pace::Realtime, false).expect("a source"),
        sink: SinkPipeline::new(sink, live).expect("a sink"),
        recording: None,
        exchange: ExchangeConfig {
            display: DisplayMode::Latest,
            queue: QueueMode::Latest,
            display_depth: 4,
            model_depth: 1,
        },
        model: None,
        overlay: Overlay::new(Style::off(), Vec::new()),
        classes: Vec::new(),
        max_mask_age: Duration::from_millis(200),
        sidecar: SidecarConfig::default(),
        latency: Duration::from_millis(20),
        reconnect: None,
        no_signal: None,
        tick: Duration::from_secs(1),
        tape: None,
        input: "bench".into(),
        output: "bench".into(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let finished = runtime.block_on(run(plan, |_| {}, std::future::pending())).expect("a run");
    let f = finished.report.frames;
    let all = u64::from(frames());
    assert_eq!((f.entered, f.out), (all, all), "{:?} {f:?}", finished.report.ended);
    let latency = finished.report.capture_to_push_ms;
    [latency.p50, latency.p99, latency.max]
}

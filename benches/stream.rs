//! What the stream costs without a model: the same GStreamer pipeline with and without sonomask between source and sink.
//!
//! For 720p and 1080p, from a test picture and from an H.264 recording, both paced at 30 frames/s: CPU time per frame of
//! the whole process (getrusage), pair by pair in turn, and the latency that sonomask adds (appsink callback to the
//! hand-over to the sink). Run with `cargo bench --bench stream`; prints Markdown.

use std::path::Path;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use sonomask::media::template::{Kind, Params, Template};
use sonomask::media::{Pace, SinkPipeline, SourcePipeline};
use sonomask::overlay::{Overlay, Style};
use sonomask::pipeline::{DisplayMode, ExchangeConfig, Finished, Plan, QueueMode, SidecarConfig, run};

const FRAMES: u32 = 90;
const PAIRS: usize = 4;
const SINK: &str = "fakesink sync=false";

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    gst::init().expect("GStreamer starts");
    let dir = tempfile::tempdir().expect("a folder");
    println!("{}", hardware());
    println!(
        "| source | size | without, ms CPU a frame | with | pair by pair, median (min to max) | added latency p50 / p99 / max, ms |"
    );
    println!("|---|---|---|---|---|---|");
    for (w, h) in [(1280, 720), (1920, 1080)] {
        let file = dir.path().join(format!("{h}.mp4"));
        record(&file, w, h);
        let test = format!(
            "videotestsrc pattern=ball num-buffers={FRAMES} ! video/x-raw,format=I420,width={w},height={h},framerate=30/1 ! identity"
        );
        let bin = |text: &str| gst::parse::bin_from_description(text, true).expect("a source");
        measure("test picture", &test, || bin(&test), w, h);
        // The same elements as the product's template for recordings.
        let film =
            format!("filesrc location={} ! decodebin ! deinterlace mode=auto ! videoconvert", file.display());
        let template = || {
            let mut params = Params::default();
            params.set("path", file.to_str().expect("UTF-8"), "the bench");
            let template = Template::builtin(Kind::Source, "file").expect("a template").expect("that parses");
            template.bind(&params).and_then(|b| b.launch()).expect("a source")
        };
        measure("H.264 file", &film, template, w, h);
    }
}

fn measure(name: &str, source: &str, make: impl Fn() -> gst::Bin, w: u32, h: u32) {
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..PAIRS {
        let a = cpu(|| plain(source));
        let b = cpu(|| last = Some(ours(make())));
        without.push(a);
        with.push(b);
        ratios.push(b / a);
    }
    let finished = last.expect("at least one pair");
    let f = finished.report.frames;
    assert_eq!(
        (f.entered, f.out),
        (u64::from(FRAMES), u64::from(FRAMES)),
        "{:?} {f:?}",
        finished.report.ended
    );
    let latency = &finished.report.capture_to_push_ms;
    let (low, high) = ratios.iter().fold((f64::MAX, 0.0_f64), |(l, h), r| (l.min(*r), h.max(*r)));
    println!(
        "| {name} | {w}x{h} | {:.3} | {:.3} | {:+.1} % ({:+.1} to {:+.1}) | {:.3} / {:.3} / {:.3} |",
        median(without),
        median(with),
        (median(ratios) - 1.0) * 100.0,
        (low - 1.0) * 100.0,
        (high - 1.0) * 100.0,
        latency.p50,
        latency.p99,
        latency.max,
    );
}

/// Milliseconds of CPU per frame while `work` runs.
fn cpu(work: impl FnOnce()) -> f64 {
    let before = used();
    work();
    (used() - before).as_secs_f64() * 1e3 / f64::from(FRAMES)
}

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

fn plain(source: &str) {
    let pipeline = gst::parse::launch(&format!("{source} ! fakesink sync=true")).expect("a pipeline");
    play(&pipeline);
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

fn ours(source: gst::Bin) -> Finished {
    let sink = gst::parse::bin_from_description(SINK, true).expect("a sink");
    let plan = Plan {
        source: SourcePipeline::from_bin(source, false, Pace::Realtime, false).expect("a source"),
        sink: SinkPipeline::new(sink, false).expect("a sink"),
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
        tick: Duration::from_secs(1),
        input: "bench".into(),
        output: "bench".into(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(plan, |_| {}, std::future::pending())).expect("a run")
}

fn record(file: &Path, w: u32, h: u32) {
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc pattern=smpte75 num-buffers={FRAMES} ! video/x-raw,format=I420,width={w},height={h},framerate=30/1 \
         ! timeoverlay ! videoconvert ! video/x-raw,format=I420 ! x264enc speed-preset=ultrafast bitrate=8000 ! h264parse ! mp4mux ! filesink location={}",
        file.display()
    ));
    play(&pipeline.expect("a recorder"));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn hardware() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown CPU", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{name}, {cores} cores, {}, {FRAMES} frames, {PAIRS} pairs\n", gst::version_string())
}

//! The program as its users call it: exit codes, messages, files.

#[path = "../program_support/mod.rs"]
mod program_support;

mod masks;
mod recordings;
mod refusals;
mod surroundings;
mod tables;

use std::path::Path;
use std::process::Output;

use gstreamer as gst;
use gstreamer::prelude::*;
use program_support::sonomask;
use serde_json::Value;
use sonomask::phantom::{Phantom, PhantomConfig};

fn run(dir: &Path, args: &[&str]) -> Output {
    sonomask(dir).args(args).output().expect("the program starts")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("a folder")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// Frames and sizes that a player would see.
fn decode(path: &Path) -> (usize, Option<(i32, i32)>) {
    gst::init().expect("GStreamer starts");
    let text = "filesrc name=src ! decodebin ! videoconvert ! video/x-raw,format=I420 ! appsink name=sink sync=false";
    let pipeline =
        gst::parse::launch(text).expect("a pipeline").downcast::<gst::Pipeline>().expect("a pipeline");
    pipeline.by_name("src").expect("src").set_property("location", path.to_str().expect("UTF-8"));
    let sink = pipeline.by_name("sink").and_downcast::<gstreamer_app::AppSink>().expect("an appsink");
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let (mut frames, mut size) = (0, None);
    while let Ok(sample) = sink.pull_sample() {
        frames += 1;
        let s = sample.caps().and_then(|c| c.structure(0)).expect("caps");
        size = Some((s.get("width").expect("width"), s.get("height").expect("height")));
    }
    pipeline.set_state(gst::State::Null).expect("it stops");
    (frames, size)
}

fn picture(path: &Path, width: usize, height: usize, index: u64) {
    let config = PhantomConfig { width, height, frames: None, ..PhantomConfig::default() };
    let image = Phantom::new(config).expect("a phantom").image(index);
    image::save_buffer(path, &image, width as u32, height as u32, image::ExtendedColorType::L8)
        .expect("a picture");
}

const NO_MODEL: [&str; 2] = ["--set", "model.enabled=false"];

//! Recordings that are written and read again: every frame, its time and, where the codec allows it, every bit.

use std::path::Path;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use sonomask::media::template::{Kind, Params, Template};

use super::{bound, builtin};

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

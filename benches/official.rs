//! Our side of `benches/official/compare.py`: one network, loaded once and asked for one frame at a time. See `peer.py` there for
//! the protocol.
//!
//! `official frames FILE WIDTH HEIGHT N` writes the phantom's frames that both sides get, gray, one after the other.
//! `official serve FAMILY WEIGHTS SIDE PRECISION MEMORY THREADS DEVICE GRAPHS FRAMES WIDTH HEIGHT X0 Y0 X1 Y1`: SIDE 0 is the family's
//! own, MEMORY `memory` or `none`, GRAPHS `graphs` or `none`: the encoder as a CUDA graph.

use std::fmt::Display;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::mask::ClassMask;
use sonomask::phantom::{Phantom, PhantomConfig};
use sonomask::segment::memory::MemorySettings;
use sonomask::segment::{DeviceChoice, Guidance, ModelSpec, Prompt, load};
use sonomask::stage::{Stage, StageTimes};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The arguments, one after the other.
struct Args<I>(I);

impl<I: Iterator<Item = String>> Args<I> {
    fn text(&mut self) -> Result<String> {
        self.0.next().ok_or_else(|| "an argument is missing, see benches/official.rs".into())
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self) -> Result<T> {
        let text = self.text()?;
        text.parse().map_err(|e| format!("{text}: {e}").into())
    }
}

fn frames(mut args: Args<impl Iterator<Item = String>>) -> Result<()> {
    let file = args.text()?;
    let (width, height, n) = (args.parsed()?, args.parsed()?, args.parsed::<u64>()?);
    let mut phantom = Phantom::new(PhantomConfig { width, height, ..PhantomConfig::default() })?;
    let all: Vec<u8> = (0..n).flat_map(|i| phantom.image(i)).collect();
    Ok(std::fs::write(file, all)?)
}

/// Packed low-res logits and mask: numbers of each, then `f32` and bytes, little-endian.
fn write(file: &Path, mask: &ClassMask) -> Result<()> {
    let logits = mask.logits.as_ref().map(|l| l.values.as_slice()).unwrap_or_default();
    let (width, height) = (mask.mask.width(), mask.mask.height());
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| u8::from(mask.mask.get(x, y))));
    let mut bytes = Vec::new();
    bytes.extend((logits.len() as u64).to_le_bytes());
    bytes.extend(logits.iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend(pixels);
    Ok(std::fs::write(file, bytes)?)
}

fn serve(mut args: Args<impl Iterator<Item = String>>) -> Result<()> {
    let family = args.parsed()?;
    let weights = args.text()?;
    let side = args.parsed::<usize>()?;
    let precision = args.parsed()?;
    let memory = args.text()? == "memory";
    let threads = args.parsed()?;
    let device = args.parsed::<DeviceChoice>()?;
    let cuda_graphs = args.text()? == "graphs";
    let all = std::fs::read(args.text()?)?;
    let (width, height) = (args.parsed::<usize>()?, args.parsed::<usize>()?);
    let bbox = [args.parsed::<f32>()?, args.parsed()?, args.parsed()?, args.parsed()?];
    let spec = ModelSpec {
        family: Some(family),
        input_size: (side > 0).then_some(side),
        precision,
        threads,
        memory: memory.then(MemorySettings::sam2),
        cuda_graphs,
        ..ModelSpec::new(weights)
    };
    let mut model = load(&spec, &device.resolve()?)?;
    let guidance = Guidance::manual(vec![Prompt { bbox: Some(bbox), ..Prompt::default() }]);
    // As a camera gives them: three bytes a pixel of RGB and one to fill up.
    let rgbx: Vec<Vec<u8>> =
        all.chunks_exact(width * height).map(|g| g.iter().flat_map(|&v| [v, v, v, 255]).collect()).collect();
    let mut out = std::io::stdout().lock();
    let (device, threads) = (&model.info().device, tch::get_num_threads());
    writeln!(out, r#"{{"ready": "sonomask", "device": "{device}", "threads": {threads}}}"#)?;
    out.flush()?;
    let mut last = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("frame", index)) => {
                let data = rgbx.get(index.parse::<usize>()?).ok_or("there is no such frame")?;
                let plane = Plane { data, stride: 4 * width };
                let start = Instant::now();
                let view =
                    ImageView::new(PixelFormat::Rgbx, width, height, YuvColor::default(), vec![plane])?;
                let mut times = StageTimes::default();
                last = model.segment(&view, &guidance, true, &mut times)?;
                let ms = start.elapsed().as_secs_f64() * 1e3;
                let stages: Vec<String> = Stage::ALL
                    .into_iter()
                    .filter_map(|s| Some(format!(r#""{}": {}"#, s.name(), times.get(s)? as f64 / 1e6)))
                    .collect();
                writeln!(out, r#"{{"ms": {ms}, "stages": {{{}}}}}"#, stages.join(", "))?;
            }
            Some(("answer", file)) => {
                write(Path::new(file), last.first().ok_or("there is no mask yet")?)?;
                writeln!(out, r#"{{"written": true}}"#)?;
            }
            _ => return Err(format!("{line:?}: expected frame or answer").into()),
        }
        out.flush()?;
    }
    Ok(())
}

fn main() -> Result<()> {
    sonomask::begin::with_settings();
    // compare.py reads there whether graphs could be had.
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr);
    log.with_ansi(false).init();
    let mut args = Args(std::env::args().skip(1).filter(|a| a != "--bench"));
    match args.0.next().as_deref() {
        Some("frames") => frames(args),
        // Not the main thread, as in a stream.
        Some("serve") => {
            let rest: Vec<String> = args.0.collect();
            let done = std::thread::spawn(move || serve(Args(rest.into_iter())).map_err(|e| e.to_string()));
            Ok(done.join().map_err(|_| "the network panicked")??)
        }
        _ => {
            println!("cargo bench --bench official: run by `make bench-official`");
            Ok(())
        }
    }
}

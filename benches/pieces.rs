//! What each piece of a frame costs: `cargo bench --bench pieces [-- FILTER]`.
//!
//! SAM 2.1 tiny at 512 and LiteMedSAM with weights made from a rule, in both precisions, and what comes before and after the
//! network. Pieces of SAM 2's encoder are timed inside whole runs of it, so that caches are as they are in use. `peak` is one
//! linear layer of 4096 x 384 to 1536, 4.8 GFLOP: what the hardware gives to the products that the network consists of. `hand-off` is a
//! frame's way from the source's callback through the model's queue, answered at once, to the compositor.

use std::hint::black_box;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use gstreamer as gst;
use sonomask::frame::{CaptureTime, FrameId, FrameMeta, ImageView, PixelFormat, Plane, Rgb, YuvColor};
use sonomask::media::{self, StreamFormat};
use sonomask::nn::{
    Attention, MaskSelection, PpnConfig, PpnForm, PromptPredictor, RECENT_FRAMES, Remembered,
    RememberedPointer, Sam, Sam2, Sam2Memory, SamFeatures,
};
use sonomask::pipeline::{DisplayMode, ExchangeConfig, HandOff, QueueMode};
use sonomask::segment::postprocess::Postprocess;
use sonomask::segment::preprocess::Preprocess;
use sonomask::weights::{DEFAULT_SEED, Family, Generated, Weights, WeightsError};
use tch::{Device, Kind, TchError, Tensor};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const FAMILY: Family = Family::Sam21HieraTiny;
const SIDE: i64 = 512;
const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
/// Frames of the scanner.
const FRAME: (usize, usize) = (1280, 720);
/// Pointers of a full bank.
const POINTERS: usize = 16;

/// The network with everything that is timed, in one precision.
struct Net {
    name: &'static str,
    kind: Kind,
    sam: Sam,
    memory: Sam2Memory,
    predictors: Vec<Predictor>,
}

/// A prompt predictor with the name of its form.
type Predictor = (&'static str, PpnForm, PromptPredictor);

/// One of each form, of two classes.
fn predictors(sam: &Sam, w: &Weights<'_>) -> std::result::Result<Vec<Predictor>, WeightsError> {
    let forms = [
        ("single-scale", PpnForm::SingleScale),
        ("high-res", PpnForm::HighRes),
        ("pyramid", PpnForm::Pyramid),
    ];
    let made = forms.map(|(name, form)| {
        let classes = vec!["nerve".to_owned(), "vessel".to_owned()];
        let config = sam.ppn_config(form, "generated", classes, PpnConfig::TOKENS);
        Ok((name, form, PromptPredictor::new(&w.pp("ppn"), &config)?))
    });
    made.into_iter().collect()
}

impl Net {
    fn new(name: &'static str, kind: Kind) -> std::result::Result<Self, WeightsError> {
        let generated = Generated::new(DEFAULT_SEED);
        let w = Weights::new(&generated, Device::Cpu).computing_in(kind);
        let sam = Sam::new(&w, FAMILY, Some(SIDE))?;
        let predictors = predictors(&sam, &w)?;
        Ok(Self { name, kind, memory: Sam2Memory::new(&w, FAMILY, SIDE)?, sam, predictors })
    }

    fn sam2(&self) -> Result<&Sam2> {
        self.sam.sam2().ok_or_else(|| "SAM 2 is what is timed".into())
    }
}

/// Time of one whole piece, over and over. A piece that fails is not timed.
fn time(
    c: &mut Criterion,
    group: &str,
    id: &str,
    mut piece: impl FnMut() -> std::result::Result<Tensor, TchError>,
) {
    if let Err(e) = piece() {
        return eprintln!("{group}/{id}: {e}");
    }
    c.benchmark_group(group).bench_function(id, |b| {
        b.iter(|| black_box(piece().map_err(|e| eprintln!("{group}/{id}: {e}"))));
    });
}

/// Steps of the trunk: the patches, then each block. What a step is part of, and whether it attends over all or in windows.
fn parts(step: usize) -> [Option<String>; 2] {
    let stages = [1, 3, 10, 12];
    let Some(block) = step.checked_sub(1) else { return [Some("patches".into()), None] };
    let stage = stages.iter().position(|&end| block < end).unwrap_or(3);
    let kind = match block {
        4 => Some("one block of stage 3, in windows".to_owned()),
        5 => Some("one block of stage 3, over all".to_owned()),
        _ => None,
    };
    [Some(format!("stage {}", stage + 1)), kind]
}

fn encoder(c: &mut Criterion, net: &Net, picture: &Tensor) -> Result<()> {
    let sam2 = net.sam2()?;
    let trunk = &sam2.image_encoder.trunk;
    let mut names: Vec<String> = Vec::new();
    for name in (0..=12).flat_map(parts).flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut group = c.benchmark_group(format!("encoder, {}", net.name));
    for name in names {
        group.bench_function(&name, |b| {
            b.iter_custom(|times| {
                let mut sum = Duration::ZERO;
                for _ in 0..times {
                    let (mut step, mut since) = (0, Instant::now());
                    let done = trunk.forward_traced(picture, |_| {
                        if parts(step).iter().flatten().any(|part| *part == name) {
                            sum += since.elapsed();
                        }
                        (step, since) = (step + 1, Instant::now());
                    });
                    black_box(done.map_err(|e| eprintln!("{e}"))).ok();
                }
                sum
            });
        });
    }
    group.finish();
    let maps = trunk.forward(picture)?;
    let group = format!("encoder, {}", net.name);
    time(c, &group, "neck", || {
        let [_, _, top] = sam2.image_encoder.neck.forward(&maps)?;
        Ok(top)
    });
    time(c, &group, "all", || Ok(sam2.encode_image(picture)?.embedding));
    Ok(())
}

/// The prompt predictors and the mask decoder of `sam`.
fn heads(
    c: &mut Criterion,
    group: &str,
    sam: &Sam,
    predictors: &[Predictor],
    features: &SamFeatures,
    selection: MaskSelection,
) -> Result<()> {
    let prompts = sam.prompt_encoder();
    for (name, form, predictor) in predictors {
        let levels = features.for_ppn(*form)?;
        time(c, group, &format!("prompt predictor, {name}, two classes"), || {
            let queries = predictor.learnable_prompts();
            Ok(predictor.forward(&levels, queries, prompts, /* train */ false)?.sparse)
        });
    }
    let corners = Tensor::from_slice(&[100.0f32, 120.0, 200.0, 220.0]).f_view([1, 4])?;
    let (sparse, dense) = prompts.forward(None, Some(&corners), None)?;
    time(c, group, "mask decoder, one box", || Ok(sam.decode(features, &sparse, &dense, selection)?.masks));
    Ok(())
}

/// LiteMedSAM: its encoder as a whole, and the heads.
fn lite(c: &mut Criterion, name: &str, kind: Kind) -> Result<()> {
    let generated = Generated::new(DEFAULT_SEED);
    let w = Weights::new(&generated, Device::Cpu).computing_in(kind);
    let sam = Sam::new(&w, Family::LiteMedSam, None)?;
    let side = sam.input_size();
    let picture = Tensor::f_rand([1, 3, side, side], F32)?;
    let group = format!("LiteMedSAM, {name}");
    time(c, &group, "encoder", || Ok(sam.encode(&picture, /* levels */ true, None)?.embedding));
    let features = sam.encode(&picture, /* levels */ true, None)?;
    heads(c, &group, &sam, &predictors(&sam, &w)?, &features, MaskSelection::Single)
}

/// Attention with its four projections, without the bias that TinyViT adds, in windows of the shapes that SAM 2.1 tiny has at 512 and LiteMedSAM.
fn windows(c: &mut Criterion, name: &str, kind: Kind) -> Result<()> {
    let generated = Generated::new(DEFAULT_SEED);
    let w = Weights::new(&generated, Device::Cpu).computing_in(kind);
    let shapes = [
        ("SAM 2.1 tiny, stage 1, 256 windows of 8 x 8, 96 wide", [256, 64, 96], 1),
        ("SAM 2.1 tiny, stage 3, 9 windows of 14 x 14, 384 wide", [9, 196, 384], 4),
        ("LiteMedSAM, stage 3, 25 windows of 14 x 14, 160 wide", [25, 196, 160], 5),
    ];
    for (i, (id, [count, cells, dim], heads)) in shapes.into_iter().enumerate() {
        let layer = Attention::new(&w.pp("windows").pp(i), dim, heads, 1)?;
        // As the norm before it leaves them.
        let x = Tensor::f_randn([count, cells, dim], F32)?.f_to_kind(kind)?;
        time(c, &format!("window attention, {name}"), id, || layer.forward(&x, &x, &x));
    }
    Ok(())
}

fn memory(c: &mut Criterion, net: &Net, picture: &Tensor) -> Result<()> {
    let top = net.sam2()?.encode_image(picture)?.top;
    let (_, _, h, w) = top.size4()?;
    let frame = Tensor::f_randn([1, 64, h, w], F32)?;
    let pointer = Tensor::f_randn([1, 256], F32)?;
    let ages = std::iter::once(None).chain((1..=RECENT_FRAMES).map(Some));
    let frames: Vec<_> = ages.map(|age| Remembered { features: &frame, age }).collect();
    let pointers: Vec<_> = (0..POINTERS)
        .map(|i| RememberedPointer { pointer: &pointer, ago: i as f64 / POINTERS as f64 })
        .collect();
    let memories = net.memory.recall(&frames, &pointers)?;
    let group = format!("memory, {}", net.name);
    time(c, &group, "attention, full bank", || net.memory.memory_attention.forward(&top, &memories));
    let logits = Tensor::f_randn([1, 1, 4 * h, 4 * w], F32)?;
    let present = Tensor::f_ones([1, 1], (Kind::Bool, Device::Cpu))?;
    time(c, &group, "encoder", || net.memory.remember(&top, &logits, &present, false));
    Ok(())
}

fn peak(c: &mut Criterion, net: &Net) -> Result<()> {
    let (rows, inputs, outputs) = (4096u64, 384u64, 1536u64);
    let of = |shape: [u64; 2]| Tensor::f_randn(shape.map(|n| n as i64), F32)?.f_to_kind(net.kind);
    let (x, weight) = (of([rows, inputs])?, of([outputs, inputs])?);
    let mut group = c.benchmark_group("peak");
    group.throughput(Throughput::Elements(2 * rows * inputs * outputs));
    group.bench_function(BenchmarkId::from_parameter(net.name), |b| {
        b.iter(|| black_box(x.f_linear(&weight, None::<Tensor>).map_err(|e| eprintln!("{e}"))));
    });
    group.finish();
    Ok(())
}

/// What comes before and after the network, on the CPU whatever the precision.
fn around(c: &mut Criterion) -> Result<()> {
    let (width, height) = FRAME;
    let luma: Vec<u8> = (0..width * height).map(|i| (i * 37 % 251) as u8).collect();
    let chroma = vec![128u8; width * height / 2];
    let planes = vec![Plane { data: &luma, stride: width }, Plane { data: &chroma, stride: width }];
    let view = ImageView::new(PixelFormat::Nv12, width, height, YuvColor::default(), planes)?;
    c.benchmark_group("around")
        .bench_function("NV12 720p to RGB", |b| b.iter(|| black_box(Rgb::from(&view))));
    let rgb = Rgb::from(&view);
    for (name, way, side) in [
        ("720p to SAM 2's input at 512", Preprocess::Sam2, 512),
        ("720p to SAM 2's input at 1024", Preprocess::Sam2, 1024),
        ("720p to LiteMedSAM's input", Preprocess::LiteMedSam, 256),
    ] {
        c.benchmark_group("around").bench_function(name, |b| {
            b.iter(|| black_box(way.input(&rgb, side).map_err(|e| eprintln!("{e}"))));
        });
    }
    let placement = Preprocess::Sam2.place(width, height, 512);
    let logits = Tensor::f_randn([1, 1, 128, 128], F32)?;
    time(c, "around", "logits to 720p", || Postprocess::Direct.at_frame_size(&logits, &placement));
    Ok(())
}

/// The hand-off of a frame and of its answer: on one thread, and with the wake-ups of a thread that answers. A frame's pixels are nobody's
/// concern: they are neither read nor copied.
fn hand_off(c: &mut Criterion) -> Result<()> {
    media::init()?;
    let caps = gst::Caps::from_str("video/x-raw,format=I420,width=1280,height=720,framerate=60/1")?;
    let format = Arc::new(StreamFormat::from_caps(&caps)?);
    let buffer = gst::Buffer::with_size(FRAME.0 * FRAME.1 * 3 / 2)?;
    let mut seq = 0;
    let mut offer = |to: &HandOff| {
        let id = FrameId { epoch: 0, seq };
        seq += 1;
        let meta = FrameMeta { id, pts: None, duration: None, capture: CaptureTime::now() };
        to.offer(meta, buffer.clone(), &format);
    };
    let config =
        |display| ExchangeConfig { display, queue: QueueMode::Latest, display_depth: 4, model_depth: 1 };
    let mut group = c.benchmark_group("hand-off");
    for (name, display) in
        [("paired, one thread", DisplayMode::Paired), ("latest, one thread", DisplayMode::Latest)]
    {
        let (hand_off, composing) = HandOff::new(config(display));
        group.bench_function(name, |b| {
            b.iter(|| {
                offer(&hand_off);
                black_box((hand_off.answer(), composing.take()))
            });
        });
    }
    let (hand_off, composing) = HandOff::new(config(DisplayMode::Paired));
    std::thread::scope(|scope| {
        scope.spawn(|| hand_off.answer_all());
        group.bench_function("paired, a thread that answers", |b| {
            b.iter(|| {
                offer(&hand_off);
                black_box(composing.take())
            });
        });
        hand_off.stop();
    });
    group.finish();
    Ok(())
}

fn main() -> Result<()> {
    sonomask::begin::with_settings();
    let _guard = tch::no_grad_guard();
    let mut c = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    hand_off(&mut c)?;
    around(&mut c)?;
    let picture = Tensor::f_randn([1, 3, SIDE, SIDE], F32)?;
    for (name, kind) in [("fp32", Kind::Float), ("bf16", Kind::BFloat16)] {
        let net = Net::new(name, kind)?;
        peak(&mut c, &net)?;
        windows(&mut c, name, kind)?;
        encoder(&mut c, &net, &picture)?;
        let features = SamFeatures::from(&net.sam2()?.encode_image(&picture)?);
        heads(
            &mut c,
            &format!("heads, {name}"),
            &net.sam,
            &net.predictors,
            &features,
            MaskSelection::Stable,
        )?;
        memory(&mut c, &net, &picture)?;
        lite(&mut c, name, kind)?;
    }
    c.final_summary();
    Ok(())
}

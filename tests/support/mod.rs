//! A run through real GStreamer with a stand-in for the model, and everything that came out of it.
#![allow(dead_code, reason = "every test file uses its own part of this")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use parking_lot::Mutex;
use sonomask::cine::{CineError, CineFrame, CineReader, Timing};
use sonomask::frame::{ImageView, Rgb};
use sonomask::mask::{ClassMask, Mask};
use sonomask::media::{Pace, ROI_PARAMS, SinkPipeline, SourcePipeline, StreamFormat};
use sonomask::overlay::{ClassStyle, Overlay, Style};
use sonomask::phantom::{Phantom, PhantomConfig, PhantomReader, read_stamp};
use sonomask::pipeline::{
    DisplayMode, ExchangeConfig, Finished, Guide, ModelFactory, Plan, QueueMode, SidecarConfig, WorkerConfig,
    run,
};
use sonomask::segment::{Guidance, MemoryCounts, ModelInfo, SegmentError, Segmenter};
use sonomask::stage::{Stage, StageTimes};
use sonomask::state::{Remark, Reset};

pub const CLASSES: [&str; 3] = ["nerve", "vessel", "bone"];

pub fn phantom_config(frames: u64) -> PhantomConfig {
    PhantomConfig {
        width: 160,
        height: 120,
        frames: Some(frames),
        motion_hz: 2.0,
        stamp: true,
        ..Default::default()
    }
}

/// What a stand-in does with the n-th frame it is given (over all restarts), before it answers.
pub type Mischief = Arc<dyn Fn(u32) -> Result<(), SegmentError> + Send + Sync>;

/// Reads the stamp off the very pixels it is given and answers with that frame's truth. It therefore cannot know
/// a frame's mask from anything but that frame.
pub struct Oracle {
    phantom: Phantom,
    info: ModelInfo,
    calls: Arc<AtomicU32>,
    mischief: Mischief,
    afterwards: Mischief,
    forgotten: Arc<Mutex<Vec<Option<Reset>>>>,
    memory: MemoryCounts,
}

impl Segmenter for Oracle {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn segment(
        &mut self,
        image: &ImageView<'_>,
        _guidance: &Guidance,
        _keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        (self.mischief)(call)?;
        let rgb = Rgb::from(image);
        let luma: Vec<u8> = rgb.data.chunks_exact(3).map(|p| p[1]).collect();
        let index = read_stamp(&luma, rgb.width, rgb.width, rgb.height)
            .ok_or_else(|| SegmentError::Other("the stamp cannot be read".into()))?;
        let truth = times.time(Stage::Encode, || self.phantom.truth(index));
        Ok(truth
            .into_iter()
            .enumerate()
            .map(|(class, t)| ClassMask { class, mask: t.mask, score: 1.0, presence: 1.0, logits: None })
            .collect())
    }

    fn forget(&mut self, why: Option<Reset>) {
        self.forgotten.lock().push(why);
    }

    fn memory(&self) -> Option<&MemoryCounts> {
        Some(&self.memory)
    }

    fn remark(&self) -> Option<Remark> {
        // The call that was answered last.
        (self.afterwards)(self.calls.load(Ordering::SeqCst).wrapping_sub(1)).ok();
        None
    }
}

pub struct OracleFactory {
    pub phantom: PhantomConfig,
    pub calls: Arc<AtomicU32>,
    pub mischief: Mischief,
    /// The same after the answer, when it is asked for remarks; an error is no remark.
    pub afterwards: Mischief,
    pub makes: AtomicU32,
    /// What the models were told to forget, in turn.
    pub forgotten: Arc<Mutex<Vec<Option<Reset>>>>,
}

impl OracleFactory {
    pub fn new(
        phantom: &PhantomConfig,
        mischief: impl Fn(u32) -> Result<(), SegmentError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::with(phantom, Arc::new(mischief), Arc::new(|_| Ok(())))
    }

    pub fn with(phantom: &PhantomConfig, mischief: Mischief, afterwards: Mischief) -> Arc<Self> {
        Arc::new(Self {
            phantom: phantom.clone(),
            calls: Arc::default(),
            mischief,
            afterwards,
            makes: AtomicU32::new(0),
            forgotten: Arc::default(),
        })
    }
}

impl ModelFactory for OracleFactory {
    fn make(&self) -> Result<Box<dyn Segmenter>, String> {
        self.makes.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Oracle {
            phantom: Phantom::new(self.phantom.clone()).map_err(|e| e.to_string())?,
            info: ModelInfo {
                family: "oracle".into(),
                weights_sha256: String::new(),
                input_size: 0,
                precision: "fp32".into(),
                parameters: 0,
                weights_bytes: 0,
                ppn: None,
                device: "cpu".into(),
            },
            calls: self.calls.clone(),
            mischief: self.mischief.clone(),
            afterwards: self.afterwards.clone(),
            forgotten: self.forgotten.clone(),
            memory: MemoryCounts::default(),
        }))
    }
}

/// One frame as it left the sink.
#[derive(Clone, Debug)]
pub struct Out {
    pub pts: Option<u64>,
    pub duration: Option<u64>,
    /// Index read off the picture, where the overlay left it readable.
    pub stamp: Option<u64>,
    /// `(class name, frame the mask was made from, age in ns, mask)` of each region of interest.
    pub regions: Vec<(String, u64, u64, Mask)>,
    pub rgb: Rgb,
    pub caps: String,
    pub reference_timestamps: usize,
}

pub fn collect() -> (gst::Bin, Arc<Mutex<Vec<Out>>>) {
    gst::init().expect("GStreamer starts");
    let out: Arc<Mutex<Vec<Out>>> = Arc::default();
    let bin = gst::parse::bin_from_description("appsink name=probe sync=false", true).expect("a plain bin");
    let probe = bin.by_name("probe").and_downcast::<gst_app::AppSink>().expect("an appsink");
    let store = out.clone();
    probe.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                store.lock().push(read(&sample));
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    (bin, out)
}

fn read(sample: &gst::Sample) -> Out {
    let buffer = sample.buffer().expect("a buffer");
    let caps = sample.caps().expect("caps");
    let format = StreamFormat::from_caps(caps).expect("raw video");
    let rgb = format.with_view(buffer, |v| Rgb::from(v)).expect("a picture");
    let luma: Vec<u8> = rgb.data.chunks_exact(3).map(|p| p[1]).collect();
    let regions = buffer
        .iter_meta::<gst_video::VideoRegionOfInterestMeta>()
        .map(|roi| {
            let p = roi.params().find(|s| s.name() == ROI_PARAMS).expect("our parameters");
            let rle: Vec<u32> = p
                .get::<String>("rle")
                .expect("rle")
                .split(',')
                .map(|v| v.parse().expect("a number"))
                .collect();
            let mask =
                Mask::from_rle(format.width(), format.height(), &rle).expect("runs that fill the mask");
            (roi.roi_type().to_owned(), p.get("frame").expect("frame"), p.get("age-ns").expect("age"), mask)
        })
        .collect();
    Out {
        pts: buffer.pts().map(|t| t.nseconds()),
        duration: buffer.duration().map(|t| t.nseconds()),
        stamp: read_stamp(&luma, rgb.width, rgb.width, rgb.height),
        regions,
        caps: caps.to_string(),
        reference_timestamps: buffer.iter_meta::<gst::ReferenceTimestampMeta>().count(),
        rgb,
    }
}

pub struct Setup {
    pub display: DisplayMode,
    pub queue: QueueMode,
    pub pace: Pace,
    pub style: Style,
    pub gray: bool,
    pub max_mask_age: Duration,
    pub watchdog: Duration,
    pub backoff: Duration,
    pub max_restarts: u32,
    pub no_signal: Option<Duration>,
    pub reconnect: Option<Duration>,
    /// What the sink takes for each frame.
    pub slow_sink: Option<Duration>,
    /// When the run is interrupted.
    pub patience: Option<Duration>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            display: DisplayMode::Paired,
            queue: QueueMode::Lossless,
            pace: Pace::Fast,
            style: Style::off(),
            gray: false,
            max_mask_age: Duration::from_millis(200),
            watchdog: Duration::from_secs(10),
            backoff: Duration::from_millis(20),
            max_restarts: 5,
            no_signal: None,
            reconnect: None,
            slow_sink: None,
            patience: None,
        }
    }
}

impl Setup {
    pub fn plan(self, source: SourcePipeline, sink: gst::Bin, factory: Arc<dyn ModelFactory>) -> Plan {
        let live = source.is_live();
        let classes: Vec<String> = CLASSES.iter().map(ToString::to_string).collect();
        let styles = CLASSES.iter().enumerate().map(|(i, c)| ClassStyle::new(*c, i)).collect();
        Plan {
            source,
            sink: SinkPipeline::new(sink, live).expect("a sink"),
            recording: None,
            exchange: ExchangeConfig {
                display: self.display,
                queue: self.queue,
                display_depth: 4,
                model_depth: 1,
            },
            model: Some((
                WorkerConfig {
                    classes: Vec::new(),
                    guide: Arc::new(Guide::constant(Guidance::default())),
                    watchdog: self.watchdog,
                    backoff: self.backoff,
                    max_restarts: self.max_restarts,
                },
                factory,
            )),
            overlay: Overlay::new(self.style, styles),
            classes,
            max_mask_age: self.max_mask_age,
            sidecar: SidecarConfig::default(),
            latency: Duration::from_millis(20),
            reconnect: self.reconnect,
            no_signal: self.no_signal,
            tick: Duration::from_millis(100),
            tape: None,
            input: "test".into(),
            output: "test".into(),
        }
    }

    pub fn phantom(self, config: &PhantomConfig, factory: Arc<dyn ModelFactory>) -> (Finished, Vec<Out>) {
        let reader = PhantomReader::new(config.clone()).expect("a phantom");
        self.reader(Box::new(reader), factory)
    }

    pub fn reader(self, reader: Box<dyn CineReader>, factory: Arc<dyn ModelFactory>) -> (Finished, Vec<Out>) {
        gst::init().expect("GStreamer starts");
        let source = SourcePipeline::from_reader(reader, self.pace, self.gray).expect("a source");
        self.source(source, factory)
    }

    /// Runs `source` to its end, or for as long as `patience` says.
    pub fn source(self, source: SourcePipeline, factory: Arc<dyn ModelFactory>) -> (Finished, Vec<Out>) {
        let (sink, out) = collect();
        if let Some(pause) = self.slow_sink {
            let pad = sink.by_name("probe").and_then(|e| e.static_pad("sink")).expect("the probe's pad");
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                std::thread::sleep(pause);
                gst::PadProbeReturn::Ok
            });
        }
        let patience = self.patience;
        let plan = self.plan(source, sink, factory);
        let stop = async move {
            match patience {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let finished = block_on(async { run(plan, |_| {}, stop).await });
        let out = std::mem::take(&mut *out.lock());
        (finished.expect("a run"), out)
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Frames in = out + dropped, and what came out is what was counted, slates beside.
#[track_caller]
pub fn assert_conserved(finished: &Finished, out: &[Out]) {
    let f = finished.report.frames;
    assert_eq!(f.entered, f.out + f.dropped, "{f:?}");
    assert_eq!((f.out + f.slates) as usize, out.len(), "{f:?}");
}

/// Every mask on `out` is, pixel for pixel, the truth of the frame it says it is of.
#[track_caller]
pub fn assert_masks_true(out: &[Out], phantom: &PhantomConfig) {
    let phantom = Phantom::new(phantom.clone()).expect("a phantom");
    for o in out {
        for (class, frame, _, mask) in &o.regions {
            let truth = phantom.truth(*frame);
            let truth = truth.iter().find(|t| t.class.name() == class).expect("a class of the phantom");
            assert_eq!(mask, &truth.mask, "{class} of frame {frame}");
        }
    }
}

/// All frames of a phantom.
pub fn frames_of(config: &PhantomConfig) -> VecDeque<CineFrame> {
    let mut reader = PhantomReader::new(config.clone()).expect("a phantom");
    std::iter::from_fn(|| reader.next_frame().expect("a frame")).collect()
}

/// A cine-loop played from memory, with an error at the end if there is one.
pub struct Playback {
    pub frames: VecDeque<CineFrame>,
    pub then: Option<String>,
}

impl CineReader for Playback {
    fn describe(&self) -> String {
        "playback".into()
    }
    fn frames(&self) -> usize {
        self.frames.len()
    }
    fn timing(&self) -> Timing {
        Timing::Assumed("test".into())
    }
    fn next_frame(&mut self) -> Result<Option<CineFrame>, CineError> {
        if let Some(frame) = self.frames.pop_front() {
            return Ok(Some(frame));
        }
        match self.then.take() {
            Some(reason) => Err(broken(&reason)),
            None => Ok(None),
        }
    }
}

fn broken(reason: &str) -> CineError {
    CineError::Io { action: "read", cause: std::io::Error::other(reason.to_owned()) }
}

//! SAM 2.1's memory against the reference implementation: block by block, then frame by frame against its video predictor.
//!
//! The weights are made by a rule, so no checkpoint is needed. `SONOMASK_FIXTURES` names another set of answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use std::collections::BTreeSet;

use fixture_support::{ENCODER, Fixture, LOGITS, sam2_input, sub_indices};
use sonomask::nn::{
    Memories, RotaryGrid, Sam2, Sam2Features, Sam2Memory, Tracked, given, sine_grid, sine_of_time,
};
use sonomask::segment::memory::{Found, Said, Tracker, TrackerSettings};
use sonomask::weights::{Family, Generated, Source, Weights, WeightsError};
use tch::{Device, Kind, Tensor};

/// Largest distance of low-resolution logits from the reference's, relative to their length, and the least share of equal signs.
const FRAME: (f64, f64) = (1e-2, 0.995);

/// Key of the bias that decides whether an object is there.
const SCORE_BIAS: &str = "sam_mask_decoder.pred_obj_score_head.layers.2.bias";

fn networks(source: &dyn Source, family: Family, side: i64) -> (Sam2, Sam2Memory) {
    let w = Weights::new(source, Device::Cpu);
    let nets = (Sam2::new(&w, family, side).unwrap(), Sam2Memory::new(&w, family, side).unwrap());
    w.finish().unwrap();
    nets
}

fn tiny(file: &Fixture, side: i64) -> (Sam2, Sam2Memory) {
    networks(&file.generated(), Family::Sam21HieraTiny, side)
}

#[test]
fn parity_sam21_memory_encoder() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let (_, memory) = tiny(&file, 1024);
    let top = file.input("fx.mem.pix_feat", &[1, 256, 64, 64], 2.0);
    let logits = file.raw("mem.in.low_logits");
    let high = logits.upsample_bilinear2d([1024, 1024], false, None, None);
    for (case, mask) in [("sigmoid", high.sigmoid()), ("binary", high.gt(0.0).to_kind(Kind::Float))] {
        let mask = mask * 20.0 - 10.0;
        let key = |what: &str| format!("mem.{case}.{what}");
        let downsampled = memory.memory_encoder.mask_downsampler().forward(&mask).unwrap();
        file.check(&key("downsampler"), &downsampled, ENCODER);
        file.check(&key("features"), &memory.memory_encoder.forward(&top, &mask).unwrap(), ENCODER);
    }
    file.check("mem.pos_enc", &sine_grid(64, [64, 64], Device::Cpu).unwrap(), ENCODER);
    for (case, score) in [("present", 3.0), ("absent", -3.0)] {
        let present = Tensor::from_slice(&[score]).view([1, 1]).gt(0.0);
        let features = memory.remember(&top, &logits, &present, false).unwrap();
        file.check(&format!("mem.encode_new.{case}"), &features, ENCODER);
    }
}

#[test]
fn parity_sam21_mask_prompts() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let nets = tiny(&file, 1024);
    let high = file.raw("mem.in.low_logits").upsample_bilinear2d([1024, 1024], false, None, None);
    let mask = high.gt(0.0).to_kind(Kind::Float);
    file.check("mask_downsample.out", &nets.1.mask_prompt(&mask).unwrap(), ENCODER);
    let embedding = file.input("fx.dec.image_embed", &[1, 256, 64, 64], 2.0);
    let s0 = file.input("fx.dec.s0", &[1, 32, 256, 256], 2.0);
    let s1 = file.input("fx.dec.s1", &[1, 64, 128, 128], 2.0);
    let found = given((&nets.0, &nets.1), &embedding, &(s0, s1), &mask).unwrap();
    file.check_logits("use_mask_as_output.low_res", &found.logits);
    file.check_raw("use_mask_as_output.obj_ptr", &found.pointer, ENCODER);
    file.check_raw("use_mask_as_output.obj_score", &found.object_score, LOGITS);
}

#[test]
fn parity_sam21_times_and_pointers() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let (_, memory) = tiny(&file, 1024);
    let times = Vec::<f32>::try_from(file.raw("tpos.in")).unwrap();
    file.check_raw("tpos.sine", &sine_of_time(&times, 256, Device::Cpu).unwrap(), ENCODER);
    file.check_raw("tpos.proj", &memory.time(&times).unwrap(), ENCODER);
    let token = file.input("fx.tok", &[2, 256], 2.0);
    let present = Tensor::ones([2, 1], (Kind::Bool, Device::Cpu));
    file.check_raw("obj_ptr_proj.out", &memory.pointer(&token, &present).unwrap(), ENCODER);
    for side in [64, 32] {
        let grid = RotaryGrid::new([side, side], Device::Cpu).unwrap();
        let parts = grid.turns().view_as_real();
        file.check(&format!("rope.{side}.real"), &parts.select(-1, 0).contiguous(), ENCODER);
        file.check(&format!("rope.{side}.imag"), &parts.select(-1, 1).contiguous(), ENCODER);
    }
}

#[test]
fn parity_sam21_memory_attention() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let attention = tiny(&file, 1024).1.memory_attention;
    let rows = |x: &Tensor| x.flatten(2, -1).permute([2, 0, 1]);
    let positions = sine_grid(256, [64, 64], Device::Cpu).unwrap();
    file.check("ma.curr_pos", &rows(&positions), ENCODER);
    let top = file.input("fx.ma.curr", &[4096, 1, 256], 2.0).permute([1, 2, 0]).reshape([1, 256, 64, 64]);
    for (case, frames, pointers) in [("m1p1", 1, 1), ("m7p16", 7, 16)] {
        let shape = [frames * 4096 + pointers * 4, 1, 64];
        let input =
            |what: &str, scale| file.input(&format!("fx.ma.{what}.{case}"), &shape, scale).transpose(0, 1);
        let memories = Memories {
            values: input("mem", 2.0),
            positions: input("mpos", 1.0),
            pointer_tokens: pointers * 4,
        };
        let out = attention.forward(&top, &memories).unwrap();
        file.check(&format!("ma.{case}.out"), &rows(&out), ENCODER);
        if case != "m1p1" {
            continue;
        }
        let keys = &memories.values + &memories.positions;
        let mut x = attention.queries(&top).unwrap();
        for (i, layer) in attention.layers().iter().enumerate() {
            let key = |what: &str| format!("ma.{case}.layer{i}.{what}");
            x = layer.itself(&x, attention.grid()).unwrap();
            file.check(&key("sa"), &x, ENCODER);
            x = layer.remembered(&x, &keys, &memories, attention.grid()).unwrap();
            file.check(&key("ca"), &x, ENCODER);
            x = layer.mlp(&x).unwrap();
            file.check(&key("out"), &x, ENCODER);
        }
    }
}

/// Objects that are looked at together answer as one by one.
#[test]
fn memories_of_several_objects_are_looked_at_together() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let attention = tiny(&file, 256).1.memory_attention;
    let top = file.input("top", &[1, 256, 16, 16], 2.0);
    let input = |what: &str, scale| file.input(what, &[3, 2 * 256 + 8, 64], scale);
    let (values, positions) = (input("values", 2.0), input("positions", 1.0));
    let together =
        Memories { values: values.shallow_clone(), positions: positions.shallow_clone(), pointer_tokens: 8 };
    let together = attention.forward(&top, &together).unwrap();
    for i in 0..3 {
        let one = Memories {
            values: values.narrow(0, i, 1),
            positions: positions.narrow(0, i, 1),
            pointer_tokens: 8,
        };
        let alone = attention.forward(&top, &one).unwrap();
        let error = (together.narrow(0, i, 1) - &alone).norm() / alone.norm();
        assert!(f64::try_from(error).unwrap() < 1e-5, "object {i}");
    }
}

/// SAM 2.1's weights, with an object score that says no.
#[derive(Debug)]
struct NeverThere<'a>(&'a Generated);

impl Source for NeverThere<'_> {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let tensor = self.0.read(name, shape)?;
        Ok(if name == SCORE_BIAS { tensor.full_like(-6.0) } else { tensor })
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.0.shape(name)
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }
}

/// A video of the answers, its frames encoded once.
struct Clip {
    file: Fixture,
    nets: (Sam2, Sam2Memory),
    frames: Vec<Sam2Features>,
    family: Family,
    side: i64,
    /// Largest distance and smallest share of equal signs so far.
    worst: (f64, f64),
    checked: usize,
}

const SIZE: [i64; 2] = [240, 320];

impl Clip {
    fn open(name: &str, family: Family, side: i64) -> Self {
        let file = Fixture::open(name);
        let nets = networks(&file.generated(), family, side);
        let gray = file.raw("frames_gray");
        let frames = (0..gray.size()[0])
            .map(|t| {
                let x = (gray.select(0, t).to_kind(Kind::Float) / 255.0).view([1, 1, 240, 320]);
                let x = sam2_input(&x.expand([1, 3, 240, 320], false), side);
                if t == 0 {
                    file.check("input0", &x.squeeze_dim(0), ENCODER);
                }
                nets.0.encode_image(&x).unwrap()
            })
            .collect();
        Self { file, nets, frames, family, side, worst: (0.0, 1.0), checked: 0 }
    }

    /// Positions in pixels of the picture to the input's.
    fn to_input(&self, points: &[f64]) -> Tensor {
        let [h, w] = SIZE.map(|n| n as f64);
        let side = self.side as f64;
        let scaled: Vec<f32> =
            points.chunks(2).flat_map(|p| [(p[0] / w * side) as f32, (p[1] / h * side) as f32]).collect();
        Tensor::from_slice(&scaled).view([1, -1, 2])
    }

    fn points(&self, points: &[f64], labels: &[i64]) -> Said {
        Said::Points(self.to_input(points), Tensor::from_slice(labels).view([1, -1]))
    }

    /// The first object's box on a frame.
    fn bbox(&self, frame: i64) -> Vec<f64> {
        let boxes = self.file.raw("boxes_px").select(0, frame).select(0, 0);
        Vec::try_from(boxes.to_kind(Kind::Double)).unwrap()
    }

    fn box_said(&self, frame: i64) -> Said {
        self.points(&self.bbox(frame), &[2, 3])
    }

    /// Compares the logits of a frame if there are answers for it.
    fn check(&mut self, key: &str, tracked: &Tracked) {
        if !self.file.answers(&format!("{key}.low")) {
            return;
        }
        let ours = Vec::<f64>::try_from(tracked.logits.to_kind(Kind::Double).flatten(0, -1)).unwrap();
        let theirs = self.file.values(&format!("{key}.low.sub"));
        let at = sub_indices(ours.len(), theirs.len());
        let difference: f64 = at.iter().zip(&theirs).map(|(&i, v)| (ours[i] - v).powi(2)).sum();
        let length: f64 = theirs.iter().map(|v| v * v).sum();
        let distance = (difference / length).sqrt();
        let bits = Vec::<u8>::try_from(self.file.raw(&format!("{key}.low.signbits")).view(-1)).unwrap();
        let equal =
            ours.iter().enumerate().filter(|&(i, v)| (bits[i / 8] >> (i % 8) & 1 == 1) == (*v > 0.0)).count();
        let equal = equal as f64 / ours.len() as f64;
        println!("{:<28} {key:<32} distance {distance:.2e}, equal signs {equal:.5}", self.file.name);
        assert!(distance <= FRAME.0 && equal >= FRAME.1, "{key}: distance {distance}, equal signs {equal}");
        if self.file.has(&format!("{key}.score")) {
            self.file.check_raw(&format!("{key}.score"), &tracked.object_score, FRAME.0);
            self.file.check_raw(&format!("{key}.obj_ptr"), &tracked.pointer, FRAME.0);
        }
        self.worst = (self.worst.0.max(distance), self.worst.1.min(equal));
        self.checked += 1;
    }

    fn tracker(&self, settings: TrackerSettings) -> Tracker {
        // The reference knows how long the clip is, and gives times in parts of that.
        Tracker::new(TrackerSettings { longest: self.frames.len() as u64 - 1, ..settings })
    }

    /// One frame: objects are followed, what is `said` of them is taken in, everything is remembered.
    fn step(
        &mut self,
        tracker: &mut Tracker,
        case: &str,
        frame: usize,
        said: &[(usize, Said)],
        never_there: Option<&(Sam2, Sam2Memory)>,
    ) -> Vec<Found> {
        let (net, memory) = never_there.unwrap_or(&self.nets);
        let video = (net, memory);
        let features = &self.frames[frame];
        let recalled = tracker.recall(video, features).unwrap();
        let mut found = Tracker::follow(video, features, &recalled).unwrap();
        for (object, said) in said {
            let before = found.iter().position(|f| f.object == *object);
            let told = Tracker::told(video, features, *object, said, before.map(|i| &found[i])).unwrap();
            match before {
                Some(i) => found[i] = told,
                None => found.push(told),
            }
        }
        tracker.remember(video, features, &found, &BTreeSet::new()).unwrap();
        for f in &found {
            self.check(&format!("{case}.obj{}.f{frame:02}", f.object), &f.tracked);
        }
        found
    }

    fn said_at_first(
        &mut self,
        case: &str,
        settings: TrackerSettings,
        said: &[(usize, Said)],
        frames: usize,
    ) {
        let mut tracker = self.tracker(settings);
        for frame in 0..frames {
            let said = if frame == 0 { said } else { &[] };
            self.step(&mut tracker, case, frame, said, None);
        }
    }

    fn corrected(&mut self, case: &str, settings: TrackerSettings) {
        let mut tracker = self.tracker(settings);
        let mut points = self.bbox(6);
        points.extend(self.file.values(&format!("{case}.points_px")));
        for frame in 0..12 {
            let said = match frame {
                0 => vec![(1, self.box_said(0))],
                6 => vec![(1, self.points(&points, &[2, 3, 1, 0]))],
                _ => Vec::new(),
            };
            let found = self.step(&mut tracker, case, frame, &said, None);
            if frame == 6 {
                self.check(&format!("{case}.add"), &found[0].tracked);
                self.check(&format!("{case}.obj1.f06.corrected"), &found[0].tracked);
            }
        }
    }

    fn absent(&mut self) {
        let generated = self.file.generated();
        let never = networks(&NeverThere(&generated), self.family, self.side);
        let mut tracker = self.tracker(TrackerSettings::SAM2);
        let said = [(1, self.box_said(0))];
        self.step(&mut tracker, "absent", 0, &said, None);
        for frame in 1..4 {
            self.step(&mut tracker, "absent", frame, &[], Some(&never));
        }
    }

    fn mask(&mut self) {
        let mask = self.file.raw("mask0").view([1, 1, 240, 320]).to_kind(Kind::Float);
        let side = self.side;
        let mask = mask.internal_upsample_bilinear2d_aa([side, side], false, None, None).ge(0.5);
        self.said_at_first("mask0", TrackerSettings::SAM2, &[(1, Said::Mask(mask.to_kind(Kind::Float)))], 5);
    }

    fn done(self, frames: usize) {
        let (distance, equal) = self.worst;
        println!("{}: {} frames, worst {distance:.2e}, {equal:.5}", self.file.name, self.checked);
        assert_eq!(self.checked, frames, "{}: frames with answers", self.file.name);
    }
}

#[test]
fn parity_sam21_tiny_512_video() {
    let _guard = tch::no_grad_guard();
    let mut clip = Clip::open("sam21_tiny_512_video", Family::Sam21HieraTiny, 512);
    let sam2 = TrackerSettings::SAM2;
    let first = |clip: &Clip| [(1, clip.box_said(0))];
    let said = first(&clip);
    clip.said_at_first("box1_f32mem", TrackerSettings { storage: Kind::Float, ..sam2 }, &said, 12);
    clip.said_at_first("box1", sam2, &said, 12);
    let second = clip.file.values("two.obj2.points_px");
    let both = [(1, clip.box_said(0)), (2, clip.points(&second, &[1, 0]))];
    clip.said_at_first("two", sam2, &both, 12);
    clip.corrected("corr_default", sam2);
    clip.corrected("corr_cond", TrackerSettings { corrections_are_prompted: true, ..sam2 });
    clip.mask();
    clip.absent();
    // Backwards is forwards on the frames in turn.
    let mut tracker = clip.tracker(sam2);
    for (place, frame) in (0..6).rev().enumerate() {
        let said = if place == 0 { vec![(1, clip.box_said(5))] } else { Vec::new() };
        clip.step(&mut tracker, "rev", frame, &said, None);
    }
    // A video that never ends.
    let mut tracker = Tracker::new(sam2);
    for frame in 0..12 {
        let said = if frame == 0 { vec![(1, clip.box_said(0))] } else { Vec::new() };
        clip.step(&mut tracker, "stream", frame, &said, None);
    }
    // What is no number is not remembered, and the object beside it is.
    let (features, video) = (&clip.frames[0], (&clip.nets.0, &clip.nets.1));
    let told = |object| Tracker::told(video, features, object, &clip.box_said(0), None).unwrap();
    let mut found = [told(1), told(2)];
    found[0].tracked.pointer = found[0].tracked.pointer.full_like(f64::NAN);
    let mut tracker = Tracker::new(sam2);
    tracker.remember(video, features, &found, &BTreeSet::new()).unwrap();
    assert_eq!((tracker.objects().collect::<Vec<_>>(), tracker.len().0), (vec![2], 1));
    // What begins anew replaces what was remembered, unless it is no number or cannot be remembered.
    let anew = BTreeSet::from([2]);
    let more = [told(2)];
    tracker.remember(video, features, &more, &BTreeSet::new()).unwrap();
    assert_eq!(tracker.len().0, 2);
    let mut bad = [told(2)];
    bad[0].tracked.pointer = bad[0].tracked.pointer.full_like(f64::NAN);
    tracker.remember(video, features, &bad, &anew).unwrap();
    bad[0].tracked.logits = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    assert!(tracker.remember(video, features, &bad, &anew).is_err());
    assert_eq!(tracker.len().0, 2);
    tracker.remember(video, features, &more, &anew).unwrap();
    assert_eq!(tracker.len().0, 1);
    clip.done(89);
}

/// The size that SAM 2 was made for. It takes minutes, so the answers are not in the repository: this speaks only where
/// `SONOMASK_FIXTURES` has them.
#[test]
fn parity_sam21_1024_videos_of_another_set() {
    let _guard = tch::no_grad_guard();
    for (name, family) in [
        ("sam21_tiny_1024_video", Family::Sam21HieraTiny),
        ("sam21_base_plus_1024_video", Family::Sam21HieraBasePlus),
    ] {
        if !fixture_support::folder().join(format!("{name}.safetensors")).is_file() {
            println!("{name}: not at hand");
            continue;
        }
        let mut clip = Clip::open(name, family, 1024);
        let said = [(1, clip.box_said(0))];
        clip.said_at_first("box1", TrackerSettings::SAM2, &said, 12);
        if family == Family::Sam21HieraTiny {
            clip.corrected("corr_default", TrackerSettings::SAM2);
            clip.mask();
            clip.absent();
            clip.done(28);
        } else {
            clip.done(12);
        }
    }
}

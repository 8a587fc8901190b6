//! The memory over a video, frame by frame against the reference's video predictor.

use std::collections::BTreeSet;

use sonomask::nn::{Sam2, Sam2Features, Sam2Memory, Tracked};
use sonomask::segment::memory::{Following, Found, Said, Tracker, TrackerSettings};
use sonomask::weights::{Family, Generated, Source, WeightsError};
use tch::{Device, Kind, Tensor};

use super::networks;
use crate::fixture_support::{self, ENCODER, Fixture, sam2_input, sub_indices};

/// Largest distance of low-resolution logits from the reference's, relative to their length, and the least share of equal signs.
const FRAME: (f64, f64) = (1e-2, 0.995);

/// Key of the bias that decides whether an object is there.
const SCORE_BIAS: &str = "sam_mask_decoder.pred_obj_score_head.layers.2.bias";

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
        let mut following = Following::default();
        let recalled = tracker.recall(video, features, &mut following).unwrap();
        let mut found = Tracker::follow(video, features, &recalled, &mut following).unwrap();
        for (object, said) in said {
            let before = found.iter().position(|f| f.object == *object);
            let told = Tracker::told(video, features, *object, said, before.map(|i| &found[i])).unwrap();
            match before {
                Some(i) => found[i] = told,
                None => found.push(told),
            }
        }
        tracker.remember(video, features, &found, &BTreeSet::new(), false).unwrap();
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
    tracker.remember(video, features, &found, &BTreeSet::new(), false).unwrap();
    assert_eq!((tracker.objects().collect::<Vec<_>>(), tracker.len().0), (vec![2], 1));
    // What begins anew replaces what was remembered, unless it is no number or cannot be remembered.
    let anew = BTreeSet::from([2]);
    let more = [told(2)];
    tracker.remember(video, features, &more, &BTreeSet::new(), false).unwrap();
    assert_eq!(tracker.len().0, 2);
    let mut bad = [told(2)];
    bad[0].tracked.pointer = bad[0].tracked.pointer.full_like(f64::NAN);
    tracker.remember(video, features, &bad, &anew, false).unwrap();
    bad[0].tracked.logits = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    assert!(tracker.remember(video, features, &bad, &anew, false).is_err());
    assert_eq!(tracker.len().0, 2);
    tracker.remember(video, features, &more, &anew, false).unwrap();
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

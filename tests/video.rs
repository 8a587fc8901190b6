//! SAM 2 with its memory as a `Segmenter`: whole frames in, masks out, against the reference's video predictor, and what a
//! person or a scanner may do in the middle of a stream.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use fixture_support::{Fixture, sub_indices};
use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::mask::{ClassMask, Mask};
use sonomask::nn;
use sonomask::phantom::{Phantom, PhantomConfig};
use sonomask::segment::memory::MemorySettings;
use sonomask::segment::{
    Cleanup, Guidance, Manners, MemoryEvent, ModelInfo, Network, Point, Prompt, Sam, SegmentError, Segmenter,
    VideoSam,
};
use sonomask::stage::{Stage, StageTimes};
use sonomask::state::{Remark, Reset};
use sonomask::weights::{Family, Weights};
use std::sync::Arc;
use tch::{Device, Kind};

const SIZE: (usize, usize) = (320, 240);

struct Clip {
    file: Fixture,
    frames: Vec<Vec<u8>>,
}

impl Clip {
    fn open() -> Self {
        let file = Fixture::open("sam21_tiny_512_video");
        let gray = file.raw("frames_gray");
        let frames = (0..gray.size()[0])
            .map(|t| Vec::<u8>::try_from(gray.select(0, t).to_kind(Kind::Uint8).reshape([-1])).unwrap())
            .collect();
        Self { file, frames }
    }

    fn model(&self, side: i64, settings: MemorySettings) -> VideoSam {
        self.model_with(side, settings, /* non_overlapping */ false)
    }

    fn model_with(&self, side: i64, settings: MemorySettings, non_overlapping: bool) -> VideoSam {
        let generated = self.file.generated();
        let w = Weights::new(&generated, Device::Cpu);
        let family = Family::Sam21HieraTiny;
        let net = nn::Sam::new(&w, family, Some(side)).unwrap();
        let memory = nn::Sam2Memory::new(&w, family, side).unwrap();
        let network = Network::new(net, None, Manners::of(family), Device::Cpu);
        let cleanup =
            Cleanup { presence_threshold: 0.5, max_hole_area: 0, max_sprinkle_area: 0, non_overlapping };
        let info = ModelInfo {
            family: family.name().into(),
            weights_sha256: String::new(),
            input_size: side as usize,
            precision: "fp32".into(),
            parameters: 0,
            weights_bytes: 0,
            ppn: None,
            device: "cpu".into(),
        };
        VideoSam::new(Sam::new(network, cleanup, info), memory, settings, 0)
    }

    fn bbox(&self) -> Prompt {
        let corners = self.file.raw("boxes_px").select(0, 0).select(0, 0).to_kind(Kind::Float);
        let corners = Vec::<f32>::try_from(corners).unwrap();
        Prompt { bbox: Some([corners[0], corners[1], corners[2], corners[3]]), ..Prompt::default() }
    }

    /// The class `class`, somewhere else.
    fn other(class: usize) -> Prompt {
        Prompt { class, bbox: Some([180.0, 120.0, 300.0, 220.0]), ..Prompt::default() }
    }

    fn step(
        &self,
        model: &mut VideoSam,
        frame: usize,
        prompts: &[Prompt],
    ) -> Result<Vec<ClassMask>, SegmentError> {
        shown(model, &self.frames[frame], SIZE, prompts)
    }

    /// The logits of every class on the first `frames` frames, with the prompts that `said` has for each.
    fn run(
        &self,
        model: &mut VideoSam,
        frames: usize,
        said: impl Fn(usize) -> Vec<Prompt>,
    ) -> Vec<Vec<(usize, Vec<f32>)>> {
        (0..frames)
            .map(|t| {
                let found = self.step(model, t, &said(t)).unwrap();
                found.into_iter().map(|m| (m.class, m.logits.unwrap().values)).collect()
            })
            .collect()
    }
}

fn shown(
    model: &mut VideoSam,
    gray: &[u8],
    (width, height): (usize, usize),
    prompts: &[Prompt],
) -> Result<Vec<ClassMask>, SegmentError> {
    let plane = Plane { data: gray, stride: width };
    let view = ImageView::new(PixelFormat::Gray8, width, height, YuvColor::default(), vec![plane]).unwrap();
    model.segment(&view, &Guidance::manual(prompts.to_vec()), true, &mut StageTimes::default())
}

/// Distance relative to the length of the second, and share of equal signs.
fn compare(ours: &[f32], theirs: &[f32]) -> (f64, f64) {
    let sum = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>();
    let difference = sum(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b).powi(2)));
    let length = sum(&mut theirs.iter().map(|b| f64::from(*b).powi(2)));
    let equal = ours.iter().zip(theirs).filter(|(a, b)| (**a > 0.0) == (**b > 0.0)).count();
    ((difference / length.max(1e-12)).sqrt(), equal as f64 / ours.len() as f64)
}

#[test]
fn a_stream_of_frames_is_what_the_reference_makes_of_it() {
    let clip = Clip::open();
    let mut model = clip.model(512, MemorySettings::sam2());
    let found = clip.run(&mut model, 12, |_| vec![clip.bbox()]);
    let mut compared = 0;
    for (t, classes) in found.iter().enumerate() {
        let key = format!("stream.obj1.f{t:02}.low");
        if !clip.file.answers(&key) {
            continue;
        }
        let ours = &classes[0].1;
        let theirs = clip.file.values(&format!("{key}.sub"));
        let clamped: Vec<f32> = theirs.iter().map(|v| v.clamp(-32.0, 32.0) as f32).collect();
        let at: Vec<f32> = sub_indices(ours.len(), theirs.len()).iter().map(|&i| ours[i]).collect();
        let (distance, _) = compare(&at, &clamped);
        let bits = Vec::<u8>::try_from(clip.file.raw(&format!("{key}.signbits")).view(-1)).unwrap();
        let equal =
            ours.iter().enumerate().filter(|&(i, v)| (bits[i / 8] >> (i % 8) & 1 == 1) == (*v > 0.0)).count();
        let equal = equal as f64 / ours.len() as f64;
        println!("{key}: distance {distance:.2e}, equal signs {equal:.5}");
        assert!(distance <= 1e-2 && equal >= 0.995, "{key}: {distance}, {equal}");
        compared += 1;
    }
    assert_eq!(compared, 12);
    let counts = model.memory().unwrap();
    // The prompted frame, the six before this one and those that a later frame may still look at.
    assert!((7..=10).contains(&counts.bank_frames), "{counts:?}");
    assert_eq!((counts.objects, counts.not_written, counts.asked), (1, 0, 0));
}

#[test]
fn objects_come_are_corrected_and_go_without_touching_the_others() {
    let clip = Clip::open();
    let first = clip.bbox();
    let alone = clip.run(&mut clip.model(128, MemorySettings::sam2()), 8, |_| vec![first.clone()]);
    let mut corrected = Clip::other(1);
    corrected.points.push(Point { x: 200.0, y: 150.0, positive: false });
    // From frame 3 on there is another object, on frame 5 a person corrects it, on frame 7 it is taken back.
    let said = |t: usize| {
        let mut prompts = vec![first.clone()];
        match t {
            3..=4 => prompts.push(Clip::other(1)),
            5..=6 => prompts.push(corrected.clone()),
            _ => {}
        }
        prompts
    };
    let mut model = clip.model(128, MemorySettings::sam2());
    let both = clip.run(&mut model, 8, said);
    for (t, classes) in both.iter().enumerate() {
        let expected = if (3..7).contains(&t) { 2 } else { 1 };
        assert_eq!(classes.len(), expected, "frame {t}");
        // Objects are looked at in pairs, which rounds otherwise than one alone.
        let (distance, _) = compare(&classes[0].1, &alone[t][0].1);
        assert!(distance < 1e-3, "frame {t}: the first object moved by {distance}");
    }
    assert_eq!(model.memory().unwrap().objects, 2);
    let uncorrected = clip.run(&mut clip.model(128, MemorySettings::sam2()), 7, |t| {
        let mut prompts = vec![first.clone()];
        prompts.extend((t >= 3).then(|| Clip::other(1)));
        prompts
    });
    for t in [5, 6] {
        let (distance, _) = compare(&both[t][1].1, &uncorrected[t][1].1);
        assert!(distance > 1e-2, "frame {t}: the correction changed {distance}");
    }
    let (distance, _) = compare(&both[4][1].1, &uncorrected[4][1].1);
    assert_eq!(distance, 0.0);
}

#[test]
fn a_drawn_mask_is_the_answer_and_a_prompt_counts_again_when_it_is_given_again() {
    let clip = Clip::open();
    let mut drawn = Mask::empty(SIZE.0, SIZE.1);
    for (x, y) in (80..160).flat_map(|x| (60..140).map(move |y| (x, y))) {
        drawn.set(x, y, true);
    }
    let given = Prompt { mask: Some(Arc::new(drawn.clone())), ..Prompt::default() };
    let mut model = clip.model(128, MemorySettings::sam2());
    let found = clip.step(&mut model, 0, std::slice::from_ref(&given)).unwrap();
    assert!(found[0].mask.dice(&drawn).unwrap() > 0.95, "{}", found[0].mask.dice(&drawn).unwrap());
    assert_eq!((found[0].score, found[0].presence > 0.99), (1.0, true));
    // It still stands: the object is followed, not drawn again.
    let followed = clip.step(&mut model, 1, std::slice::from_ref(&given)).unwrap();
    assert_ne!(followed[0].score, 1.0);
    let again = Prompt { utterance: 1, ..given };
    let found = clip.step(&mut model, 2, &[again]).unwrap();
    assert!(found[0].mask.dice(&drawn).unwrap() > 0.95);
}

#[test]
fn a_prompt_that_does_not_fit_leaves_the_memory_as_it_was() {
    let clip = Clip::open();
    let first = clip.bbox();
    let expected = clip.run(&mut clip.model(128, MemorySettings::sam2()), 4, |_| vec![first.clone()]);
    let mut model = clip.model(128, MemorySettings::sam2());
    clip.run(&mut model, 3, |_| vec![first.clone()]);
    let outside = Prompt { class: 1, bbox: Some([0.0, 0.0, 900.0, 10.0]), ..Prompt::default() };
    let twice = [first.clone(), Clip::other(0)];
    assert!(matches!(clip.step(&mut model, 3, &[first.clone(), outside]), Err(SegmentError::Prompt(_))));
    assert!(matches!(clip.step(&mut model, 3, &twice), Err(SegmentError::Prompt(_))));
    let found = clip.step(&mut model, 3, &[first]).unwrap();
    assert_eq!(found[0].logits.as_ref().unwrap().values, expected[3][0].1);
}

#[test]
fn another_scene_a_freeze_and_another_size_clear_the_memory() {
    let clip = Clip::open();
    let settings = MemorySettings { scene_cut: 0.72, freeze_after: 3, ..MemorySettings::sam2() };
    let (width, height) = SIZE;
    let config = PhantomConfig { seed: 41, width, height, scene_cut: Some(7), ..PhantomConfig::default() };
    let mut phantom = Phantom::new(config).unwrap();
    let first = [clip.bbox()];
    let mut model = clip.model(128, settings);
    let mut seen = |frame: &[u8], size| {
        let found = shown(&mut model, frame, size, &first).unwrap();
        (found.len(), model.remark(), model.take_events())
    };
    // It has to know how much the picture changes of itself.
    for frame in 0..7 {
        assert_eq!(seen(&phantom.image(frame), SIZE), (1, None, vec![]));
    }
    // Another scene: the box was said of the one before.
    let other = phantom.image(7);
    let cut = Some(Remark::Cleared(Reset::SceneCut));
    let cleared = |why| MemoryEvent::Reset(why);
    let events = vec![cleared(Reset::SceneCut), MemoryEvent::Lost(0)];
    assert_eq!(seen(&other, SIZE), (0, cut.clone(), events));
    assert_eq!(seen(&other, SIZE), (0, cut.clone(), vec![]));
    assert_eq!(seen(&other, SIZE), (0, cut, vec![]));
    // The third equal picture in a row.
    assert_eq!(seen(&other, SIZE), (0, Some(Remark::Frozen), vec![MemoryEvent::Frozen]));
    assert_eq!(seen(&other, SIZE), (0, Some(Remark::Frozen), vec![]));
    let (_, remark, events) = seen(&phantom.image(9), SIZE);
    assert_eq!((remark, events), (Some(Remark::Cleared(Reset::Freeze)), vec![cleared(Reset::Freeze)]));
    // A stream of another size begins again, with the prompts that are in force.
    let twice: Vec<u8> = clip.frames[0].iter().chain(&clip.frames[0]).copied().collect();
    let (found, remark, events) = seen(&twice, (SIZE.0, 2 * SIZE.1));
    assert_eq!((found, remark, events), (1, Some(Remark::Cleared(Reset::Size)), vec![cleared(Reset::Size)]));
    model.forget(Some(Reset::Stream));
    let counts = model.memory().unwrap();
    let resets: Vec<_> = counts.resets.iter().map(|(why, n)| (*why, *n)).collect();
    assert_eq!(resets, [("freeze", 1), ("scene_cut", 1), ("size", 1), ("stream", 1)]);
    assert_eq!(counts.freezes, 1);
    model.forget(None);
    assert_eq!(*model.memory().unwrap(), Default::default());
}

#[test]
fn a_model_that_was_loaded_again_does_not_take_an_old_prompt_for_a_new_one() {
    let clip = Clip::open();
    let first = [clip.bbox()];
    let mut model = clip.model(128, MemorySettings::sam2());
    model.forget(Some(Reset::Model));
    assert!(clip.step(&mut model, 0, &first).unwrap().is_empty());
    assert_eq!(model.remark(), Some(Remark::Cleared(Reset::Model)));
    assert_eq!(model.take_events(), [MemoryEvent::Reset(Reset::Model), MemoryEvent::Lost(0)]);
    // That it was cleared is said for a while, that the object is lost until it is there again.
    for t in 0..30 {
        clip.step(&mut model, t % 12, &first).unwrap();
    }
    assert_eq!(model.remark(), Some(Remark::Lost(vec![0])));
    let again = [Prompt { utterance: 1, ..clip.bbox() }];
    assert_eq!(clip.step(&mut model, 1, &again).unwrap().len(), 1);
    assert_eq!((model.remark(), model.take_events()), (None, vec![MemoryEvent::Found(0)]));
    // A stream that begins again is another one: there they count.
    model.forget(Some(Reset::Stream));
    let counts = model.memory().unwrap();
    assert_eq!((counts.bank_frames, counts.bank_pointers), (0, 0), "{counts:?}");
    assert_eq!(clip.step(&mut model, 2, &again).unwrap().len(), 1);
    // Who takes a prompt back misses nothing.
    model.forget(Some(Reset::Stream));
    assert!(clip.step(&mut model, 3, &[]).unwrap().is_empty());
    assert_eq!(model.remark(), Some(Remark::Cleared(Reset::Stream)));
    for t in 0..30 {
        clip.step(&mut model, t % 12, &[]).unwrap();
    }
    assert_eq!(model.remark(), None);
}

#[test]
fn another_size_is_noticed_though_the_prompt_does_not_fit_it() {
    let clip = Clip::open();
    let corner = [Prompt { bbox: Some([280.0, 180.0, 318.0, 238.0]), ..Prompt::default() }];
    let mut model = clip.model(128, MemorySettings::sam2());
    clip.step(&mut model, 0, &corner).unwrap();
    let half = vec![0; SIZE.0 * SIZE.1 / 2];
    let refused = shown(&mut model, &half, (SIZE.0, SIZE.1 / 2), &corner);
    assert!(matches!(refused, Err(SegmentError::Prompt(_))), "{refused:?}");
    assert_eq!(model.take_events(), [MemoryEvent::Reset(Reset::Size)]);
    assert_eq!(model.memory().unwrap().bank_frames, 0);
}

#[test]
fn a_model_that_was_loaded_again_forgives_a_prompt_that_does_not_fit() {
    let clip = Clip::open();
    let outside = Prompt { class: 1, bbox: Some([0.0, 0.0, 900.0, 10.0]), ..Prompt::default() };
    let mut model = clip.model(128, MemorySettings::sam2());
    model.forget(Some(Reset::Model));
    let refused = clip.step(&mut model, 0, &[clip.bbox(), outside.clone()]);
    assert!(matches!(refused, Err(SegmentError::Prompt(_))), "{refused:?}");
    // What stands was said of an earlier frame still; what is put right is said of this one.
    let found = clip.step(&mut model, 1, &[clip.bbox(), Clip::other(1)]).unwrap();
    assert_eq!(found.iter().map(|m| m.class).collect::<Vec<_>>(), [1]);
    assert_eq!(model.take_events(), [MemoryEvent::Reset(Reset::Model), MemoryEvent::Lost(0)]);
}

#[test]
fn what_was_pointed_at_on_a_frozen_picture_is_followed_when_it_moves() {
    let clip = Clip::open();
    let mut model = clip.model(128, MemorySettings { freeze_after: 2, ..MemorySettings::sam2() });
    let said: [Prompt; 3] = std::array::from_fn(Clip::other);
    clip.step(&mut model, 0, &said[..1]).unwrap();
    // The second before anybody can know that the picture stands still, the third when it is known.
    for told in [2, 2, 2, 3] {
        assert_eq!(clip.step(&mut model, 1, &said[..told]).unwrap().len(), told);
    }
    let moving = clip.step(&mut model, 3, &said).unwrap();
    assert_eq!(moving.iter().map(|m| m.class).collect::<Vec<_>>(), [1, 2]);
    let events = [MemoryEvent::Frozen, MemoryEvent::Reset(Reset::Freeze), MemoryEvent::Lost(0)];
    assert_eq!(model.take_events(), events);
}

#[test]
fn a_frozen_picture_is_remembered_once_and_what_is_not_sure_not_at_all() {
    let clip = Clip::open();
    let first = [clip.bbox()];
    let mut model = clip.model(128, MemorySettings { freeze_after: 2, ..MemorySettings::sam2() });
    for _ in 0..9 {
        shown(&mut model, &clip.frames[0], SIZE, &first).unwrap();
    }
    // The prompted one; what only repeats it is nothing new, frozen or not.
    assert_eq!(model.memory().unwrap().bank_frames, 1);
    let strict =
        MemorySettings { write_unsure: false, min_score: 1.0, lost_after: 3, ..MemorySettings::sam2() };
    let mut model = clip.model(128, strict);
    for t in 0..5 {
        clip.step(&mut model, t, &first).unwrap();
    }
    let counts = model.memory().unwrap();
    assert_eq!((counts.bank_frames, counts.not_written, counts.losses), (1, 4, 1), "{counts:?}");
    assert_eq!(model.remark(), Some(Remark::Lost(vec![0])));
    assert!(model.take_events().contains(&MemoryEvent::Lost(0)));
}

#[test]
fn time_is_charged_to_the_stages_of_the_memory() {
    let clip = Clip::open();
    let mut model = clip.model(128, MemorySettings::sam2());
    let plane = Plane { data: &clip.frames[0], stride: SIZE.0 };
    let view = ImageView::new(PixelFormat::Gray8, SIZE.0, SIZE.1, YuvColor::default(), vec![plane]).unwrap();
    let guidance = Guidance::manual(vec![clip.bbox()]);
    for _ in 0..2 {
        let mut times = StageTimes::default();
        model.segment(&view, &guidance, false, &mut times).unwrap();
        for stage in [Stage::MemoryAttention, Stage::MemoryEncoder, Stage::Encode, Stage::Decode] {
            assert!(times.get(stage).is_some(), "{stage:?}");
        }
    }
}

#[test]
fn objects_that_are_followed_do_not_overlap_where_they_are_not_to() {
    let clip = Clip::open();
    let [mut both, mut apart] =
        [false, true].map(|apart| clip.model_with(256, MemorySettings::sam2(), apart));
    let (mut shared, mut claimed) = (0, 0);
    for t in 0..4 {
        let said = [clip.bbox(), Clip::other(1)];
        let [both, apart] = [&mut both, &mut apart].map(|model| clip.step(model, t, &said).unwrap());
        for at in 0..both[0].mask.data().len() {
            let of = |found: &[ClassMask]| [0, 1].map(|class: usize| found[class].mask.data()[at]);
            let (before, now) = (of(&both), of(&apart));
            shared += usize::from(before == [1, 1]);
            claimed += usize::from(before != [0, 0]);
            assert_eq!(now.iter().sum::<u8>(), before[0].max(before[1]), "frame {t}, pixel {at}");
            assert!(before == [1, 1] || now == before, "frame {t}, pixel {at}");
        }
        // What is remembered is not cut.
        for (both, apart) in both.iter().zip(&apart) {
            assert_eq!(both.logits, apart.logits, "frame {t}");
        }
    }
    assert!(shared > 100, "{shared} of {claimed} pixels are claimed twice");
}

//! Objects that are followed: as the reference follows them, without touching each other, in time that is charged.

use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::mask::ClassMask;
use sonomask::segment::memory::MemorySettings;
use sonomask::segment::{Guidance, Point, Segmenter};
use sonomask::stage::{Stage, StageTimes};

use super::{Clip, SIZE};
use crate::fixture_support::sub_indices;

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

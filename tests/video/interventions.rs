//! What a person says and a scanner does on the way: new prompts, cuts, freezes, sizes, and a model loaded again.

use std::sync::Arc;

use sonomask::mask::Mask;
use sonomask::phantom::{Phantom, PhantomConfig};
use sonomask::segment::memory::MemorySettings;
use sonomask::segment::{MemoryEvent, Prompt, SegmentError, Segmenter};
use sonomask::state::{Remark, Reset};

use super::{Clip, SIZE, shown};

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

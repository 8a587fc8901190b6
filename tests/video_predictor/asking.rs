//! When the predictor is asked, and whose an object is: the memory's, the predictor's, or a person's.

use sonomask::segment::memory::{Ask, MemorySettings};
use sonomask::segment::{MemoryEvent, Mode, Prompt};
use sonomask::state::Reset;

use super::{Stream, boxed, classes, logits, trusting};

#[test]
fn the_first_frame_of_the_predictor_is_asked_whenever_it_comes() {
    let mut stream = Stream::new(trusting(Ask::First));
    assert_eq!(classes(&stream.next(Mode::Manual, &[boxed(0)])), [0]);
    assert_eq!(classes(&stream.next(Mode::Manual, &[boxed(0)])), [0]);
    for _ in 0..3 {
        assert_eq!(classes(&stream.next(Mode::Assisted, &[boxed(0)])), [0, 1]);
    }
    assert_eq!(stream.counts().asked, 1);
    // A class that a person gives back is the predictor's again.
    for _ in 0..3 {
        assert_eq!(classes(&stream.next(Mode::Assisted, &[])), [0, 1]);
    }
    assert_eq!(stream.counts().asked, 2);
}

#[test]
fn what_the_predictor_has_found_goes_with_it() {
    let mut stream = Stream::new(trusting(Ask::First));
    assert_eq!(classes(&stream.next(Mode::Assisted, &[boxed(0)])), [0, 1]);
    assert_eq!(classes(&stream.next(Mode::Manual, &[boxed(0)])), [0]);
    assert_eq!(classes(&stream.next(Mode::Manual, &[])), [0; 0]);
}

#[test]
fn a_prompt_of_before_the_predictor_was_left_alone_does_not_count_again() {
    let modes = |fourth: Mode, utterance: u64| {
        let mut stream = Stream::new(trusting(Ask::First));
        let box_ = [boxed(0)];
        stream.next(Mode::Assisted, &box_);
        stream.next(Mode::Autonomous, &box_);
        stream.next(Mode::Autonomous, &box_);
        stream.next(fourth, &[Prompt { utterance, ..boxed(0) }])
    };
    let (alone, back, again) =
        (modes(Mode::Autonomous, 0), modes(Mode::Assisted, 0), modes(Mode::Assisted, 1));
    assert_eq!(logits(&alone, 0), logits(&back, 0));
    assert_ne!(logits(&alone, 0), logits(&again, 0));
    // The other class has nothing to do with it.
    assert_eq!(logits(&alone, 1), logits(&back, 1));
}

#[test]
fn what_the_predictor_follows_while_it_is_left_alone_is_its_own() {
    let back = |prompts: &[Prompt], mode: Mode| {
        let mut stream = Stream::new(trusting(Ask::First));
        stream.next(Mode::Assisted, prompts);
        stream.next(Mode::Autonomous, prompts);
        stream.next(Mode::Autonomous, prompts);
        let found = stream.next(mode, &[]);
        (stream, found)
    };
    // Taken back while nobody listened: that is no reason to begin again.
    let ((alone, ours), (returned, same)) =
        (back(&[boxed(0)], Mode::Autonomous), back(&[boxed(0)], Mode::Assisted));
    assert_eq!(logits(&ours, 0), logits(&same, 0));
    assert_eq!((alone.counts().asked, returned.counts().asked), (2, 2));
    // Nobody looks for this one in the meantime.
    let (mut stream, found) = back(&[boxed(2)], Mode::Autonomous);
    assert_eq!(classes(&found), [0, 1]);
    assert_eq!(stream.model.take_events(), []);
    for _ in 0..2 {
        assert_eq!(classes(&stream.next(Mode::Assisted, &[boxed(2)])), [0, 1]);
    }
    assert_eq!(stream.model.take_events(), [MemoryEvent::Lost(2)]);
}

#[test]
fn what_a_person_speaks_of_is_lost_with_the_memory_and_found_by_the_predictor() {
    let mut stream = Stream::new(MemorySettings { freeze_after: 2, ..trusting(Ask::First) });
    let said = [boxed(0), boxed(2)];
    // The model was loaded again, nobody listens to the person: nothing is missed.
    stream.model.forget(Some(Reset::Model));
    assert_eq!(classes(&stream.next(Mode::Autonomous, &said)), [0, 1]);
    assert_eq!(stream.model.take_events(), [MemoryEvent::Reset(Reset::Model)]);
    // They were said before: the predictor's object stays its own, the one that it does not know is lost.
    assert_eq!(classes(&stream.next(Mode::Assisted, &said)), [0, 1]);
    assert_eq!(stream.model.take_events(), [MemoryEvent::Lost(2)]);
    // A freeze clears what moves on: also what the predictor had found for the person is lost, and found again.
    for _ in 0..3 {
        stream.show(2, Mode::Assisted, &said);
    }
    assert_eq!(stream.model.take_events(), [MemoryEvent::Frozen]);
    assert_eq!(classes(&stream.next(Mode::Assisted, &said)), [0, 1]);
    let again = [MemoryEvent::Reset(Reset::Freeze), MemoryEvent::Lost(0), MemoryEvent::Found(0)];
    assert_eq!(stream.model.take_events(), again);
}

#[test]
fn what_the_memory_knows_as_one_class_is_not_begun_as_another() {
    // Masks that have anything or everything in common are the same.
    for (agreement, expected) in [(0.0, vec![0]), (1.0, vec![0, 1])] {
        let mut stream = Stream::new(MemorySettings { agreement, ..trusting(Ask::Every) });
        stream.next(Mode::Manual, &[boxed(0)]);
        assert_eq!(classes(&stream.next(Mode::Assisted, &[boxed(0)])), expected, "{agreement}");
    }
}

#[test]
fn of_two_that_are_one_structure_the_better_is_begun() {
    let settings = |agreement| MemorySettings { agreement, trial: 2, ..trusting(Ask::Every) };
    // Masks that have anything or everything in common are the same.
    let (mut apart, mut stream) = (Stream::new(settings(1.0)), Stream::new(settings(0.0)));
    let both = apart.next(Mode::Autonomous, &[]);
    assert_eq!(classes(&both), [0, 1]);
    let better = usize::from(both[1].score > both[0].score);
    assert_eq!(classes(&stream.next(Mode::Autonomous, &[])), [better]);
    for _ in 0..6 {
        assert_eq!(stream.next(Mode::Autonomous, &[]).len(), 1);
        assert_eq!(classes(&apart.next(Mode::Autonomous, &[])), [0, 1]);
    }
    // Nor is what a person points at begun as another on the same frame.
    for class in [0, 1] {
        let mut stream = Stream::new(settings(0.0));
        assert_eq!(classes(&stream.next(Mode::Assisted, &[boxed(class)])), [class]);
    }
}

#[test]
fn a_person_is_not_contradicted_and_the_predictor_is() {
    let settings = MemorySettings { agreement: 1.0, patience: 1, ..trusting(Ask::Every) };
    let mut stream = Stream::new(settings);
    let both = [boxed(0), boxed(1)];
    for _ in 0..4 {
        stream.next(Mode::Assisted, &both);
    }
    assert_eq!(stream.counts().taken_over, 0);
    let mut stream = Stream::new(settings);
    for _ in 0..8 {
        stream.next(Mode::Autonomous, &[]);
    }
    assert!(stream.counts().taken_over > 0, "{:?}", stream.counts());
}

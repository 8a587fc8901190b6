//! What the predictor has begun is on trial: how it stands it, how it fails, and what it keeps out meanwhile.

use sonomask::segment::memory::{Ask, MemorySettings};
use sonomask::segment::{MemoryEvent, Mode, Prompt};
use sonomask::state::Reset;

use super::{ALONE, Stream, boxed, classes, pictures, predictors_score, trusting, with_squares};

#[test]
fn what_is_on_trial_keeps_nothing_better_out() {
    let mut alone = Stream::new(trusting(Ask::Every));
    let mut better = |gray: &[u8]| {
        alone.model.forget(None);
        let both = alone.show_gray(gray, Mode::Autonomous, &[]);
        usize::from(both[1].score > both[0].score)
    };
    let mut pictures = pictures();
    let found = (1..10).find_map(|picture| {
        let one = pictures.image(picture);
        let first = better(&one);
        let other = with_squares(&one).find(|gray| better(gray) != first)?;
        Some((one, other, first))
    });
    let (one, other, first) = found.expect("a picture on which a square makes the other class better");
    // Masks that have anything in common are the same.
    let settings = MemorySettings { agreement: 0.0, trial: 2, ..trusting(Ask::Every) };
    let mut stream = Stream::new(settings);
    for (gray, class) in [(&one, first), (&other, 1 - first), (&one, first)] {
        assert_eq!(classes(&stream.show_gray(gray, Mode::Autonomous, &[])), [class]);
    }
    // What has stood its trial keeps it out.
    for _ in 0..2 {
        stream.show_gray(&one, Mode::Autonomous, &[]);
    }
    assert_eq!(classes(&stream.show_gray(&other, Mode::Autonomous, &[])), [first]);
    // What is followed on a picture that repeats goes on.
    let mut stream = Stream::new(MemorySettings { freeze_after: 30, ..settings });
    for gray in [&one, &other] {
        assert_eq!(classes(&stream.show_gray(gray, Mode::Autonomous, &[])), [first]);
    }
}

#[test]
fn what_the_predictor_began_is_followed_on_trial() {
    let run = |agreement: f32| {
        let settings = MemorySettings { agreement, trial: 2, freeze_after: 30, ..trusting(Ask::Lost) };
        let mut stream = Stream::of(&ALONE.1, settings);
        for picture in 0..6 {
            // The same picture again is no further evidence.
            for _ in 0..2 {
                assert_eq!(classes(&stream.show(picture, Mode::Autonomous, &[])), [0]);
            }
        }
        let counts = stream.counts();
        assert_eq!((counts.taken_over, counts.losses), (0, 0));
        stream.bank_and_asked()
    };
    // Both agree: after two more pictures the predictor is left alone.
    assert_eq!(run(0.0), (6, 3));
    // They never do: each picture begins anew.
    assert_eq!(run(1.0), (1, 6));
}

#[test]
fn nothing_is_on_trial_where_only_the_first_frame_is_asked_of() {
    let mut stream = Stream::new(MemorySettings { agreement: 1.0, trial: 2, ..trusting(Ask::First) });
    for _ in 0..3 {
        stream.next(Mode::Assisted, &[boxed(0)]);
    }
    assert_eq!(stream.bank_and_asked(), (6, 1));
    // The person gives one back, for which the predictor is asked once more: the other goes on as it was.
    assert_eq!(classes(&stream.next(Mode::Assisted, &[])), [0, 1]);
    assert_eq!(stream.bank_and_asked(), (5, 2));
}

#[test]
fn what_fails_its_trial_is_forgotten_and_asked_of_once_more() {
    let mut stream = Stream::of(&ALONE.1, trusting(Ask::Every));
    let mut scored: Vec<(f32, Vec<u8>)> = (1..12)
        .map(|picture| {
            let gray = stream.pictures.image(picture);
            (predictors_score(&mut stream, &gray), gray)
        })
        .collect();
    scored.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let [(_, poor), (low, poorly), .., (high, other), (_, good)] = &scored[..] else { unreachable!() };
    let settings = MemorySettings {
        trial: 2,
        agreement: 0.0,
        min_score: f32::midpoint(*low, *high),
        freeze_after: 30,
        ..trusting(Ask::Every)
    };
    let mut stream = Stream::of(&ALONE.1, settings);
    let mut show = |gray: &[u8], prompts: &[Prompt]| {
        let mode = if prompts.is_empty() { Mode::Autonomous } else { Mode::Assisted };
        assert_eq!(classes(&stream.show_gray(gray, mode, prompts)), [0]);
        stream.bank_and_asked()
    };
    assert_eq!(show(good, &[]), (1, 1));
    // Too poor to be followed, and shown for what it is; the same picture again changes nothing.
    for asked in [2, 3] {
        assert_eq!(show(poor, &[]), (0, asked));
    }
    // What a person points at is followed, whatever the predictor thinks of it.
    for (gray, now) in [(poor, (1, 4)), (poorly, (2, 5)), (poor, (3, 6))] {
        assert_eq!(show(gray, &[boxed(0)]), now);
    }
    // Where the predictor's turn would be long after, it is asked once more, of a picture that does not repeat.
    let mut stream = Stream::of(&ALONE.1, MemorySettings { ask: Ask::Interval(1000), ..settings });
    for (gray, now) in [
        (good, (1, 1)),
        (poor, (0, 2)),
        (poor, (0, 3)),
        (other, (1, 4)),
        (poor, (0, 5)),
        (poorly, (0, 6)),
        (poor, (0, 6)),
    ] {
        stream.show_gray(gray, Mode::Autonomous, &[]);
        assert_eq!(stream.bank_and_asked(), now);
    }
    // What was lost before is not lost again by it.
    let mut stream = Stream::of(&ALONE.1, MemorySettings { freeze_after: 1, ..settings });
    let mut events = |gray: &[u8]| {
        stream.show_gray(gray, Mode::Assisted, &[boxed(0)]);
        stream.model.take_events()
    };
    assert_eq!((events(other), events(good), events(good)), (vec![], vec![], vec![MemoryEvent::Frozen]));
    assert_eq!(events(other), [MemoryEvent::Reset(Reset::Freeze), MemoryEvent::Lost(0)]);
    for gray in [poor, other, good, poorly, good] {
        assert_eq!(events(gray), []);
    }
}

#[test]
fn what_was_lost_with_the_scene_is_found_when_it_has_stood_its_trial() {
    let run = |agreement: f32| {
        let settings = MemorySettings { agreement, trial: 2, freeze_after: 2, ..trusting(Ask::Every) };
        let mut stream = Stream::of(&ALONE.1, settings);
        let said = [boxed(0)];
        stream.next(Mode::Assisted, &said);
        for _ in 0..3 {
            stream.show(2, Mode::Assisted, &said);
        }
        stream.model.take_events();
        stream.shown = 2;
        let mut events = || {
            stream.next(Mode::Assisted, &said);
            stream.model.take_events()
        };
        assert_eq!(events(), [MemoryEvent::Reset(Reset::Freeze), MemoryEvent::Lost(0)]);
        assert_eq!(events(), []);
        events().into_iter().chain(events()).collect::<Vec<_>>()
    };
    assert_eq!(run(0.0), [MemoryEvent::Found(0)]);
    assert_eq!(run(1.0), []);
}

#[test]
fn what_leaves_nothing_to_remember_is_not_on_trial() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weights.safetensors");
    let mut bytes = std::fs::read(&ALONE.1).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let place = &tensors["memory_encoder.out_proj.bias"]["data_offsets"];
    let [from, to] = [0, 1].map(|i| header + place[i].as_u64().unwrap() as usize);
    for value in bytes[from..to].chunks_exact_mut(4) {
        value.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    std::fs::write(&file, bytes).unwrap();
    let mut stream = Stream::of(&file, MemorySettings { trial: 2, ..trusting(Ask::Interval(1000)) });
    assert_eq!(classes(&stream.next(Mode::Autonomous, &[])), [0]);
    for _ in 0..3 {
        assert_eq!(classes(&stream.next(Mode::Autonomous, &[])), [0; 0]);
    }
    assert_eq!(stream.bank_and_asked(), (0, 1));
}

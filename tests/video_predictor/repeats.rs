//! Pictures that stand still or come twice: they are no further evidence, and nothing is taken over on them.

use sonomask::segment::memory::{Ask, MemorySettings};
use sonomask::segment::{Mode, Prompt};

use super::{ALONE, Stream, boxed, classes, predictors_score, trusting, with_squares};

#[test]
fn a_picture_that_repeats_fails_no_trial() {
    let mut stream = Stream::of(&ALONE.1, trusting(Ask::Every));
    let gray = stream.pictures.image(1);
    let high = predictors_score(&mut stream, &gray);
    let (low, almost) = with_squares(&gray)
        .map(|almost| (predictors_score(&mut stream, &almost), almost))
        .min_by(|(a, _), (b, _)| a.total_cmp(b))
        .unwrap();
    assert!(low < high, "{low} {high}");
    let settings = |freeze_after| MemorySettings {
        trial: 2,
        min_score: f32::midpoint(low, high),
        freeze_after,
        ..trusting(Ask::Every)
    };
    // Where repeated pictures are not looked for, this one is as good as any.
    for (freeze_after, left) in [(30, 1), (0, 0)] {
        let mut stream = Stream::of(&ALONE.1, settings(freeze_after));
        for (gray, left) in [(&gray, 1), (&almost, left)] {
            assert_eq!(classes(&stream.show_gray(gray, Mode::Autonomous, &[])), [0]);
            assert_eq!(stream.counts().bank_frames, left);
        }
    }
}

#[test]
fn what_a_person_takes_back_on_a_frozen_picture_is_not_kept_for_the_person() {
    let bank = |said: [&[Prompt]; 2]| {
        let mut stream = Stream::of(&ALONE.1, MemorySettings { freeze_after: 3, ..trusting(Ask::First) });
        for prompts in [&[][..], said[0], said[1], said[1]] {
            stream.show(1, Mode::Assisted, prompts);
        }
        stream.show(2, Mode::Assisted, said[1]);
        stream.counts().bank_frames
    };
    let said = [boxed(0)];
    assert_eq!(bank([&said, &said]), 3);
    assert_eq!(bank([&said, &[]]), 1);
    assert_eq!(bank([&[], &[]]), 1);
}

#[test]
fn a_picture_that_is_sent_twice_is_one_piece_of_evidence() {
    let settings =
        |patience| MemorySettings { agreement: 1.0, patience, freeze_after: 30, ..trusting(Ask::Every) };
    let run = |patience: u32, each: usize| {
        let mut stream = Stream::new(settings(patience));
        for picture in 0..8 {
            for _ in 0..each {
                assert_eq!(classes(&stream.show(picture, Mode::Autonomous, &[])), [0, 1]);
            }
        }
        let counts = stream.counts();
        (counts.taken_over, counts.bank_frames)
    };
    for patience in [1, 2] {
        let once = run(patience, 1);
        assert_eq!(once, run(patience, 2), "patience {patience}");
        assert!(once.0 > 0 || patience > 1, "{once:?}");
    }
}

#[test]
fn a_frozen_picture_on_which_everything_is_known_asks_nobody() {
    let mut stream = Stream::new(MemorySettings { freeze_after: 2, ..trusting(Ask::First) });
    let both = [boxed(0), boxed(1)];
    for _ in 0..3 {
        stream.show(1, Mode::Manual, &both);
    }
    for _ in 0..3 {
        assert_eq!(classes(&stream.show(1, Mode::Assisted, &both)), [0, 1]);
    }
    assert_eq!(stream.counts().asked, 0);
    // One is given back: the predictor says where it is on every frame, as nothing is remembered of it.
    for _ in 0..2 {
        assert_eq!(classes(&stream.show(1, Mode::Assisted, &both[..1])), [0, 1]);
    }
    assert_eq!(stream.counts().asked, 2);
}

#[test]
fn a_frozen_picture_takes_nothing_over_and_asks_nobody() {
    // The predictor is believed as soon as it contradicts, which it always does.
    let settings = MemorySettings { agreement: 1.0, patience: 1, freeze_after: 3, ..trusting(Ask::Every) };
    let mut stream = Stream::new(settings);
    for _ in 0..8 {
        stream.next(Mode::Autonomous, &[]);
    }
    for _ in 0..4 {
        stream.show(8, Mode::Autonomous, &[]);
    }
    let before = stream.counts();
    assert!(before.taken_over > 0, "{before:?}");
    for _ in 0..3 {
        assert_eq!(classes(&stream.show(8, Mode::Autonomous, &[])), [0, 1]);
    }
    let after = stream.counts();
    assert_eq!((after.asked, after.taken_over), (before.asked, before.taken_over));
    assert_eq!((after.bank_frames, after.freezes), (before.bank_frames, 1));
    // What a person says of it counts.
    assert_eq!(classes(&stream.show(8, Mode::Assisted, &[boxed(2)])), [0, 1, 2]);
    assert_eq!(stream.counts().bank_frames, before.bank_frames + 1);
}

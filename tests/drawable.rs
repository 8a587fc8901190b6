//! A mask can only be drawn with the identity and the age of the frame it came from.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use sonomask::frame::{CaptureTime, FrameId, FrameMeta};
use sonomask::mask::{Aged, Mask, Paired, Segmentation};
use sonomask::stage::StageTimes;

fn meta(epoch: u32, seq: u64, at: Instant) -> FrameMeta {
    let capture = CaptureTime { mono: at, wall: SystemTime::UNIX_EPOCH };
    FrameMeta { id: FrameId { epoch, seq }, pts: None, duration: None, capture }
}

fn of(frame: FrameMeta) -> Arc<Segmentation> {
    Arc::new(Segmentation { frame, masks: Vec::new(), times: StageTimes::default(), remark: None })
}

proptest! {
    #[test]
    fn paired_needs_the_same_frame(e1 in 0u32..3, s1 in 0u64..5, e2 in 0u32..3, s2 in 0u64..5) {
        let now = Instant::now();
        let (frame, mask) = (meta(e1, s1, now), meta(e2, s2, now));
        let paired = Paired::new(&frame, of(mask));
        prop_assert_eq!(paired.is_ok(), (e1, s1) == (e2, s2));
        if let Err(e) = paired {
            prop_assert_eq!((e.frame, e.mask), (frame.id, mask.id));
        }
    }

    #[test]
    fn aged_tells_its_true_age_or_is_nothing(
        e1 in 0u32..2, s1 in 0u64..6, e2 in 0u32..2, s2 in 0u64..6,
        ms1 in 0u64..500, ms2 in 0u64..500, limit in 0u64..300,
    ) {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let (frame, mask) = (meta(e1, s1, at(ms1)), meta(e2, s2, at(ms2)));
        let limit = Duration::from_millis(limit);
        let age = Duration::from_millis(ms1.saturating_sub(ms2));
        match Aged::new(&frame, of(mask), limit) {
            Some(aged) => {
                prop_assert_eq!(aged.age(), age);
                prop_assert_eq!(aged.segmentation().frame.id, mask.id);
                prop_assert!(age <= limit && e1 == e2 && s2 <= s1);
            }
            None => prop_assert!(age > limit || e1 != e2 || s2 > s1),
        }
    }

    #[test]
    fn run_lengths_round_trip(w in 1usize..140, h in 1usize..40, seed in any::<u64>(), sparse in 1u64..9) {
        let mut state = seed;
        let data: Vec<u8> = (0..w * h).map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            u8::from((state >> 33).is_multiple_of(sparse))
        }).collect();
        let mask = Mask::new(w, h, data.clone()).unwrap();
        let runs = mask.rle();
        // COCO's definition, spelled out: down the columns, zeros first.
        let mut expected = Vec::new();
        let (mut value, mut run) = (0u8, 0u32);
        for x in 0..w {
            for y in 0..h {
                if data[y * w + x] != value {
                    expected.push(run);
                    (value, run) = (data[y * w + x], 0);
                }
                run += 1;
            }
        }
        expected.push(run);
        prop_assert_eq!(&runs, &expected);
        prop_assert_eq!(Mask::from_rle(w, h, &runs), Some(mask));
        prop_assert_eq!(Mask::from_rle(w + 1, h, &runs), None);
    }
}

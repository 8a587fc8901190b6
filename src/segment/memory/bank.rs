//! What is remembered of one object: bounded, however long the video is.

use std::collections::VecDeque;

use tch::Tensor;

use crate::nn::RECENT_FRAMES;

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BankLimits {
    /// Frames that somebody prompted: the first, and the latest of the others. At least 1.
    pub prompted: usize,
    /// Frames before this one, 0 to 6.
    pub recent: usize,
    /// Of the frames before the last one every so many-th is remembered. At least 1.
    pub stride: u64,
    /// How many frames the object's pointers are looked up back, beside those of prompted frames.
    pub pointers: u64,
}

impl BankLimits {
    /// What the published weights were trained with, and a bound for what the reference does not bound.
    pub const SAM2: Self = Self { prompted: 4, recent: RECENT_FRAMES, stride: 1, pointers: 15 };
}

/// One frame of one object.
#[derive(Debug)]
pub struct Entry {
    /// Number of the frame.
    pub frame: u64,
    /// `[1, 64, h, w]`; `None` once the frame is too old for it.
    pub features: Option<Tensor>,
    /// `[1, 256]`.
    pub pointer: Tensor,
}

/// A frame of the bank that is looked at: its features, and how many places it lies back (`None`: somebody prompted it).
pub type Looked<'a> = (&'a Tensor, Option<usize>);

/// The memories of one object.
#[derive(Debug)]
pub struct Bank {
    limits: BankLimits,
    prompted: Vec<Entry>,
    recent: VecDeque<Entry>,
}

impl Bank {
    /// Nothing is remembered yet.
    pub fn new(limits: BankLimits) -> Self {
        Self { limits, prompted: Vec::new(), recent: VecDeque::new() }
    }

    /// Remembers a frame that somebody prompted. When there is no room, the oldest but the first goes.
    pub fn prompt(&mut self, entry: Entry) {
        self.prompted.retain(|kept| kept.frame != entry.frame);
        self.prompted.push(entry);
        if self.prompted.len() > self.limits.prompted.max(1) {
            // With room for one alone the latest is kept: it is what the person says now.
            self.prompted.remove(usize::from(self.limits.prompted > 1));
        }
    }

    /// Remembers a frame that was tracked, in the place of what was remembered of the same one.
    pub fn track(&mut self, entry: Entry) {
        self.recent.retain(|kept| kept.frame != entry.frame);
        self.recent.push_back(entry);
    }

    /// Number of the frame `place` places before `frame`; the last frame, then every `stride`-th.
    fn at(&self, frame: u64, place: usize) -> Option<u64> {
        let last = frame.checked_sub(1)?;
        if place == 1 {
            return Some(last);
        }
        let stride = self.limits.stride.max(1);
        let second = last.checked_sub(1)? / stride * stride;
        second.checked_sub((place as u64).checked_sub(2)? * stride)
    }

    /// Forgets what no frame from `frame` on looks at.
    pub fn forget_before(&mut self, frame: u64) {
        let Self { limits, recent, .. } = self;
        let pointers = limits.pointers.max(1);
        // The farthest place of this frame; later frames look no farther back.
        let reach = (RECENT_FRAMES.min(limits.recent) as u64 + 1) * limits.stride.max(1) + 1;
        for entry in recent.iter_mut() {
            let ago = frame.saturating_sub(entry.frame);
            let passed_over = ago > 1 && !entry.frame.is_multiple_of(limits.stride.max(1));
            if ago > reach || passed_over {
                entry.features = None;
            }
        }
        recent.retain(|entry| entry.features.is_some() || frame.saturating_sub(entry.frame) <= pointers);
    }

    /// What `frame` looks at: prompted frames, then the last ones.
    pub fn frames(&self, frame: u64) -> Vec<Looked<'_>> {
        let mut found: Vec<Looked<'_>> =
            self.prompted.iter().filter_map(|e| Some((e.features.as_ref()?, None))).collect();
        for place in 1..=RECENT_FRAMES.min(self.limits.recent) {
            let entry = self.at(frame, place).and_then(|at| self.recent.iter().find(|e| e.frame == at));
            if let Some(features) = entry.and_then(|e| e.features.as_ref()) {
                found.push((features, Some(place)));
            }
        }
        found
    }

    /// Pointers that `frame` looks at, and how many frames ago each was: prompted frames, then the last ones from new to old.
    pub fn pointers(&self, frame: u64) -> Vec<(&Tensor, u64)> {
        let ago = |entry: &Entry| frame.saturating_sub(entry.frame);
        let prompted = self.prompted.iter().map(|e| (&e.pointer, ago(e)));
        let recent = self.recent.iter().rev().map(|e| (&e.pointer, ago(e)));
        prompted.chain(recent.filter(|&(_, ago)| (1..=self.limits.pointers).contains(&ago))).collect()
    }

    /// Frames with features, and pointers without.
    pub fn len(&self) -> (usize, usize) {
        let entries = || self.prompted.iter().chain(&self.recent);
        let full = entries().filter(|e| e.features.is_some()).count();
        (full, entries().count() - full)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn entry(frame: u64) -> Entry {
        let tensor = || Tensor::full([1], frame as i64, (Kind::Float, Device::Cpu));
        Entry { frame, features: Some(tensor()), pointer: tensor() }
    }

    fn value(tensor: &Tensor) -> u64 {
        tensor.double_value(&[0]) as u64
    }

    fn seen(bank: &Bank, frame: u64) -> Vec<(u64, Option<usize>)> {
        bank.frames(frame).into_iter().map(|(features, place)| (value(features), place)).collect()
    }

    #[test]
    fn a_frame_looks_at_what_the_reference_looks_at_and_the_rest_is_forgotten() {
        let mut bank = Bank::new(BankLimits::SAM2);
        bank.prompt(entry(0));
        for frame in 1..500 {
            bank.forget_before(frame);
            let recent = (1..=6u64).filter(|&ago| ago < frame).map(|ago| (frame - ago, Some(ago as usize)));
            let expected: Vec<_> = std::iter::once((0, None)).chain(recent).collect();
            assert_eq!(seen(&bank, frame), expected, "frame {frame}");
            let recent = (1..=15).filter(|&ago| ago < frame).map(|ago| (frame - ago, ago));
            let expected: Vec<_> = std::iter::once((0, frame)).chain(recent).collect();
            let pointers: Vec<_> =
                bank.pointers(frame).into_iter().map(|(pointer, ago)| (value(pointer), ago)).collect();
            assert_eq!(pointers, expected, "frame {frame}");
            bank.track(entry(frame));
            let (full, bare) = bank.len();
            assert!(full <= 10 && full + bare <= 18, "frame {frame}: {full} and {bare}");
        }
    }

    #[test]
    fn a_stride_looks_farther_back() {
        let mut bank = Bank::new(BankLimits { stride: 3, ..BankLimits::SAM2 });
        bank.prompt(entry(0));
        for frame in 1..100 {
            bank.forget_before(frame);
            // As in the reference: the last frame, then multiples of the stride from the one before it.
            let places = (2..=6).filter_map(|place: u64| {
                ((frame.max(2) - 2) / 3 * 3).checked_sub((place - 2) * 3).map(|at| (at, place as usize))
            });
            let expected: Vec<_> = std::iter::once((frame - 1, 1))
                .chain(places)
                // The prompted frame is among the prompted ones.
                .filter(|&(at, _)| at > 0 && at < frame)
                .collect();
            let found: Vec<_> =
                seen(&bank, frame).into_iter().filter_map(|(at, place)| Some((at, place?))).collect();
            assert_eq!(found, expected, "frame {frame}");
            bank.track(entry(frame));
            assert!(bank.len().0 <= 10, "frame {frame}: {:?}", bank.len());
        }
    }

    #[test]
    fn the_first_and_the_latest_prompted_frames_are_kept() {
        let mut bank = Bank::new(BankLimits { prompted: 3, ..BankLimits::SAM2 });
        for frame in [0, 10, 20, 30, 30, 40] {
            bank.prompt(entry(frame));
        }
        assert_eq!(seen(&bank, 50), [(0, None), (30, None), (40, None)]);
        let mut bank = Bank::new(BankLimits { prompted: 1, ..BankLimits::SAM2 });
        bank.prompt(entry(0));
        bank.prompt(entry(9));
        assert_eq!(seen(&bank, 50), [(9, None)]);
    }

    #[test]
    fn what_was_not_written_is_passed_over() {
        let mut bank = Bank::new(BankLimits::SAM2);
        bank.prompt(entry(0));
        for frame in [1, 2, 5] {
            bank.track(entry(frame));
        }
        assert_eq!(seen(&bank, 6), [(0, None), (5, Some(1)), (2, Some(4)), (1, Some(5))]);
        bank.track(Entry { features: None, ..entry(5) });
        assert_eq!(seen(&bank, 6), [(0, None), (2, Some(4)), (1, Some(5))]);
        assert_eq!(bank.pointers(6).len(), 4);
    }
}

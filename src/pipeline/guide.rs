//! Who tells the model what to look for, while the stream runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::segment::Guidance;

/// The guidance of every frame: a schedule that is known beforehand, and a live hand over it.
///
/// The worker reads it once per frame without waiting; whoever changes it (a control file, a person at the console)
/// replaces it as a whole, so a frame never sees half a change.
#[derive(Debug)]
pub struct Guide {
    /// By the number of the first frame that it is for; there is always one for frame 0.
    schedule: BTreeMap<u64, Arc<Guidance>>,
    /// Set from outside: counts for every frame from then on.
    live: ArcSwap<Option<Guidance>>,
}

impl Guide {
    /// The same for every frame, until somebody says otherwise.
    pub fn constant(guidance: Guidance) -> Self {
        Self::scheduled(guidance, [])
    }

    /// `first` from frame 0 on, then each of `later` from its frame number on.
    pub fn scheduled(first: Guidance, later: impl IntoIterator<Item = (u64, Guidance)>) -> Self {
        let mut schedule = BTreeMap::from([(0, Arc::new(first))]);
        schedule.extend(later.into_iter().map(|(frame, guidance)| (frame, Arc::new(guidance))));
        Self { schedule, live: ArcSwap::default() }
    }

    /// Asks this of every frame that the model begins from now on.
    pub fn set(&self, guidance: Guidance) {
        self.live.store(Arc::new(Some(guidance)));
    }

    /// What to ask of the frame with the number `seq` in the order of the source.
    pub fn of(&self, seq: u64) -> Arc<Guidance> {
        if let Some(live) = self.live.load().as_ref() {
            return Arc::new(live.clone());
        }
        let due = self.schedule.range(..=seq).next_back();
        due.map_or_else(Arc::default, |(_, guidance)| guidance.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Mode, Prompt};

    fn boxed(x0: f32) -> Guidance {
        Guidance::manual(vec![Prompt { bbox: Some([x0, 0.0, x0 + 1.0, 1.0]), ..Prompt::default() }])
    }

    #[test]
    fn a_change_counts_from_its_frame_on() {
        let guide = Guide::scheduled(boxed(0.0), [(5, boxed(5.0)), (9, boxed(9.0))]);
        let at = |seq| guide.of(seq).prompts[0].bbox.unwrap()[0];
        assert_eq!([0, 4, 5, 8, 9, 1000].map(at), [0.0, 0.0, 5.0, 5.0, 9.0, 9.0]);
    }

    #[test]
    fn the_live_hand_has_the_last_word() {
        let guide = Guide::scheduled(boxed(0.0), [(5, boxed(5.0))]);
        guide.set(Guidance { mode: Mode::Autonomous, prompts: Vec::new() });
        assert_eq!(guide.of(7).mode, Mode::Autonomous);
    }
}

//! Whether the model can be relied on right now, and why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer::glib;
use parking_lot::Mutex;

/// Entries kept of the log of failures; a model that fails for hours must not fill the memory.
const MAX_EVENTS: usize = 1000;

/// The model's condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The weights are being loaded.
    Starting,
    /// Frames are being segmented.
    Live,
    /// The model works, but the prompts do not fit these frames (a box outside the picture, say), or they cannot be read.
    Unfit {
        /// What does not fit.
        reason: Arc<str>,
    },
    /// Frames pass through without masks.
    Off {
        /// What happened, for the banner, the log and the report.
        reason: Arc<str>,
        /// No further restart will be tried.
        for_good: bool,
    },
}

/// One entry of the report's `ai_off`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OffEvent {
    /// Wall-clock time, ISO 8601, UTC.
    pub at: String,
    /// What happened.
    pub reason: String,
}

/// The phase, shared by all threads, and the history of failures.
#[derive(Debug)]
pub struct Ai {
    phase: Mutex<Phase>,
    /// Mirrors `phase` for the streaming thread, which must not wait on a lock.
    accepting: AtomicBool,
    /// The model is off for good: mirrors `phase` for the same reason.
    gone: AtomicBool,
    /// Recordings wait for a restart; a live picture never does.
    patient: bool,
    events: Mutex<Vec<OffEvent>>,
}

impl Ai {
    /// Begins in [`Phase::Starting`].
    pub fn new(patient: bool) -> Self {
        Self {
            phase: Mutex::new(Phase::Starting),
            accepting: AtomicBool::new(patient),
            gone: AtomicBool::new(false),
            patient,
            events: Mutex::default(),
        }
    }

    /// Whether frames may be queued for the model. Lock-free.
    pub fn accepting(&self) -> bool {
        self.accepting.load(Ordering::SeqCst)
    }

    /// Whether no mask will come any more. Lock-free.
    pub fn gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.phase.lock().clone()
    }

    /// The model is being loaded again. A verdict for good stands.
    pub fn starting(&self) {
        self.change(Phase::Starting);
    }

    /// The model works. A verdict for good stands.
    pub fn live(&self) {
        self.change(Phase::Live);
    }

    /// The model failed; logged and noted once for every change of reason.
    pub fn off(&self, reason: &str, for_good: bool) {
        match self.change(Phase::Off { reason: reason.into(), for_good }) {
            // That there is no further attempt is no further failure.
            Some(Phase::Off { reason: before, .. }) if &*before == reason => {}
            Some(_) => self.note(reason),
            None => {}
        }
    }

    /// The prompts do not fit the frame, or it cannot be read; logged and noted once for every change of reason. The next frame may fit.
    pub fn unfit(&self, reason: &str) {
        if self.change(Phase::Unfit { reason: reason.into() }).is_some() {
            self.note(reason);
        }
    }

    fn note(&self, reason: &str) {
        tracing::error!("AI OFF: {reason}");
        let at = glib::DateTime::now_utc().and_then(|t| t.format("%Y-%m-%dT%H:%M:%S.%fZ"));
        let at = at.map_or_else(|_| String::new(), Into::into);
        let mut events = self.events.lock();
        if events.len() < MAX_EVENTS {
            events.push(OffEvent { at, reason: reason.to_owned() });
        }
    }

    /// There is no model in this run, because nobody wants one: shown, but no failure.
    pub fn disabled(&self) {
        self.change(Phase::Off { reason: "switched off in the configuration".into(), for_good: true });
    }

    /// Failures so far.
    pub fn events(&self) -> Vec<OffEvent> {
        self.events.lock().clone()
    }

    /// Goes over to `to`; the phase before, or `None` if nothing has changed.
    fn change(&self, to: Phase) -> Option<Phase> {
        let mut phase = self.phase.lock();
        if *phase == to || matches!(*phase, Phase::Off { for_good: true, .. }) {
            return None;
        }
        let accepting = match &to {
            Phase::Live | Phase::Unfit { .. } => true,
            Phase::Starting => self.patient,
            Phase::Off { for_good, .. } => self.patient && !for_good,
        };
        self.accepting.store(accepting, Ordering::SeqCst);
        self.gone.store(matches!(to, Phase::Off { for_good: true, .. }), Ordering::SeqCst);
        if matches!(to, Phase::Live) {
            tracing::info!("AI LIVE");
        }
        Some(std::mem::replace(&mut *phase, to))
    }
}

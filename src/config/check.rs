//! Settings that are fine alone and impossible together.

use std::time::Duration;

use super::{Config, ConfigError, DisplayChoice, PaceChoice, QueueChoice};
use crate::segment::Mode;
use crate::weights::Family;

/// Between two frames of a slow scanner lie tens of milliseconds.
const SHORTEST_SILENCE: Duration = Duration::from_millis(100);

impl Config {
    /// Refuses impossible combinations. `live` is what [`Bound::is_live`](crate::media::template::Bound::is_live) says of the
    /// source; recordings and the phantom are not live.
    ///
    /// # Errors
    /// [`ConfigError::Combination`], with every place involved.
    pub fn check(&self, live: bool) -> Result<(), ConfigError> {
        let refuse = |what: &str, keys: &[&str]| {
            let at = keys.iter().map(|k| self.origin(k)).collect();
            Err(ConfigError::Combination { what: what.to_owned(), at })
        };
        let (display, queue, pace) = (self.stream.display, self.stream.queue, self.source.pace);
        if live && queue == QueueChoice::Lossless {
            return refuse(
                "stream.queue = \"lossless\" makes the source wait, and a live source cannot wait: expected \"latest\"",
                &["stream.queue", "source.kind"],
            );
        }
        if live && pace == PaceChoice::Fast {
            return refuse(
                "source.pace = \"fast\": a live source sets its own pace: expected \"auto\" or \"realtime\"",
                &["source.pace", "source.kind"],
            );
        }
        if display == DisplayChoice::Latest && pace == PaceChoice::Fast {
            return refuse(
                "stream.display = \"latest\" shows frames at the source's rate, which source.pace = \"fast\" does not have: \
                 expected pace \"auto\" or \"realtime\", or display \"paired\"",
                &["stream.display", "source.pace"],
            );
        }
        if display == DisplayChoice::Latest && queue == QueueChoice::Lossless {
            return refuse(
                "stream.display = \"latest\" lets every frame out at once, stream.queue = \"lossless\" makes them wait for the \
                 model: expected queue \"latest\", or display \"paired\"",
                &["stream.display", "stream.queue"],
            );
        }
        if queue == QueueChoice::Latest && pace == PaceChoice::Fast {
            return refuse(
                "stream.queue = \"latest\" drops what the model cannot take at the source's rate, which source.pace = \"fast\" does \
                 not have, and nearly every frame would go: expected pace \"auto\" or \"realtime\", or queue \"lossless\"",
                &["stream.queue", "source.pace"],
            );
        }
        if self.stream.no_signal.is_some_and(|d| d < SHORTEST_SILENCE) {
            return refuse(
                "stream.no_signal is shorter than the time between two frames may be: expected \"0s\" (off) or at least \"100ms\"",
                &["stream.no_signal"],
            );
        }
        if self.model.enabled {
            self.check_model()?;
        }
        self.check_outputs()
    }

    fn check_model(&self) -> Result<(), ConfigError> {
        let family = &self.model.family;
        if self.model.weights.is_none() {
            let what = format!(
                "model.weights is not set: expected the weights file of {family}, or model.enabled = false"
            );
            return Err(self.combination(what, &["model.weights"]));
        }
        if self.memory.settings.is_some() && self.model.views > 1 {
            let what = format!(
                "model.views = {} with memory.enabled = true: a memory is of a frame as it is; expected 1 view, or no memory",
                self.model.views
            );
            return Err(self.combination(what, &["model.views", "memory.enabled"]));
        }
        if self.memory.settings.is_some() && family.parse::<Family>().is_ok_and(|f| !f.is_sam2()) {
            let what = format!(
                "memory.enabled = true, and {family} has no memory: only SAM 2 and 2.1 can follow objects from frame to \
                 frame; expected one of their families, or memory.enabled = false"
            );
            return Err(self.combination(what, &["memory.enabled", "model.family"]));
        }
        Ok(())
    }

    fn combination(&self, what: String, keys: &[&str]) -> ConfigError {
        ConfigError::Combination { what, at: keys.iter().map(|k| self.origin(k)).collect() }
    }

    /// A family of the SAM kind segments what it is pointed at, by a person or by a prompt predictor; without either
    /// there is nothing to do. `learned` are the predictor's classes, none without a predictor.
    ///
    /// # Errors
    /// [`ConfigError::Combination`], with every place involved.
    pub fn check_prompts(&self, learned: &[String]) -> Result<(), ConfigError> {
        if !self.model.enabled {
            return Ok(());
        }
        let family = &self.model.family;
        if learned.is_empty()
            && let Some(mode) = self.model.mode.filter(|m| m.is_learned())
        {
            let what = format!(
                "model.mode = \"{mode}\" needs a prompt predictor, and neither model.ppn nor the weights have one: expected \
                 model.ppn, or mode \"manual\""
            );
            return Err(self.combination(what, &["model.mode", "model.ppn"]));
        }
        if self.classes.is_empty() && (learned.is_empty() || self.model.mode == Some(Mode::Manual)) {
            let what = format!(
                "{family} needs to be told what to segment: expected at least one [[classes]] with a box, points or a \
                 mask_prompt, or model.enabled = false"
            );
            return Err(self.combination(what, &["model.family"]));
        }
        match self.classes.iter().find(|c| !c.has_prompt() && !learned.contains(&c.name)) {
            None => Ok(()),
            Some(class) => Err(ConfigError::Combination {
                what: format!(
                    "the class {:?} has no prompt: {family} expects a box, points or a mask_prompt",
                    class.name
                ),
                at: vec![class.at.clone()],
            }),
        }
    }

    /// Two outputs in one file would destroy each other.
    fn check_outputs(&self) -> Result<(), ConfigError> {
        let sink = self.sink.params.get("path").and_then(|g| Some(g.base.join(g.value.as_str()?)));
        let files = [
            ("sink.path", sink.as_ref()),
            ("output.report", self.output.report.as_ref()),
            ("output.contact_sheet", self.output.contact_sheet.as_ref()),
            ("output.masks", self.output.masks.as_ref()),
        ];
        for (i, (a, path)) in files.iter().enumerate().filter(|(_, (_, path))| path.is_some()) {
            if let Some((b, _)) = files.iter().skip(i + 1).find(|(_, other)| other == path) {
                let what = format!("{a} and {b} are the same path: expected two different ones");
                return Err(ConfigError::Combination { what, at: vec![self.origin(a), self.origin(b)] });
            }
        }
        Ok(())
    }

    /// What `source.pace = "auto"` means for this source: `true` is real time.
    pub fn realtime(&self, live: bool) -> bool {
        match self.source.pace {
            PaceChoice::Realtime => true,
            PaceChoice::Fast => false,
            // What lets frames go by has to be given them at their rate, not at the decoder's.
            PaceChoice::Auto => {
                live || self.stream.display == DisplayChoice::Latest
                    || self.stream.queue == QueueChoice::Latest
            }
        }
    }
}

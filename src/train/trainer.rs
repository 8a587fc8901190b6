//! A training run: epochs of steps, measurements between them, and what is written down.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom as _;
use sha2::{Digest as _, Sha256};
use tch::Kind;

use super::folder::{BEST, Folder, LAST, STATE, forget, held_out_list, is_begun, keeps_inputs};
use super::journal::{Epoch, Journal};
use super::lesson::Lesson;
use super::material::held_out;
use super::observer::{Ending, Observer, Outcome};
use super::optimizer::{Group, Optimizer};
use super::output::{halved, write_tensors};
use super::random::generator;
use super::state::{self, Position, Saved};
use super::tuning::{largest, rate};
use super::{StageSpec, TrainError, TrainSpec};
use crate::segment::{BASE_SHA256, ModelSpec, Resolved, Segmenter as _};
use crate::weights::hex;

/// Time between two states within an epoch: what a kill costs at most, beside the step it interrupts.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Raised whenever a step computes something else: what was begun before is then not gone on with.
const RECIPE: u32 = 1;

/// A run in progress.
#[derive(Debug)]
struct Trainer<'a> {
    spec: &'a TrainSpec,
    settings: &'a str,
    lesson: Lesson<'a>,
    optimizer: Optimizer,
    position: Position,
}

/// Runs `spec` on `device`, or goes on with the run in its folder. `settings` is the configuration as text, which goes into the
/// files of weights.
///
/// # Errors
/// Wrong data, weights that do not fit, a full disk, a loss that is no number. What the run had come to before stays.
pub fn train(
    given: &TrainSpec,
    device: &Resolved,
    settings: &str,
    resume: bool,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let _folder = Folder::take(&given.out)?;
    if !resume {
        keeps_inputs(given)?;
    }
    let mut lesson = Lesson::new(given, device, |done, total| observer.checked(done, total))?;
    let learned = lesson.material.train.len();
    let times = given.repeats(learned);
    let spec = &given.repeated(times);
    let mut settings = settings.to_owned();
    if times > 1 {
        let said = format!("{learned} pictures: {times} times the usual epochs");
        tracing::info!("{said}");
        settings += &format!("\n# {said}");
    }
    let settings = settings.as_str();
    let parameters = &lesson.net.parameters;
    let mut optimizer = Optimizer::new(parameters, spec.weight_decay, spec.clip, spec.average)?;
    let fingerprint = fingerprint(spec, &lesson);
    let state = spec.out.join(STATE);
    let saved = if resume {
        let saved = Saved::open(&state)?;
        if saved.position.fingerprint != fingerprint {
            let what = "the run was begun with other settings, weights or pictures".to_owned();
            return Err(TrainError::Resume { file: state, what });
        }
        Some(saved)
    } else {
        None
    };
    let mut position = Position { fingerprint, ..Position::default() };
    // An earlier run is forgotten when everything that can go wrong beforehand has gone right. Where there is none, a run that is
    // killed while it encodes can be gone on with.
    let replaces = !resume && is_begun(&spec.out);
    let begin = |optimizer: &Optimizer| {
        forget(spec)?;
        state::save(&state, &position, optimizer)
    };
    if !resume && !replaces {
        begin(&optimizer)?;
    }
    // Before the run's own weights are in the network: features that are missing are to be those of the encoder as it was.
    let going = lesson.encode(|done, total| {
        observer.encoded(done, total);
        !observer.stopped()
    })?;
    if replaces {
        if !going {
            return Err(TrainError::Unbegun(spec.out.clone()));
        }
        begin(&optimizer)?;
    }
    if let Some(saved) = saved {
        saved.restore(&mut optimizer)?;
        position = saved.position;
    }
    let mut run = Trainer { spec, settings, lesson, optimizer, position };
    if !going {
        // Nothing but features, which are kept: the run can still be gone on with.
        return Ok(run.outcome(Ending::Stopped));
    }
    for (name, list) in held_out(&run.lesson.material) {
        if list.is_empty() {
            continue;
        }
        let file = held_out_list(&spec.out, &name, run.lesson.material.datasets.len());
        crate::whole::write(&file, list.as_bytes()).map_err(|e| TrainError::write(&file, e))?;
    }
    let mut journal = Journal::open(&spec.out, resume.then_some(run.position.epoch))?;
    run.epochs(&mut journal, observer)
}

/// Of everything that a step depends on, so that a run is not gone on with as another one.
fn fingerprint(spec: &TrainSpec, lesson: &Lesson<'_>) -> String {
    // Where files lie changes nothing, and what they hold is hashed.
    let mut noise: String = format!("{:?}", spec.datasets.iter().map(|data| data.noise).collect::<Vec<_>>());
    if spec.datasets.iter().any(|data| data.noise > 0.0) {
        // Which masks are damaged was drawn otherwise before; what is not damaged goes on.
        noise += " each";
    }
    if !spec.object_score && lesson.net.family.is_sam2() {
        // SAM 2's decoder learned it before, whatever was asked.
        noise += " unscored";
    }
    let nowhere = PathBuf::new();
    let model = ModelSpec { weights: nowhere.clone(), ppn: None, ..spec.model.clone() };
    let spec =
        TrainSpec { model, cache: nowhere.clone(), out: nowhere, datasets: Vec::new(), ..spec.clone() };
    let info = lesson.net.sam.info();
    let ppn = info.ppn.as_ref().and_then(|ppn| ppn.sha256.as_deref()).unwrap_or_default();
    let text = format!("{RECIPE} {spec:?} {noise} {} {ppn} {}", info.weights_sha256, lesson.material.hash);
    hex(&Sha256::digest(text))
}

impl Trainer<'_> {
    fn steps_of_epoch(&self) -> u64 {
        (self.lesson.material.train.len() as u64).div_ceil(self.spec.batch.max(1) as u64)
    }

    fn epochs(&mut self, journal: &mut Journal, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let mut first = 0;
        for stage in &self.spec.stages {
            let after = first + stage.epochs;
            if self.position.epoch == first && self.position.step == 0 {
                // What the stage before came to is not its fault.
                self.position.stale = 0;
            }
            for group in Group::ALL {
                self.optimizer.set_trained(group, largest(stage, group) > 0.0)?;
            }
            self.lesson.moved |= stage.encoder > 0.0;
            while self.position.epoch < after {
                if self.is_stale() {
                    return Ok(self.outcome(Ending::Early));
                }
                if !self.epoch(stage, first, observer)? {
                    state::save(&self.spec.out.join(STATE), &self.position, &self.optimizer)?;
                    return Ok(self.outcome(Ending::Stopped));
                }
                self.finish_epoch(stage, first, journal, observer)?;
            }
            first = after;
        }
        Ok(self.outcome(Ending::Done))
    }

    fn is_stale(&self) -> bool {
        self.spec.patience > 0 && self.position.stale >= self.spec.patience
    }

    /// The rest of the epoch that has begun; `false` if somebody asked to end.
    fn epoch(
        &mut self,
        stage: &StageSpec,
        first: u64,
        observer: &mut dyn Observer,
    ) -> Result<bool, TrainError> {
        let number = self.position.epoch;
        let mut order: Vec<usize> = (0..self.lesson.material.train.len()).collect();
        order.shuffle(&mut generator(self.spec.seed, "order", [number, 0]));
        let steps = self.steps_of_epoch();
        let all = steps * self.spec.stages.iter().map(|s| s.epochs).sum::<u64>();
        let (began, mut saved) = (Instant::now(), Instant::now());
        let before = self.position.seconds.get("train").copied().unwrap_or(0.0);
        let done = usize::try_from(self.position.step).unwrap_or(0);
        for chunk in order.chunks(self.spec.batch.max(1)).skip(done) {
            if observer.stopped() {
                return Ok(false);
            }
            let place = (number - first) * steps + self.position.step;
            let share = (place as f64 + 1.0) / (stage.epochs * steps) as f64;
            let total = self.step(chunk, stage.pyramid, |group| rate(stage, group, share))?;
            self.position.step += 1;
            self.position.steps += 1;
            let seconds = before + began.elapsed().as_secs_f64();
            self.position.seconds.insert("train".into(), seconds);
            observer.stepped((self.position.step, steps), (self.position.steps, all), total);
            if saved.elapsed() >= SAVE_EVERY {
                state::save(&self.spec.out.join(STATE), &self.position, &self.optimizer)?;
                saved = Instant::now();
            }
        }
        Ok(true)
    }

    /// One step of the optimiser: the loss is the mean over the pictures of each picture's.
    fn step(
        &mut self,
        chunk: &[usize],
        pyramid: bool,
        rate: impl Fn(Group) -> f64,
    ) -> Result<f64, TrainError> {
        let diverged = TrainError::Diverged { epoch: self.position.epoch + 1, step: self.position.steps + 1 };
        self.optimizer.zero_grad();
        let mut sum = 0.0;
        for (i, &at) in chunk.iter().enumerate() {
            let terms = self.lesson.terms(at, [self.position.steps, i as u64], pyramid)?;
            // Of a person's prompts alone a frozen decoder learns nothing.
            if terms.total.requires_grad() {
                terms.total.f_div_scalar(chunk.len() as f64)?.f_backward()?;
            }
            let parts =
                [&terms.mask, &terms.interim, &terms.bbox, &terms.presence, &terms.total].map(f64::try_from);
            for (name, value) in ["mask", "interim", "box", "presence", "total"].into_iter().zip(parts) {
                let value = value?;
                if !value.is_finite() {
                    return Err(diverged);
                }
                *self.position.sums.entry(name.into()).or_default() += value;
                if name == "total" {
                    sum += value;
                }
            }
        }
        let norm = self.optimizer.step(rate)?;
        if !norm.is_finite() {
            return Err(diverged);
        }
        self.position.norm = self.position.norm.max(norm);
        Ok(sum / chunk.len().max(1) as f64)
    }

    /// Ends an epoch: measures, writes down, keeps.
    fn finish_epoch(
        &mut self,
        stage: &StageSpec,
        first: u64,
        journal: &mut Journal,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let spec = self.spec;
        let number = self.position.epoch + 1;
        let last = number == spec.stages.iter().map(|s| s.epochs).sum::<u64>();
        let due = last || number.is_multiple_of(spec.validate_every.max(1));
        let began = Instant::now();
        let validation = if due && !self.lesson.material.validation.is_empty() {
            self.optimizer.swap()?;
            let found = tch::no_grad(|| {
                self.lesson.measure(stage.pyramid, |done, total| observer.measured(done, total))
            });
            self.optimizer.swap()?;
            found?
        } else {
            None
        };
        if validation.is_some() {
            self.position.seconds.insert("validation".into(), began.elapsed().as_secs_f64());
        }
        let pictures = self.lesson.material.train.len().max(1) as f64;
        let share = (number - first) as f64 / stage.epochs as f64;
        let mut epoch = Epoch {
            epoch: number,
            step: self.position.steps,
            stage: stage.name.clone(),
            losses: self.position.sums.iter().map(|(k, v)| (k.clone(), v / pictures)).collect(),
            learning_rates: Group::ALL.map(|g| (g.name().to_owned(), rate(stage, g, share))).into(),
            gradient_norm: self.position.norm,
            validation,
            best: false,
            seconds: self.position.seconds.clone(),
        };
        // A pyramid's masks are not the network's: its best epoch is none to use.
        let found = epoch.validation.as_ref().filter(|_| !stage.pyramid).map(|v| v.mean_dice);
        let better = found
            .is_some_and(|dice| dice.is_finite() && self.position.best.is_none_or(|(best, _)| dice > best));
        epoch.best = better;
        let position = &mut self.position;
        if let (true, Some(dice)) = (better, found) {
            (position.best, position.stale) = (Some((dice, number)), 0);
        } else if found.is_some() {
            position.stale += 1;
        }
        position.epoch = number;
        (position.step, position.norm) = (0, 0.0);
        position.sums.clear();
        position.seconds.clear();
        // Where nothing is held out the last is the best that is known.
        let is_best = better || self.lesson.material.validation.is_empty();
        self.write(if is_best { &[LAST, BEST] } else { &[LAST] }, &epoch)?;
        journal.write(&epoch)?;
        // Last: what was written for this epoch is written again, equally, if the run is killed before.
        state::save(&spec.out.join(STATE), &self.position, &self.optimizer)?;
        observer.ended(&epoch, better);
        Ok(())
    }

    /// Writes the predictor with whatever was trained beside it.
    fn write(&self, names: &[&str], epoch: &Epoch) -> Result<(), TrainError> {
        let mut tensors = self.optimizer.weights()?;
        for (name, tensor) in &self.lesson.net.carried {
            tensors.insert(name.clone(), tensor.shallow_clone());
        }
        let text = |value: serde_json::Value| value.to_string();
        let mut metadata = HashMap::from([
            ("family".to_owned(), self.lesson.net.family.name().to_owned()),
            ("decoder".to_owned(), self.spec.decoder.name().to_owned()),
            (BASE_SHA256.to_owned(), self.lesson.net.sam.info().weights_sha256.clone()),
            ("data_sha256".to_owned(), self.lesson.material.hash.clone()),
            ("config".to_owned(), self.settings.to_owned()),
            ("seed".to_owned(), self.spec.seed.to_string()),
            ("epoch".to_owned(), epoch.epoch.to_string()),
            ("metrics".to_owned(), text(serde_json::json!(epoch.validation))),
        ]);
        // How pictures are to be handled, and the classes of data sets that are carried along; the run's own come after.
        metadata.extend(self.lesson.net.says.clone());
        for set in &self.lesson.material.datasets {
            let classes: Vec<&str> = set.classes.iter().map(|class| class.name.as_str()).collect();
            metadata.insert(format!("classes.{}", set.name), text(serde_json::json!(classes)));
        }
        if self.spec.half {
            for (name, tensor) in &mut tensors {
                *tensor = halved(tensor)?.ok_or_else(|| {
                    let what = format!("{name} has values that 16 bits cannot hold: expected half = false");
                    TrainError::Setting(what)
                })?;
            }
        } else {
            for tensor in tensors.values_mut() {
                *tensor = tensor.f_to_kind(Kind::Float)?;
            }
        }
        names.iter().try_for_each(|name| {
            write_tensors(&self.spec.out.join(name), &tensors, metadata.clone(), /* on disk */ true)
        })
    }

    fn outcome(&self, ending: Ending) -> Outcome {
        let name = if self.position.best.is_some() || self.lesson.material.validation.is_empty() {
            BEST
        } else {
            LAST
        };
        Outcome {
            ending,
            epochs: self.position.epoch,
            best: self.position.best,
            file: self.spec.out.join(name),
            last: self.spec.out.join(LAST),
            fingerprint: self.position.fingerprint.clone(),
        }
    }
}

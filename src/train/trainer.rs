//! A training run: epochs of steps, measurements between them, and what is written down.

use std::time::{Duration, Instant};

use rand::seq::SliceRandom as _;

use super::fingerprint::{difference, fingerprint};
use super::folder::{BEST, Folder, LAST, STATE, forget, held_out_list, is_begun, keeps_inputs};
use super::journal::{Epoch, Journal};
use super::lesson::{Lesson, Measured};
use super::material::held_out;
use super::observer::{Ending, Observer, Outcome};
use super::optimizer::{Group, Optimizer};
use super::pace::Pace;
use super::predictor::Predictor;
use super::random::generator;
use super::state::{self, Position, Saved};
use super::tuning::{largest, rate};
use super::{StageSpec, Terms, TrainError, TrainSpec};
use crate::segment::Resolved;

/// Time between two states within an epoch: what a kill costs at most, beside the step it interrupts.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Pictures that a stage is rehearsed with, and the time after which no other is taken.
const REHEARSED: usize = 4;
const LONG_REHEARSAL: Duration = Duration::from_secs(5);

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
            let other = difference(&saved.position.fingerprint, &fingerprint);
            let what = format!("the run was begun with other {other}");
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
    let begin = |position: &Position, optimizer: &Optimizer| {
        forget(spec)?;
        state::save(&state, position, optimizer)
    };
    if !resume && !replaces {
        begin(&position, &optimizer)?;
    }
    // Before the run's own weights are in the network: features that are missing are to be those of the encoder as it was.
    let going = lesson.encode(|done, total| {
        observer.encoded(done, total);
        !observer.stopped()
    })?;
    if let Some(saved) = saved {
        saved.restore(&mut optimizer)?;
        position = saved.position;
    }
    let mut run = Trainer { spec, settings, lesson, optimizer, position };
    let takes = if going {
        run.rehearse(observer).inspect_err(|_| {
            if !resume && !replaces {
                // It learned nothing: with other settings the folder is as good as new. What can't be removed is told by the next run.
                let _ = forget(spec);
            }
        })?
    } else {
        Vec::new()
    };
    if replaces {
        if !going || observer.stopped() {
            return Err(TrainError::Unbegun(spec.out.clone()));
        }
        begin(&run.position, &run.optimizer)?;
    }
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
    run.epochs(&takes, &mut journal, observer)
}

impl Trainer<'_> {
    fn steps_of_epoch(&self) -> u64 {
        (self.lesson.material.train.len() as u64).div_ceil(self.spec.batch.max(1) as u64)
    }

    /// From now on what `stage` trains is asked for gradients, and pictures are looked at as it does.
    fn enter(&mut self, stage: &StageSpec) -> Result<(), TrainError> {
        for group in Group::ALL {
            self.optimizer.set_trained(group, largest(stage, group) > 0.0)?;
        }
        self.lesson.moved |= stage.encoder > 0.0;
        Ok(())
    }

    /// Tries every stage after the one in hand with some pictures, and learns nothing of them. What is too large for the machine, or can't be
    /// computed, is told before hours were spent on the stages before it. Returns the seconds that each of these stages takes, without
    /// measurements, and zero for the others.
    fn rehearse(&mut self, observer: &mut dyn Observer) -> Result<Vec<f64>, TrainError> {
        let (count, mut first) = (self.spec.stages.len(), 0);
        let mut takes = vec![0.0; count];
        for (i, (stage, takes)) in self.spec.stages.iter().zip(&mut takes).enumerate() {
            self.enter(stage)?;
            if first > self.position.epoch && stage.epochs > 0 && !observer.stopped() {
                observer.rehearsed(i, count);
                let picture = self
                    .rehearse_stage(i as u64, stage)
                    .map_err(|e| TrainError::rehearsal(&stage.name, e))?;
                *takes = picture * (self.lesson.material.train.len() as u64 * stage.epochs) as f64;
            }
            first += stage.epochs;
        }
        self.optimizer.zero_grad();
        self.lesson.moved = false;
        Ok(takes)
    }

    /// Seconds that a picture takes: the mean of some from all over the data, with views and prompts drawn as they are drawn in training.
    fn rehearse_stage(&mut self, number: u64, stage: &StageSpec) -> Result<f64, TrainError> {
        let (began, pictures) = (Instant::now(), self.lesson.material.train.len());
        let (mut taken, mut counted) = (0.0, 0.0);
        for i in 0..REHEARSED {
            let alone = Instant::now();
            let terms = self.learn(i * pictures / REHEARSED, [number, i as u64], stage.pyramid, 1)?;
            // A GPU has computed it when its value is there.
            f64::try_from(&terms.total)?;
            if i <= 1 {
                // The first sets up what the others have: it counts where there is no other.
                (taken, counted) = (0.0, 0.0);
            }
            taken += alone.elapsed().as_secs_f64();
            counted += 1.0;
            if began.elapsed() > LONG_REHEARSAL {
                break;
            }
        }
        Ok(taken / counted)
    }

    /// The run from where it is; `takes` says how many seconds each stage that it has not come to takes.
    fn epochs(
        &mut self,
        takes: &[f64],
        journal: &mut Journal,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        let mut first = 0;
        for (i, stage) in self.spec.stages.iter().enumerate() {
            let after = first + stage.epochs;
            let mut pace = Pace::new(takes.iter().skip(i + 1).sum());
            if self.position.epoch == first && self.position.step == 0 {
                // What the stage before came to is not its fault.
                self.position.stale = 0;
            }
            self.enter(stage)?;
            while self.position.epoch < after {
                if self.is_stale() {
                    return Ok(self.outcome(Ending::Early));
                }
                if !self.epoch(stage, first, &mut pace, observer)?
                    || !self.finish_epoch(stage, first, journal, observer)?
                {
                    state::save(&self.spec.out.join(STATE), &self.position, &self.optimizer)?;
                    return Ok(self.outcome(Ending::Stopped));
                }
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
        pace: &mut Pace,
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
            let left = pace.step(stage.epochs * steps - place - 1);
            observer.stepped((self.position.step, steps), (self.position.steps, all), total, left);
            if saved.elapsed() >= SAVE_EVERY {
                state::save(&self.spec.out.join(STATE), &self.position, &self.optimizer)?;
                saved = Instant::now();
            }
        }
        Ok(true)
    }

    /// The loss of a picture, whose gradients are added to those of the others among `pictures` that a step is made of.
    fn learn(
        &mut self,
        at: usize,
        place: [u64; 2],
        pyramid: bool,
        pictures: usize,
    ) -> Result<Terms, TrainError> {
        let terms = self.lesson.terms(at, place, pyramid)?;
        // Of a person's prompts alone a frozen decoder learns nothing.
        if terms.total.requires_grad() {
            terms.total.f_div_scalar(pictures as f64)?.f_backward()?;
        }
        Ok(terms)
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
            let terms = self.learn(at, [self.position.steps, i as u64], pyramid, chunk.len())?;
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

    /// Ends an epoch: measures, writes down, keeps; `false` if somebody asked to end meanwhile, and it is to be measured again.
    fn finish_epoch(
        &mut self,
        stage: &StageSpec,
        first: u64,
        journal: &mut Journal,
        observer: &mut dyn Observer,
    ) -> Result<bool, TrainError> {
        let spec = self.spec;
        let number = self.position.epoch + 1;
        let last = number == spec.stages.iter().map(|s| s.epochs).sum::<u64>();
        let due = last || number.is_multiple_of(spec.validate_every.max(1));
        let began = Instant::now();
        let validation = if due && !self.lesson.material.validation.is_empty() {
            self.optimizer.swap()?;
            let found = tch::no_grad(|| {
                self.lesson.measure(stage.pyramid, |done, total| {
                    observer.measured(done, total);
                    !observer.stopped()
                })
            });
            self.optimizer.swap()?;
            match found? {
                Measured::Found(validation) => Some(validation),
                Measured::Nothing => None,
                Measured::Stopped => return Ok(false),
            }
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
        let written =
            Predictor { spec, settings: self.settings, lesson: &self.lesson, optimizer: &self.optimizer };
        written.write(if is_best { &[LAST, BEST] } else { &[LAST] }, &epoch)?;
        journal.write(&epoch)?;
        // Last: what was written for this epoch is written again, equally, if the run is killed before.
        state::save(&spec.out.join(STATE), &self.position, &self.optimizer)?;
        observer.ended(&epoch, better);
        Ok(true)
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

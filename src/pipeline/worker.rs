//! The one thread that owns the model, and the watchdog over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::sync::Parker;
use parking_lot::Mutex;

use super::answer::{Answer, Failure, caught, tell_memory};
use super::exchange::Exchange;
use super::guide::Guide;
use super::sidecar::SidecarHandle;
use super::ticket::Job;
use crate::mask::Segmentation;
use crate::segment::{MemoryCounts, ModelInfo, Segmenter};
use crate::stage::{Stage, StageTimes};
use crate::state::Reset;
use crate::telemetry::SegmentTimes;

/// Longest pause between two attempts to start the model.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Threads that may be left behind in a run; each keeps its model's memory for ever.
const MAX_ABANDONED: u64 = 4;
/// Loading reads hundreds of megabytes and may compile kernels; it gets this many times the watchdog's patience.
const LOADING_PATIENCE: u32 = 6;

/// Shortest and longest time between two looks of the watchdog. Each wakes two threads, which a stream without other
/// work would feel.
const WATCH_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Makes the model, again after every failure.
pub trait ModelFactory: Send + Sync {
    /// A model ready for frames.
    ///
    /// # Errors
    /// Whatever keeps it from being made, in words for the banner.
    fn make(&self) -> Result<Box<dyn Segmenter>, String>;

    /// Takes back a model that still works when a run ends, so that the next run need not load it.
    fn give_back(&self, _model: Box<dyn Segmenter>) {}
}

/// How the worker treats frames and failures.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// What to look for in which frame.
    pub guide: Arc<Guide>,
    /// Names of the classes, for the log.
    pub classes: Vec<String>,
    /// Time after which a frame is given up and the worker replaced.
    pub watchdog: Duration,
    /// First pause after a failure; doubles with every further one.
    pub backoff: Duration,
    /// Restarts in a row without a result after which the model stays off.
    pub max_restarts: u32,
}

#[derive(Debug)]
enum Activity {
    Idle,
    Loading(Instant),
    GivingBack(Instant),
    Busy(Instant, Job),
}

#[derive(Debug)]
struct Current {
    /// Rises when a stuck thread is given up; that thread may then change nothing any more.
    generation: u64,
    activity: Activity,
}

/// The worker as the rest of the run sees it.
pub struct Worker {
    config: WorkerConfig,
    exchange: Arc<Exchange>,
    factory: Arc<dyn ModelFactory>,
    sidecar: Option<SidecarHandle>,
    current: Mutex<Current>,
    failures: AtomicU32,
    stop: AtomicBool,
    info: Mutex<Option<ModelInfo>>,
    memory: Mutex<Option<MemoryCounts>>,
    /// Of the last frame that a model was given: the stream may begin again while there is none.
    epoch: Mutex<Option<u32>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts the thread; it loads the model first.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        config: WorkerConfig,
        exchange: Arc<Exchange>,
        factory: Arc<dyn ModelFactory>,
        sidecar: Option<SidecarHandle>,
    ) -> std::io::Result<Arc<Self>> {
        let worker = Arc::new(Self {
            config,
            exchange,
            factory,
            sidecar,
            current: Mutex::new(Current { generation: 0, activity: Activity::Idle }),
            failures: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            info: Mutex::default(),
            memory: Mutex::default(),
            epoch: Mutex::default(),
            thread: Mutex::default(),
        });
        worker.spawn(0, Duration::ZERO)?;
        Ok(worker)
    }

    /// What the report says of the model, once it was loaded.
    pub fn info(&self) -> Option<ModelInfo> {
        self.info.lock().clone()
    }

    /// What the report says of the model's memory, if it has one.
    pub fn memory(&self) -> Option<MemoryCounts> {
        self.memory.lock().clone()
    }

    /// How often [`Worker::watch`] is to be called, so that a stuck thread is given up at most an eighth of the watchdog's
    /// time late.
    pub fn watch_every(&self) -> Duration {
        (self.config.watchdog / 8).clamp(WATCH_EVERY.0, WATCH_EVERY.1)
    }

    /// Gives up a thread that has been busy for too long.
    pub fn watch(self: &Arc<Self>) {
        let mut current = self.current.lock();
        let (since, limit, doing) = match &current.activity {
            Activity::Idle => return,
            Activity::Loading(since) => {
                (*since, self.config.watchdog * LOADING_PATIENCE, "loading the model")
            }
            Activity::GivingBack(since) => {
                (*since, self.config.watchdog * LOADING_PATIENCE, "giving back a failed model's memory")
            }
            Activity::Busy(since, _) => (*since, self.config.watchdog, "one frame"),
        };
        if since.elapsed() < limit {
            return;
        }
        current.generation += 1;
        let generation = current.generation;
        let stuck = std::mem::replace(&mut current.activity, Activity::Idle);
        drop(current);
        if generation >= MAX_ABANDONED {
            self.failures.store(self.config.max_restarts, Ordering::SeqCst);
        }
        let pause = self.failed(&format!("stuck in {doing} for {:.1} s", limit.as_secs_f64()));
        if let Activity::Busy(_, job) = stuck {
            self.exchange.pass(job);
        }
        if let Some(pause) = pause
            && let Err(e) = self.spawn(generation, pause)
        {
            self.exchange.ai().off(&format!("cannot start a thread: {e}"), true);
            self.exchange.release_waiting();
        }
    }

    /// Asks the thread to end, and waits for it up to `patience`. One that is still busy then is left behind.
    pub fn stop(&self, patience: Duration) {
        self.stop.store(true, Ordering::SeqCst);
        self.exchange.wake_worker();
        let Some(thread) = self.thread.lock().take() else { return };
        let deadline = Instant::now() + patience;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if !thread.is_finished() {
            let doing = match &self.current.lock().activity {
                Activity::Idle => "with a model that was given up",
                Activity::Loading(_) => "loading the model",
                Activity::GivingBack(_) => "giving back a failed model's memory",
                Activity::Busy(..) => "with a frame",
            };
            tracing::warn!(
                "the worker was still busy {doing} {:.1} s after the end, and is left behind",
                patience.as_secs_f64()
            );
        } else if thread.join().is_err() {
            tracing::error!("the worker thread panicked outside the model");
        }
    }

    fn spawn(self: &Arc<Self>, generation: u64, pause: Duration) -> std::io::Result<()> {
        let worker = self.clone();
        let thread =
            std::thread::Builder::new().name("worker".into()).spawn(move || worker.run(generation, pause))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    fn run(&self, generation: u64, pause: Duration) {
        if self.exchange.is_live() {
            give_way();
        }
        let parker = Parker::new();
        self.exchange.set_worker(parker.unparker().clone());
        let mut model: Option<Box<dyn Segmenter>> = None;
        let mut pause = Some(pause);
        while let Some(wait) = pause.take() {
            if !self.sleep(&parker, wait, generation) {
                return;
            }
            let failure = match self.load(generation) {
                Some(Ok(loaded)) => self.serve(model.insert(loaded).as_mut(), &parker, generation),
                Some(Err(reason)) => Some(reason),
                None => return,
            };
            match failure {
                Some(reason) => {
                    // A model that failed once may hold a broken state or memory it should give back. That can hang as loading can, and is
                    // watched as well; no mask of it is drawn meanwhile.
                    self.exchange.forget_newest();
                    if self.begin(generation, Activity::GivingBack(Instant::now())).is_none() {
                        return;
                    }
                    model = None;
                    if self.finish(generation).is_none() {
                        return;
                    }
                    pause = self.failed(&reason);
                }
                None if self.is_mine(generation) => {
                    if let Some(model) = model.take() {
                        self.factory.give_back(model);
                    }
                }
                None => {}
            }
        }
    }

    /// Loads the model; `None` if this thread was given up meanwhile.
    fn load(&self, generation: u64) -> Option<Result<Box<dyn Segmenter>, String>> {
        self.exchange.ai().starting();
        self.begin(generation, Activity::Loading(Instant::now()))?;
        let asked = || {
            let mut model = self.begin_memory(self.factory.make()?);
            let said = (model.info().clone(), model.take_events());
            Ok((model, said))
        };
        let made = caught(asked, |panic| format!("panic while loading: {panic}"));
        self.finish(generation)?;
        Some(made.map(|(model, (info, events))| {
            *self.info.lock() = Some(info);
            tell_memory(events, &self.config.classes);
            self.exchange.ai().live();
            model
        }))
    }

    /// Segments frames until told to stop (`None`) or until the model fails (the reason).
    fn serve(&self, model: &mut dyn Segmenter, parker: &Parker, generation: u64) -> Option<String> {
        let mut unfit = false;
        let before = self.memory().unwrap_or_default();
        loop {
            if self.is_over(generation) {
                return None;
            }
            let Some(job) = self.exchange.next_job() else {
                parker.park();
                continue;
            };
            let mut times = StageTimes::default();
            times.add(Stage::QueueWait, job.frame.queued.elapsed().as_nanos() as u64);
            self.begin(generation, Activity::Busy(Instant::now(), job.clone()))?;
            let began = Instant::now();
            let Answer { masks, remark, events, memory } = self.ask(model, &job, &mut times);
            let ended = Instant::now();
            self.finish(generation)?;
            tell_memory(events, &self.config.classes);
            self.count_memory(memory, &before, masks.is_ok());
            match masks {
                Ok(masks) => {
                    self.failures.store(0, Ordering::SeqCst);
                    if std::mem::take(&mut unfit) {
                        self.exchange.ai().live();
                    }
                    let segmentation = Arc::new(Segmentation { frame: job.frame.meta, masks, times, remark });
                    if let Some(sidecar) = &self.sidecar {
                        sidecar.masks(segmentation.clone());
                    }
                    if let Some(tape) = self.exchange.recorder().tape() {
                        tape.segmented(SegmentTimes { meta: job.frame.meta, began, ended, stages: times });
                    }
                    self.exchange.recorder().record(|d| d.record_stages(&times));
                    self.exchange.publish(job, segmentation);
                }
                Err(Failure::Unfit(reason)) => {
                    unfit = true;
                    self.exchange.ai().unfit(&reason);
                    self.exchange.forget_newest();
                    self.exchange.pass(job);
                }
                Err(Failure::Broken(reason)) => {
                    // Named before the frame is let go, so that its banner can say why.
                    self.exchange.ai().off(&reason, false);
                    self.exchange.pass(job);
                    return Some(reason);
                }
            }
        }
    }

    /// A model begins, the first of the run or another one after a failure. What was said of frames before counts only where
    /// there was one with masks: else it was never heard.
    fn begin_memory(&self, mut model: Box<dyn Segmenter>) -> Box<dyn Segmenter> {
        model.forget(None);
        if self.memory.lock().is_some() {
            model.forget(Some(Reset::Model));
        }
        model
    }

    /// Notes what the memory has counted: from the first frame with masks on, see [`Worker::begin_memory`].
    fn count_memory(&self, counts: Option<MemoryCounts>, before: &MemoryCounts, masks: bool) {
        let mut memory = self.memory.lock();
        if let Some(counts) = counts.filter(|_| masks || memory.is_some()) {
            *memory = Some(counts.after(before));
        }
    }

    /// What the model says of one frame.
    fn ask(&self, model: &mut dyn Segmenter, job: &Job, times: &mut StageTimes) -> Answer {
        let id = job.frame.meta.id;
        let guidance = self.config.guide.of(id.seq);
        let begins = self.epoch.lock().replace(id.epoch).is_some_and(|before| before != id.epoch);
        Answer::of(model, job, &guidance, begins, times)
    }

    /// Notes a failure; the pause before the next attempt, or `None` if there is none.
    fn failed(&self, reason: &str) -> Option<Duration> {
        let failures = self.failures.fetch_add(1, Ordering::SeqCst) + 1;
        let for_good = failures > self.config.max_restarts;
        self.exchange.ai().off(reason, for_good);
        self.exchange.forget_newest();
        if !self.exchange.ai().accepting() {
            self.exchange.release_waiting();
        }
        let pause = self.config.backoff.saturating_mul(1 << (failures - 1).min(16)).min(MAX_BACKOFF);
        (!for_good).then_some(pause)
    }

    /// Whether the thread of this generation has nothing more to do. Of a run that was stopped nobody waits for an answer any more:
    /// the compositor drops what is queued, and counts it.
    fn is_over(&self, generation: u64) -> bool {
        self.stop.load(Ordering::SeqCst) || self.exchange.stopping() || !self.is_mine(generation)
    }

    fn is_mine(&self, generation: u64) -> bool {
        self.current.lock().generation == generation
    }

    fn begin(&self, generation: u64, activity: Activity) -> Option<()> {
        let mut current = self.current.lock();
        (current.generation == generation).then(|| current.activity = activity)
    }

    fn finish(&self, generation: u64) -> Option<()> {
        self.begin(generation, Activity::Idle)
    }

    /// Waits out a pause; `false` if there is no need to go on.
    fn sleep(&self, parker: &Parker, pause: Duration, generation: u64) -> bool {
        let deadline = Instant::now() + pause;
        loop {
            if self.is_over(generation) {
                return false;
            }
            if Instant::now() >= deadline {
                return true;
            }
            // New frames unpark too; the loop then waits on.
            parker.park_deadline(deadline);
        }
    }
}

/// Makes the model's threads give way to those of a live picture where there are too few processors for both.
fn give_way() {
    /// Of the 20 steps there are.
    const STEPS: libc::c_int = 10;
    // SAFETY: it takes numbers alone. On Linux 0 is the calling thread; libtorch's own threads, which it starts, are as it is.
    // Where it is refused nothing is lost but time.
    #[cfg(target_os = "linux")]
    unsafe {
        let before = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, before + STEPS);
    }
}

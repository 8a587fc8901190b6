//! How long the stages take on a GPU, without waiting for them.
//!
//! Kernels are queued, and a stage ends when they have run. Waiting for that after each stage would leave the GPU idle until the next
//! one is queued; instead an event is queued behind each stage, and its time is read when the frame's answer has been.

use std::ffi::{CStr, c_int, c_void};
use std::fmt;

use parking_lot::Mutex;
use tch::{Device, TchError};

use super::library;
use super::preprocess::settle;
use crate::stage::{Stage, StageTimes};

/// Most marks of a frame; what comes after them is not measured.
const MOST: usize = 256;

/// Points in what a device does, by their number.
trait Events: fmt::Debug + Send {
    /// Puts point `at` behind everything that is queued; an earlier one of this number is forgotten. `false` if that fails.
    fn record(&mut self, at: usize) -> bool;
    /// Waits until the device has come to a point. `false` if that fails.
    fn wait(&self, at: usize) -> bool;
    /// Milliseconds from one point to another, to which the device has come; `None` if that fails.
    fn between(&self, from: usize, to: usize) -> Option<f32>;
}

/// What charges times to the stages of a frame on a device.
#[derive(Debug)]
pub struct Clock {
    device: Device,
    /// Where stages end, on a GPU that can say so.
    marks: Option<Mutex<Marks>>,
}

impl Clock {
    /// For `device`.
    pub fn new(device: Device) -> Self {
        Self { device, marks: Marks::new(device).map(Mutex::new) }
    }

    /// A frame begins.
    pub fn begin(&self) {
        if let Some(marks) = &self.marks {
            marks.lock().begin();
        }
    }

    /// What has been done since the last stage ended belongs to none, or was measured by somebody else.
    pub fn pass(&self) {
        if let Some(marks) = &self.marks {
            marks.lock().put(None);
        }
    }

    /// Runs `work` and charges its time to `stage`. Kernels are queued on a GPU, and the stage ends when they have run: that is marked
    /// there, or waited for where it cannot be.
    pub fn timed<T, E: From<TchError>>(
        &self,
        times: &mut StageTimes,
        stage: Stage,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(marks) = &self.marks {
            let done = work()?;
            marks.lock().put(Some(stage));
            return Ok(done);
        }
        times.time(stage, || {
            let done = work()?;
            settle(self.device)?;
            Ok(done)
        })
    }

    /// A frame is done as far as anybody waits for it: adds to `times` what was only marked, and what was left to be done of the frame before. What
    /// comes until the next frame begins is charged to that.
    pub fn collect(&self, times: &mut StageTimes) {
        if let Some(marks) = &self.marks {
            marks.lock().collect(times);
        }
    }
}

/// Where the stages of a frame end on a device.
#[derive(Debug)]
struct Marks {
    events: Box<dyn Events>,
    /// The stage that ends at each point, by its number; none where something that is no stage has ended.
    stages: Vec<Option<Stage>>,
    /// They are of a frame that is done, and nobody has waited for them.
    left: bool,
}

impl Marks {
    /// For `device`; `None` where it has no events: on a CPU, or where the CUDA runtime is not to be found.
    fn new(device: Device) -> Option<Self> {
        // Events belong to the device that is current when they are made: the first, unless somebody changes it.
        match device {
            Device::Cuda(0) => Some(Self::of(Box::new(CudaEvents::load()?))),
            _ => None,
        }
    }

    fn of(events: Box<dyn Events>) -> Self {
        Self { events, stages: Vec::with_capacity(MOST), left: false }
    }

    /// A frame begins; what one that failed has left is forgotten.
    fn begin(&mut self) {
        if !std::mem::take(&mut self.left) {
            self.stages.clear();
        }
        self.put(None);
    }

    /// `stage` ends here, having begun at the mark before; with none, something that is no stage or is measured elsewhere.
    fn put(&mut self, stage: Option<Stage>) {
        let at = self.stages.len();
        if at < MOST && self.events.record(at) {
            self.stages.push(stage);
        }
    }

    /// Waits for the last mark and adds what the stages took to `times`.
    fn collect(&mut self, times: &mut StageTimes) {
        let last = self.stages.len().checked_sub(1);
        if last.is_some_and(|last| self.events.wait(last)) {
            for (at, stage) in self.stages.iter().enumerate().skip(1) {
                if let Some((stage, millis)) = stage.zip(self.events.between(at - 1, at)) {
                    times.add(stage, (f64::from(millis.max(0.0)) * 1e6) as u64);
                }
            }
        }
        self.stages.clear();
        // Where what is left to be done begins.
        self.put(None);
        self.left = true;
    }
}

/// The CUDA runtime's success.
const SUCCESS: c_int = 0;

type Event = *mut c_void;

/// Events of the CUDA runtime that libtorch has loaded, on the first device's default stream, where tch queues everything.
struct CudaEvents {
    record: unsafe extern "C" fn(Event, *mut c_void) -> c_int,
    wait: unsafe extern "C" fn(Event) -> c_int,
    elapsed: unsafe extern "C" fn(*mut f32, Event, Event) -> c_int,
    destroy: unsafe extern "C" fn(Event) -> c_int,
    events: Vec<Event>,
}

// SAFETY: the runtime's functions may be called from any thread, and its events are handles that belong to none.
unsafe impl Send for CudaEvents {}

impl fmt::Debug for CudaEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaEvents").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

impl CudaEvents {
    fn load() -> Option<Self> {
        type Create = unsafe extern "C" fn(*mut Event) -> c_int;
        type Record = unsafe extern "C" fn(Event, *mut c_void) -> c_int;
        type Elapsed = unsafe extern "C" fn(*mut f32, Event, Event) -> c_int;
        type Of = unsafe extern "C" fn(Event) -> c_int;
        let symbol = |name: &CStr| library::symbol(libc::RTLD_DEFAULT, name).ok();
        let (create, record) = (symbol(c"cudaEventCreate")?, symbol(c"cudaEventRecord")?);
        let (wait, elapsed) = (symbol(c"cudaEventSynchronize")?, symbol(c"cudaEventElapsedTime")?);
        let destroy = symbol(c"cudaEventDestroy")?;
        // SAFETY: the CUDA runtime documents these symbols as C functions of these types.
        let (create, record, wait, elapsed, destroy) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Create>(create),
                std::mem::transmute::<*mut c_void, Record>(record),
                std::mem::transmute::<*mut c_void, Of>(wait),
                std::mem::transmute::<*mut c_void, Elapsed>(elapsed),
                std::mem::transmute::<*mut c_void, Of>(destroy),
            )
        };
        let mut made = Self { record, wait, elapsed, destroy, events: Vec::new() };
        for _ in 0..MOST {
            let mut event = std::ptr::null_mut();
            // SAFETY: it writes one handle to where the pointer says.
            if unsafe { create(&mut event) } != SUCCESS {
                return None;
            }
            made.events.push(event);
        }
        Some(made)
    }
}

impl Drop for CudaEvents {
    fn drop(&mut self) {
        for event in &self.events {
            // SAFETY: made by `create`, destroyed once.
            unsafe { (self.destroy)(*event) };
        }
    }
}

impl Events for CudaEvents {
    fn record(&mut self, at: usize) -> bool {
        let Some(event) = self.events.get(at) else { return false };
        // SAFETY: a living event, and the default stream, which is always there.
        unsafe { (self.record)(*event, std::ptr::null_mut()) == SUCCESS }
    }

    fn wait(&self, at: usize) -> bool {
        let Some(event) = self.events.get(at) else { return false };
        // SAFETY: a living event.
        unsafe { (self.wait)(*event) == SUCCESS }
    }

    fn between(&self, from: usize, to: usize) -> Option<f32> {
        let (from, to) = (self.events.get(from)?, self.events.get(to)?);
        let mut millis = 0.0;
        // SAFETY: living events, and a place for one number.
        (unsafe { (self.elapsed)(&mut millis, *from, *to) } == SUCCESS).then_some(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Point `n` comes `n + 1` milliseconds after the one before it; waiting fails where the test wants it.
    #[derive(Debug, Default)]
    struct Fake {
        points: Vec<f32>,
        now: f32,
        fails: bool,
    }

    impl Events for Fake {
        fn record(&mut self, at: usize) -> bool {
            self.points.resize(self.points.len().max(at + 1), 0.0);
            self.now += 1.0 + at as f32;
            self.points[at] = self.now;
            true
        }

        fn wait(&self, at: usize) -> bool {
            assert!(at < self.points.len());
            !self.fails
        }

        fn between(&self, from: usize, to: usize) -> Option<f32> {
            Some(self.points[to] - self.points[from])
        }
    }

    fn millis(times: &StageTimes, stage: Stage) -> Option<u64> {
        times.get(stage).map(|nanos| nanos / 1_000_000)
    }

    #[test]
    fn a_stage_takes_from_where_the_one_before_it_ended() {
        let mut marks = Marks::of(Box::new(Fake::default()));
        // The second frame begins behind a point that the first has left.
        for (encode, decode) in [(2, 3 + 5), (3, 4 + 6)] {
            marks.begin();
            marks.put(Some(Stage::Encode));
            marks.put(Some(Stage::Decode));
            marks.put(None);
            marks.put(Some(Stage::Decode));
            let mut times = StageTimes::default();
            marks.collect(&mut times);
            // Points 0 to 4; what was passed, point 3, belongs to nobody.
            assert_eq!(
                (millis(&times, Stage::Encode), millis(&times, Stage::Decode)),
                (Some(encode), Some(decode))
            );
            let before = times;
            marks.collect(&mut times);
            assert_eq!(times, before);
        }
    }

    #[test]
    fn what_nobody_waits_for_is_charged_to_the_next_frame() {
        let mut marks = Marks::of(Box::new(Fake::default()));
        marks.begin();
        marks.put(Some(Stage::Decode));
        let mut times = StageTimes::default();
        marks.collect(&mut times);
        assert_eq!(millis(&times, Stage::MemoryEncoder), None);
        marks.put(Some(Stage::MemoryEncoder));
        // Points 0 and 1 are left; between the frames nobody is charged.
        marks.begin();
        marks.put(Some(Stage::Decode));
        let mut times = StageTimes::default();
        marks.collect(&mut times);
        assert_eq!((millis(&times, Stage::MemoryEncoder), millis(&times, Stage::Decode)), (Some(2), Some(4)));
        // What a frame leaves goes with the next one, if that fails.
        marks.put(Some(Stage::MemoryEncoder));
        marks.begin();
        marks.begin();
        marks.put(Some(Stage::Decode));
        let mut times = StageTimes::default();
        marks.collect(&mut times);
        assert_eq!(millis(&times, Stage::MemoryEncoder), None);
    }

    #[test]
    fn a_frame_that_failed_leaves_nothing_to_the_next() {
        let mut marks = Marks::of(Box::new(Fake::default()));
        marks.begin();
        marks.put(Some(Stage::Encode));
        marks.begin();
        marks.put(Some(Stage::Decode));
        let mut times = StageTimes::default();
        marks.collect(&mut times);
        assert_eq!((millis(&times, Stage::Encode), millis(&times, Stage::Decode)), (None, Some(2)));
    }

    #[test]
    fn a_device_that_fails_and_frames_without_end_are_survived() {
        let mut marks = Marks::of(Box::new(Fake { fails: true, ..Fake::default() }));
        for _ in 0..10 * MOST {
            marks.put(Some(Stage::Encode));
        }
        let mut times = StageTimes::default();
        marks.collect(&mut times);
        assert_eq!(times, StageTimes::default());
        assert!(marks.stages.len() < 2);
    }

    #[test]
    fn a_cpu_has_no_events() {
        assert!(Marks::new(Device::Cpu).is_none());
    }
}

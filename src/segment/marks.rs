//! How long the stages take on a GPU, without waiting for them.
//!
//! Kernels are queued, and a stage ends when they have run. Waiting for that after each stage would leave the GPU idle until the next
//! one is queued; instead an event is queued behind each stage, and its time is read when the frame's answer has been.

use std::collections::VecDeque;
use std::ffi::{CStr, c_int, c_void};
use std::fmt;

use tch::Device;

use crate::stage::{Stage, StageTimes};

/// Marks that are not read yet; frames that fail leave theirs behind.
const MOST: usize = 256;

/// Points in what a device does, by their number.
pub trait Events: fmt::Debug + Send + Sync {
    /// Puts point `at` behind everything that is queued; an earlier one of this number is forgotten. `false` if that fails.
    fn record(&mut self, at: usize) -> bool;
    /// Milliseconds from one point to another; `None` if the device has not come to them yet.
    fn between(&self, from: usize, to: usize) -> Option<f32>;
}

/// Where stages end on a device.
#[derive(Debug)]
pub struct Marks {
    events: Box<dyn Events>,
    /// Points in their order, each with the stage that ends there; none at the beginning of a frame.
    pending: VecDeque<(usize, Option<Stage>)>,
    next: usize,
}

impl Marks {
    /// For `device`; `None` where it has no events: on a CPU, or where the CUDA runtime is not to be found.
    pub fn new(device: Device) -> Option<Self> {
        // Events belong to the device that is current when they are made: the first, unless somebody changes it.
        match device {
            Device::Cuda(0) => Some(Self::of(Box::new(CudaEvents::load()?))),
            _ => None,
        }
    }

    fn of(events: Box<dyn Events>) -> Self {
        Self { events, pending: VecDeque::new(), next: 0 }
    }

    /// A frame begins here, or something that is no stage has ended.
    pub fn begin(&mut self) {
        self.put(None);
    }

    /// `stage` ends here; it has begun where the one before it ended.
    pub fn end(&mut self, stage: Stage) {
        self.put(Some(stage));
    }

    fn put(&mut self, stage: Option<Stage>) {
        if self.pending.len() == MOST {
            self.pending.pop_front();
        }
        let at = self.next;
        if self.events.record(at) {
            self.next = (at + 1) % (MOST + 1);
            self.pending.push_back((at, stage));
        }
    }

    /// Adds what is known by now to `times`: the stages up to the last one that the device has ended.
    pub fn collect(&mut self, times: &mut StageTimes) {
        while let (Some(&(from, _)), Some(&(to, stage))) = (self.pending.front(), self.pending.get(1)) {
            if let Some(stage) = stage {
                let Some(millis) = self.events.between(from, to) else { return };
                times.add(stage, (f64::from(millis.max(0.0)) * 1e6) as u64);
            }
            self.pending.pop_front();
        }
    }
}

/// The CUDA runtime's success.
const SUCCESS: c_int = 0;

type Event = *mut c_void;

/// Events of the CUDA runtime that libtorch has loaded, on the first device's default stream, where tch queues everything.
struct CudaEvents {
    record: unsafe extern "C" fn(Event, *mut c_void) -> c_int,
    elapsed: unsafe extern "C" fn(*mut f32, Event, Event) -> c_int,
    destroy: unsafe extern "C" fn(Event) -> c_int,
    events: Vec<Event>,
}

// SAFETY: the runtime's functions may be called from any thread, and its events are handles that belong to none.
unsafe impl Send for CudaEvents {}
// SAFETY: as above; what takes `&self` only reads.
unsafe impl Sync for CudaEvents {}

impl fmt::Debug for CudaEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaEvents").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

impl CudaEvents {
    fn load() -> Option<Self> {
        let create = symbol(c"cudaEventCreate")?;
        let (record, elapsed, destroy) =
            (symbol(c"cudaEventRecord")?, symbol(c"cudaEventElapsedTime")?, symbol(c"cudaEventDestroy")?);
        // SAFETY: the CUDA runtime documents these symbols as C functions of these types.
        let (create, record, elapsed, destroy) = unsafe {
            (
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut Event) -> c_int>(create),
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Event, *mut c_void) -> c_int>(record),
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut f32, Event, Event) -> c_int>(
                    elapsed,
                ),
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Event) -> c_int>(destroy),
            )
        };
        let mut made = Self { record, elapsed, destroy, events: Vec::new() };
        for _ in 0..=MOST {
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

    fn between(&self, from: usize, to: usize) -> Option<f32> {
        let (from, to) = (self.events.get(from)?, self.events.get(to)?);
        let mut millis = 0.0;
        // SAFETY: living events, and a place for one number.
        (unsafe { (self.elapsed)(&mut millis, *from, *to) } == SUCCESS).then_some(millis)
    }
}

/// A function of a library that is loaded.
fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a NUL-terminated string; nothing is loaded or run by asking.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// A device that is as far as the test says.
    #[derive(Debug, Default, Clone)]
    struct Fake(Arc<Mutex<(Vec<f32>, f32)>>);

    impl Events for Fake {
        fn record(&mut self, at: usize) -> bool {
            let mut fake = self.0.lock();
            let (points, now) = &mut *fake;
            points.resize(points.len().max(at + 1), 0.0);
            *now += 1.0 + at as f32;
            points[at] = *now;
            true
        }

        fn between(&self, from: usize, to: usize) -> Option<f32> {
            let (points, now) = &*self.0.lock();
            (points[to] <= *now).then(|| points[to] - points[from])
        }
    }

    fn millis(times: &StageTimes, stage: Stage) -> Option<u64> {
        times.get(stage).map(|nanos| nanos / 1_000_000)
    }

    #[test]
    fn a_stage_takes_from_where_the_one_before_it_ended() {
        let mut marks = Marks::of(Box::new(Fake::default()));
        marks.begin();
        marks.end(Stage::Encode);
        marks.end(Stage::Decode);
        marks.begin();
        marks.end(Stage::Decode);
        let mut times = StageTimes::default();
        marks.collect(&mut times);
        // Points at 1, 3, 6, 10, 15; from 6 to 10 nothing was measured.
        assert_eq!((millis(&times, Stage::Encode), millis(&times, Stage::Decode)), (Some(2), Some(3 + 5)));
        let before = times;
        marks.collect(&mut times);
        assert_eq!(times, before);
    }

    #[test]
    fn what_the_device_has_not_done_yet_belongs_to_the_next_reading() {
        let fake = Fake::default();
        let mut marks = Marks::of(Box::new(fake.clone()));
        marks.begin();
        marks.end(Stage::Encode);
        marks.end(Stage::MemoryEncoder);
        let end = std::mem::replace(&mut fake.0.lock().1, 3.0);
        let mut times = StageTimes::default();
        marks.collect(&mut times);
        assert_eq!((millis(&times, Stage::Encode), millis(&times, Stage::MemoryEncoder)), (Some(2), None));
        fake.0.lock().1 = end;
        let mut times = StageTimes::default();
        marks.collect(&mut times);
        assert_eq!((millis(&times, Stage::Encode), millis(&times, Stage::MemoryEncoder)), (None, Some(3)));
    }

    #[test]
    fn marks_that_nobody_reads_do_not_pile_up() {
        let mut marks = Marks::of(Box::new(Fake::default()));
        for _ in 0..10 * MOST {
            marks.end(Stage::Encode);
        }
        assert_eq!(marks.pending.len(), MOST);
        marks.collect(&mut StageTimes::default());
        assert_eq!(marks.pending.len(), 1);
    }

    #[test]
    fn a_cpu_has_no_events() {
        assert!(Marks::new(Device::Cpu).is_none());
    }
}

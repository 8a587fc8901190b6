//! The bytes of a frame on their way to the device.

use tch::{Device, Kind, TchError, Tensor};

use crate::segment::graph::{GraphError, Lane};

/// Memory from which a frame goes to the device, kept from frame to frame. For a GPU it is page-locked where that can be had, so that
/// the copy runs while the CPU goes on.
#[derive(Debug)]
pub struct Staging {
    device: Device,
    bytes: Option<Tensor>,
    /// A copy out of it may be under way.
    busy: bool,
    /// Where frames have a lane, what they come to by it.
    landing: Option<Landing>,
}

/// Memory of the device to which frames come by a lane, kept from frame to frame: new memory may be where
/// something is still at work that was queued before, and the lane would have to wait for all of that.
#[derive(Debug)]
struct Landing {
    lane: Box<dyn Lane>,
    bytes: Option<Tensor>,
    /// The lane knows what it has to wait for before it copies there.
    marked: bool,
}

impl Landing {
    /// `from` `[len]`, on `device`, in the memory that the next frame comes to.
    fn take(&mut self, from: &Tensor, device: Device) -> Result<Tensor, GraphError> {
        let len = from.numel();
        let bytes = match self.bytes.take().filter(|bytes| bytes.numel() >= len) {
            Some(bytes) => bytes,
            None => {
                // The smaller one goes back to libtorch's allocator, which gives it away again in the order
                // of the network's stream. That waits for the last copy, and whoever reads it is queued
                // behind that: nobody is at work in it when it is somebody else's. What comes instead may be
                // where that stream is still at work, so the lane has to wait for all that is queued by now.
                self.marked = false;
                Tensor::f_empty([len as i64], (Kind::Uint8, device))?
            }
        };
        let place = bytes.f_narrow(0, 0, len as i64);
        self.bytes = Some(bytes);
        let place = place?;
        if !std::mem::take(&mut self.marked) {
            // Also after a frame that failed before it was used.
            self.lane.used()?;
        }
        self.lane.copy(&place, from)?;
        Ok(place)
    }

    fn used(&mut self) -> Result<(), GraphError> {
        self.lane.used()?;
        self.marked = true;
        Ok(())
    }
}

impl Staging {
    /// Nothing yet, for `device`.
    pub fn new(device: Device) -> Self {
        Self { device, bytes: None, busy: false, landing: None }
    }

    /// Frames go by `lane` from here on.
    pub fn send_by(&mut self, lane: Box<dyn Lane>) {
        self.landing = Some(Landing { lane, bytes: None, marked: false });
    }

    /// The frame has come to the device; who has read an answer that was made of it knows it.
    pub fn settled(&mut self) {
        self.busy = false;
    }

    /// All that reads what was sent has been queued on the device: the next frame may take its place.
    pub fn used(&mut self) {
        if let Some(landing) = &mut self.landing
            && let Err(error) = landing.used()
        {
            self.go_without(&error);
        }
    }

    /// From here on frames are copied in the order of everything else.
    fn go_without(&mut self, error: &GraphError) {
        tracing::warn!("frames have no stream of their own to the device: {error}");
        self.landing = None;
    }

    /// What `write` leaves in `len` bytes, on the device: `[len]`. On a GPU it may still be on its way there;
    /// what is queued there waits for it. With a lane the next frame takes its place: what reads it is queued
    /// before [`Staging::used`] is called.
    ///
    /// # Errors
    /// libtorch's: no memory that can be page-locked, none on the device. One of the lane is logged, and
    /// frames go without one from then on.
    pub fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<Tensor, TchError> {
        if self.busy {
            // The frame before this one failed before its answer was read.
            settle(self.device)?;
            self.busy = false;
        }
        // What is large enough stays: pictures of many sizes may come in turn.
        if self.bytes.as_ref().is_none_or(|bytes| bytes.numel() < len) {
            self.give_back();
            let bytes = Tensor::f_zeros([len as i64], (Kind::Uint8, Device::Cpu))?;
            // Without the right to lock memory it is sent from where it lies.
            let locked = self.device.is_cuda().then(|| bytes.f_internal_pin_memory(self.device).ok());
            self.bytes = Some(locked.flatten().unwrap_or(bytes));
        }
        let Some(bytes) = &self.bytes else { return Err(TchError::Shape("no memory to send from".into())) };
        let own = bytes.f_narrow(0, 0, len as i64)?;
        // SAFETY: `own` is the beginning of a contiguous `u8` tensor on the CPU, `len` elements of it. That tensor was made above, in this
        // call or an earlier one, and is never handed out; no copy out of it is under way, see `busy`. The slice ends before it is used.
        let slice = unsafe { std::slice::from_raw_parts_mut(own.data_ptr().cast::<u8>(), len) };
        write(slice);
        self.busy = self.device.is_cuda();
        match self.landing.as_mut().map(|landing| landing.take(&own, self.device)) {
            Some(Ok(sent)) => return Ok(sent),
            Some(Err(error)) => self.go_without(&error),
            None => {}
        }
        own.f_internal_to_copy((Kind::Uint8, self.device), /* non_blocking */ true)
    }

    /// Frees the memory. libtorch puts an event behind the last copy that it has made itself, and a GPU that
    /// has failed for good refuses: it throws where nothing may be thrown, which would end the program, and
    /// with it the picture. There the memory is left where it is. Whether it has failed is known when all
    /// that was queued has ended, and with that the copies by a lane, of which libtorch does not know.
    fn give_back(&mut self) {
        let Some(bytes) = self.bytes.take() else { return };
        if settle(self.device).is_err() {
            std::mem::forget(bytes);
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Kernels are queued on a GPU. A copy waits for them and, other than `tch::Cuda::synchronize`, gives the error of one that failed
/// instead of a panic.
///
/// # Errors
/// Those of what was queued.
pub fn settle(device: Device) -> Result<(), TchError> {
    if device.is_cuda() {
        drop(Tensor::f_zeros([1], (Kind::Float, device))?.f_to_device(Device::Cpu)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn what_was_sent_does_not_change_with_the_next_frame() {
        let mut staging = Staging::new(Device::Cpu);
        let first = staging.send(3, |bytes| bytes.copy_from_slice(&[1, 2, 3])).unwrap();
        let second = staging.send(3, |bytes| bytes[1] = 9).unwrap();
        let third = staging.send(2, |bytes| bytes.fill(7)).unwrap();
        let fourth = staging.send(4, |bytes| bytes.fill(5)).unwrap();
        assert_eq!([read(&first), read(&second), read(&third)], [vec![1, 2, 3], vec![1, 9, 3], vec![7, 7]]);
        assert_eq!(read(&fourth), [5; 4]);
    }

    fn read(sent: &Tensor) -> Vec<u8> {
        Vec::<u8>::try_from(sent).unwrap()
    }

    /// What a lane was asked for; a copy with its bytes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Call {
        Used,
        Copy(usize),
    }

    /// Copies at once and writes down what it is asked for. Fails from the call of number `fails` on.
    #[derive(Clone, Debug, Default)]
    struct Fake {
        calls: Arc<Mutex<Vec<Call>>>,
        fails: Option<usize>,
    }

    impl Fake {
        fn called(&self, call: Call) -> Result<(), GraphError> {
            let mut calls = self.calls.lock();
            calls.push(call);
            if self.fails.is_some_and(|at| calls.len() > at) {
                return Err(GraphError::Cuda("no".into()));
            }
            Ok(())
        }
    }

    impl Lane for Fake {
        fn used(&mut self) -> Result<(), GraphError> {
            self.called(Call::Used)
        }

        fn copy(&mut self, to: &Tensor, from: &Tensor) -> Result<(), GraphError> {
            assert_eq!(self.calls.lock().last(), Some(&Call::Used), "nothing says when it may be written");
            assert_ne!(to.data_ptr(), from.data_ptr());
            self.called(Call::Copy(to.numel()))?;
            Ok(to.shallow_clone().f_copy_(from)?)
        }
    }

    /// Sends a frame of `len` bytes, numbered from `first`, and looks at what comes.
    fn sent(staging: &mut Staging, len: usize, first: u8) -> Tensor {
        let frame: Vec<u8> = (0..len).map(|i| first.wrapping_add(i as u8)).collect();
        let sent = staging.send(len, |bytes| bytes.copy_from_slice(&frame)).unwrap();
        assert_eq!(read(&sent), frame);
        sent
    }

    #[test]
    fn a_lane_waits_for_what_was_queued_on_its_memory_and_for_nothing_else() {
        use Call::{Copy, Used};
        let fake = Fake::default();
        let mut staging = Staging::new(Device::Cpu);
        staging.send_by(Box::new(fake.clone()));
        let mut places = Vec::new();
        for (frame, len) in [3, 3, 5, 2, 5, 9].into_iter().enumerate() {
            places.push(sent(&mut staging, len, 10 * frame as u8).data_ptr());
            staging.used();
        }
        let expected = [
            // New memory: whoever had it before may be at work there.
            &[Used, Copy(3), Used][..],
            &[Copy(3), Used],
            &[Used, Copy(5), Used],
            &[Copy(2), Used],
            &[Copy(5), Used],
            &[Used, Copy(9), Used],
        ];
        assert_eq!(*fake.calls.lock(), expected.concat());
        assert_eq!(places[0], places[1]);
        assert!(places[2] == places[3] && places[3] == places[4], "what is large enough stays");
    }

    #[test]
    fn a_frame_that_was_not_used_is_waited_for_like_one_that_was() {
        use Call::{Copy, Used};
        let fake = Fake::default();
        let mut staging = Staging::new(Device::Cpu);
        staging.send_by(Box::new(fake.clone()));
        for first in [0, 50] {
            let _ = sent(&mut staging, 4, first);
        }
        assert_eq!(*fake.calls.lock(), [Used, Copy(4), Used, Copy(4)]);
    }

    #[test]
    fn frames_arrive_where_a_lane_fails_and_it_is_not_asked_again() {
        for fails in 0..8 {
            let fake = Fake { fails: Some(fails), ..Fake::default() };
            let mut staging = Staging::new(Device::Cpu);
            staging.send_by(Box::new(fake.clone()));
            let mut before: Option<(Tensor, Vec<u8>)> = None;
            for (frame, len) in [3, 3, 5, 2, 6].into_iter().enumerate() {
                let now = sent(&mut staging, len, 10 * frame as u8);
                if let Some((earlier, values)) = before {
                    assert_eq!(read(&earlier), values, "without a lane nothing is overwritten");
                }
                staging.used();
                let values = read(&now);
                before = staging.landing.is_none().then_some((now, values));
            }
            assert_eq!(fake.calls.lock().len(), fails + 1, "the call that failed is the last");
            assert!(staging.landing.is_none());
        }
    }
}

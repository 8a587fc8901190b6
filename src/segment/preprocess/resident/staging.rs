//! The bytes of a frame on their way to the device.

use tch::{Device, Kind, TchError, Tensor};

/// Memory from which a frame goes to the device, kept from frame to frame. For a GPU it is page-locked where that can be had, so that
/// the copy runs while the CPU goes on.
#[derive(Debug)]
pub struct Staging {
    device: Device,
    bytes: Option<Tensor>,
    /// A copy out of it may be under way.
    busy: bool,
}

impl Staging {
    /// Nothing yet, for `device`.
    pub fn new(device: Device) -> Self {
        Self { device, bytes: None, busy: false }
    }

    /// Everything that was queued on the device has ended; who has read an answer that was made of the frame knows it.
    pub fn settled(&mut self) {
        self.busy = false;
    }

    /// What `write` leaves in `len` bytes, on the device: `[len]`. On a GPU it may still be on its way there.
    ///
    /// # Errors
    /// libtorch's: no memory that can be page-locked, none on the device.
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
        own.f_internal_to_copy((Kind::Uint8, self.device), /* non_blocking */ true)
    }

    /// Frees the memory. libtorch puts an event behind the last copy first, and a GPU that has failed for good refuses: it throws where
    /// nothing may be thrown, which would end the program, and with it the picture. There the memory is left where it is. Whether it
    /// has failed is known when all that was queued has ended.
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
    use super::*;

    #[test]
    fn what_was_sent_does_not_change_with_the_next_frame() {
        let mut staging = Staging::new(Device::Cpu);
        let first = staging.send(3, |bytes| bytes.copy_from_slice(&[1, 2, 3])).unwrap();
        let second = staging.send(3, |bytes| bytes[1] = 9).unwrap();
        let third = staging.send(2, |bytes| bytes.fill(7)).unwrap();
        let fourth = staging.send(4, |bytes| bytes.fill(5)).unwrap();
        let read = |t: &Tensor| Vec::<u8>::try_from(t).unwrap();
        assert_eq!([read(&first), read(&second), read(&third)], [vec![1, 2, 3], vec![1, 9, 3], vec![7, 7]]);
        assert_eq!(read(&fourth), [5; 4]);
    }
}

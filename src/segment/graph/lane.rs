//! A way to a GPU for bytes, past what it still has to do.
//!
//! What is queued on one stream is done in order. A frame that is copied on the network's stream waits until
//! all of the frame before it is done, its memory too, which nobody waits for. On a stream of its own it is
//! copied meanwhile.

use std::ffi::c_void;
use std::fmt;

use tch::{Device, Kind, TchError, Tensor};

use super::cuda::Api;
use super::{GraphError, Rehearsal};

/// Copies bytes to a device, in an order with what is queued there that the caller says.
pub trait Lane: fmt::Debug + Send {
    /// All that reads or writes the memory of the next copy has been queued: the copy waits for that, and for
    /// nothing queued later.
    ///
    /// # Errors
    /// What the device says.
    fn used(&mut self) -> Result<(), GraphError>;

    /// Copies `from` `[n]`, `u8` on the CPU, to `to` `[n]`, `u8` on the device, each in one piece, when that
    /// may be written; see [`Lane::used`]. What is queued on the device from here on waits for the copy. It
    /// may be under way when this returns: `from` stays as it is until something that was queued later has
    /// been read. After an error nothing is under way.
    ///
    /// # Errors
    /// Tensors of other kinds or sizes; a copy before the first [`Lane::used`]; what the device says.
    fn copy(&mut self, to: &Tensor, from: &Tensor) -> Result<(), GraphError>;
}

/// A stream of its own on a CUDA device.
#[derive(Debug)]
pub struct CudaLane {
    api: &'static Api,
    device: Device,
    lane: *mut c_void,
}

// SAFETY: a lane may move to another thread; it is used by one at a time: `Lane`'s methods take `&mut self`.
unsafe impl Send for CudaLane {}

impl CudaLane {
    /// For `device`.
    ///
    /// # Errors
    /// Says what is missing: a GPU, or the library.
    pub fn new(device: Device) -> Result<Self, String> {
        let (api, lane) = Api::made(|api| api.lane_new, device)?;
        Ok(Self { api, device, lane })
    }
}

impl Drop for CudaLane {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { (self.api.lane_free)(self.lane) };
    }
}

impl Lane for CudaLane {
    fn used(&mut self) -> Result<(), GraphError> {
        // SAFETY: a living lane; what is thrown is caught.
        self.api.checked(unsafe { (self.api.lane_used)(self.lane) })
    }

    fn copy(&mut self, to: &Tensor, from: &Tensor) -> Result<(), GraphError> {
        check(to, self.device)?;
        check(from, Device::Cpu)?;
        let bytes = from.numel();
        if to.numel() != bytes {
            return Err(TchError::Shape(format!("{bytes} bytes for a place of {}", to.numel())).into());
        }
        // SAFETY: a living lane, and two pieces of memory of so many bytes, the first on its device: both
        // were looked at above. `to` goes back to libtorch's allocator in the order of the stream that waits
        // for the copy. `from` is kept by the caller.
        self.api.checked(unsafe { (self.api.lane_copy)(self.lane, to.data_ptr(), from.data_ptr(), bytes) })
    }
}

/// Whether `of` is bytes in one piece on `device`.
///
/// # Errors
/// If it is not.
fn check(of: &Tensor, device: Device) -> Result<(), TchError> {
    let (kind, place) = (of.f_kind()?, of.device());
    if (kind, place) == (Kind::Uint8, device) && of.is_contiguous() {
        return Ok(());
    }
    Err(TchError::Shape(format!(
        "{kind:?} {:?} on {place:?}; expected bytes in one piece on {device:?}",
        of.size()
    )))
}

/// Copies at once, which is the order of everything on a CPU.
impl Lane for Rehearsal {
    fn used(&mut self) -> Result<(), GraphError> {
        Ok(())
    }

    fn copy(&mut self, to: &Tensor, from: &Tensor) -> Result<(), GraphError> {
        Ok(to.shallow_clone().f_copy_(from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_there_is_no_lane_and_a_reason() {
        assert!(CudaLane::new(Device::Cpu).unwrap_err().contains("on a GPU alone"));
    }

    #[test]
    fn only_bytes_in_one_piece_on_the_right_device_are_copied() {
        let of = |kind| Tensor::zeros([4, 3], (kind, Device::Cpu));
        assert!(check(&of(Kind::Uint8), Device::Cpu).is_ok());
        assert!(check(&of(Kind::Float), Device::Cpu).is_err());
        assert!(check(&of(Kind::Uint8), Device::Cuda(0)).is_err());
        assert!(check(&of(Kind::Uint8).tr(), Device::Cpu).is_err());
    }
}

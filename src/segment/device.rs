//! Where a network runs: what was asked for, what is there, what was chosen.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use tch::{TchError, Tensor};

use super::library;

/// What the user asked for: `auto`, `cpu` or `cuda:N` (`cuda` means `cuda:0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// One CUDA device, or an error.
    Cuda(usize),
}

/// Why a device cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not a device.
    #[error("unknown device {0:?}; expected auto, cpu or cuda:N")]
    Name(String),
    /// CUDA was asked for and is not there.
    #[error("device cuda:{index} was asked for, but CUDA is not available: {why}")]
    NoCuda {
        /// Asked for.
        index: usize,
        /// What is missing.
        why: String,
    },
    /// CUDA is there, this device is not.
    #[error("device cuda:{index} was asked for, but there are only {count} CUDA devices, counted from 0")]
    NoSuchDevice {
        /// Asked for.
        index: usize,
        /// Devices found.
        count: i64,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let index = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                index.map(Self::Cuda).ok_or_else(|| DeviceError::Name(text.to_owned()))
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// A device that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// For libtorch.
    pub device: tch::Device,
    /// One line that says what was chosen and why.
    pub line: String,
}

impl Resolved {
    /// `cpu` or `cuda:N`.
    pub fn name(&self) -> String {
        match self.device {
            tch::Device::Cuda(n) => format!("cuda:{n}"),
            _ => "cpu".into(),
        }
    }
}

impl DeviceChoice {
    /// Looks for the device. Loads libtorch's CUDA part first, where the choice allows a GPU.
    ///
    /// # Errors
    /// CUDA asked for and not there: never a silent fallback.
    pub fn resolve(self) -> Result<Resolved, DeviceError> {
        let on = |device, line: String| Ok(Resolved { device, line });
        if self == Self::Cpu {
            return on(tch::Device::Cpu, "device cpu, as asked".into());
        }
        let cuda = load_cuda().and_then(|()| {
            let count = if tch::Cuda::is_available() { tch::Cuda::device_count() } else { 0 };
            if count > 0 { Ok(count) } else { Err("libtorch found no CUDA device or driver".to_owned()) }
        });
        match (self, cuda) {
            (Self::Cuda(index), Ok(count)) if (index as i64) < count => {
                on(tch::Device::Cuda(index), format!("device cuda:{index} of {count}, as asked"))
            }
            (Self::Cuda(index), Ok(count)) => Err(DeviceError::NoSuchDevice { index, count }),
            (Self::Cuda(index), Err(why)) => Err(DeviceError::NoCuda { index, why }),
            (_, Ok(count)) => on(tch::Device::Cuda(0), format!("device cuda:0 of {count}, chosen by auto")),
            (_, Err(why)) => on(tch::Device::Cpu, format!("device cpu, chosen by auto: {why}")),
        }
    }
}

/// Loads libtorch's CUDA part into the process, once. To be called before any other use of libtorch: asked whether CUDA
/// is there before this, it settles for "no" and stays with it.
///
/// # Errors
/// The dynamic linker's words, on a machine without it; libtorch then works on the CPU.
pub fn load_cuda() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(|| library::open(c"libtorch_cuda.so", libc::RTLD_GLOBAL).map(drop)).clone()
}

/// The values on the CPU. This waits for everything that they are made of, and leaves a GPU idle until something is queued again: on the
/// way of a frame all of it comes through here, so that a test can count it.
///
/// # Errors
/// What failed on the device.
pub(super) fn read(values: &Tensor) -> Result<Tensor, TchError> {
    #[cfg(test)]
    READS.set(READS.get() + 1);
    values.f_to_device(tch::Device::Cpu)
}

#[cfg(test)]
thread_local! {
    /// Calls of [`read`] on this thread.
    pub(super) static READS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nonsense_is_refused() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            assert_eq!(name.parse::<DeviceChoice>(), Err(DeviceError::Name(name.into())));
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_and_auto_says_what_it_chose() {
        let absent = DeviceChoice::Cuda(999).resolve();
        assert!(
            matches!(absent, Err(DeviceError::NoCuda { .. } | DeviceError::NoSuchDevice { .. })),
            "{absent:?}"
        );
        let auto = DeviceChoice::Auto.resolve().unwrap();
        assert!(auto.line.contains("chosen by auto") && auto.line.contains(&auto.name()), "{}", auto.line);
    }
}

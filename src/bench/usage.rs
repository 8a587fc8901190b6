//! What a process uses of its machine.

use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Looks at a GPU that are kept: those of a day.
const MAX_LOOKS: usize = 5 * 24 * 3600;

/// Use of a GPU while the frames that count were worked on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuUse {
    /// Looks that were taken, five a second.
    pub samples: u64,
    /// Share of time in which a kernel ran, mean over the looks.
    pub busy_mean: f64,
    /// The most of them.
    pub busy_max: f64,
    /// Most memory in use, of all processes.
    pub memory_max_bytes: u64,
}

/// What a case used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// CPU seconds of the frames that count.
    pub cpu_seconds: Option<f64>,
    /// The same over the time they took: 1 is one core.
    pub cpu_cores: Option<f64>,
    /// Cores that other processes of the machine used meanwhile: where that is not near 0, the case did not have its machine to
    /// itself.
    pub others_cpu_cores: Option<f64>,
    /// Largest resident set of the process.
    pub peak_rss_bytes: Option<u64>,
    /// Bytes of it that the pictures take.
    pub pictures_bytes: u64,
    /// The GPU; null on a CPU.
    pub gpu: Option<GpuUse>,
    /// libtorch's CPU threads. Results of earlier versions do not say.
    #[serde(default)]
    pub threads: Option<u64>,
}

/// CPU time of this process at a moment.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock {
    at: Instant,
    /// User and system time, seconds.
    seconds: f64,
    /// The same of all processes of the machine.
    machine: Option<f64>,
}

/// CPU time between two moments.
#[derive(Clone, Copy, Debug)]
pub struct CpuSpan {
    /// Of this process, seconds.
    pub own: f64,
    /// Of all others, seconds; `None` where the kernel does not say.
    pub others: Option<f64>,
    /// By the clock, seconds.
    pub wall: f64,
}

impl CpuClock {
    /// Now; `None` where the kernel does not say.
    pub fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program, in brackets, may hold anything; utime and stime are fields 14 and 15 of proc(5).
        let after = stat.get(stat.rfind(')')? + 1..)?;
        let mut fields = after.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
        // SAFETY: sysconf reads a constant of the system and touches no memory of ours.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        let per_second = per_second as f64;
        (per_second > 0.0).then(|| Self {
            at: Instant::now(),
            seconds: ticks / per_second,
            machine: machine_ticks().map(|ticks| ticks / per_second),
        })
    }

    /// What was used since then.
    pub fn since(&self) -> Option<CpuSpan> {
        let now = Self::now()?;
        let own = now.seconds - self.seconds;
        let all = now.machine.zip(self.machine).map(|(now, then)| now - then);
        let others = all.map(|all| (all - own).max(0.0));
        Some(CpuSpan { own, others, wall: (now.at - self.at).as_secs_f64() })
    }
}

/// Ticks in which the machine's processors worked, or would have if their host had let them: user, nice, system, irq, softirq
/// and steal of proc(5).
fn machine_ticks() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(str::parse::<f64>);
    let mut field = || fields.next()?.ok();
    let worked = field()? + field()? + field()?;
    let (_idle, _waiting) = (field()?, field()?);
    Some(worked + field()? + field()? + field()?)
}

/// CUDA's device number as `nvidia-smi` names that GPU: CUDA counts those that are `visible`, `nvidia-smi` all. Where different GPUs
/// are in one machine both count alike with `CUDA_DEVICE_ORDER=PCI_BUS_ID` alone.
fn to_watch(number: &str, visible: Option<&str>) -> Option<String> {
    match visible {
        None => Some(number.to_owned()),
        Some(list) => list.split(',').nth(number.parse().ok()?).map(|gpu| gpu.trim().to_owned()),
    }
}

/// What `nvidia-smi` says of one GPU, while this lives.
#[derive(Debug)]
pub struct GpuWatch {
    child: Child,
    seen: Arc<Mutex<Vec<(f64, f64)>>>,
    thread: Option<JoinHandle<()>>,
}

impl GpuWatch {
    /// Watches the GPU of `device` (`cuda:N`); `None` on a CPU, or where `nvidia-smi` is not there.
    pub fn start(device: &str) -> Option<Self> {
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        Self::of("nvidia-smi".as_ref(), &to_watch(device.strip_prefix("cuda:")?, visible.as_deref())?)
    }

    /// The same, of the GPU with that number or UUID and by that program.
    fn of(program: &OsStr, gpu: &str) -> Option<Self> {
        let mut child = Command::new(program)
            .args([
                "--query-gpu=utilization.gpu,memory.used",
                "--format=csv,noheader,nounits",
                "-lms",
                "200",
                "-i",
            ])
            .arg(gpu)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let seen: Arc<Mutex<Vec<(f64, f64)>>> = Arc::default();
        let (store, out) = (seen.clone(), child.stdout.take());
        let thread = std::thread::Builder::new().name("nvidia-smi".into()).spawn(move || {
            use std::io::BufRead as _;
            for line in
                out.into_iter().flat_map(|out| std::io::BufReader::new(out).lines()).map_while(Result::ok)
            {
                let mut numbers = line.split(',').map(|field| field.trim().parse::<f64>().ok());
                let mut kept = store.lock();
                if let (Some(Some(busy)), Some(Some(mib))) = (numbers.next(), numbers.next())
                    && kept.len() < MAX_LOOKS
                {
                    kept.push((busy, mib));
                }
            }
        });
        match thread {
            Ok(thread) => Some(Self { child, seen, thread: Some(thread) }),
            Err(_) => {
                child.kill().ok();
                child.wait().ok();
                None
            }
        }
    }

    /// Forgets what was seen so far: what counts begins now.
    pub fn restart(&self) {
        self.seen.lock().clear();
    }

    /// What was seen; `None` if nothing was.
    pub fn end(mut self) -> Option<GpuUse> {
        self.halt();
        let seen = self.seen.lock();
        let n = seen.len();
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        (n > 0).then(|| GpuUse {
            samples: n as u64,
            busy_mean: seen.iter().map(|s| s.0).sum::<f64>() / n as f64 / 100.0,
            busy_max: most(&mut seen.iter().map(|s| s.0)) / 100.0,
            memory_max_bytes: (most(&mut seen.iter().map(|s| s.1)) * 1024.0 * 1024.0) as u64,
        })
    }

    fn halt(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for GpuWatch {
    fn drop(&mut self) {
        self.halt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_cpu_time() {
        let before = CpuClock::now().unwrap();
        let mut sum = 0_u64;
        // Until a few ticks of 10 ms have been seen, however slow the machine.
        while before.since().unwrap().own < 0.03 {
            sum = (0..100_000_u64).fold(sum, |a, b| a.wrapping_mul(31).wrapping_add(b));
        }
        let span = before.since().unwrap();
        assert!(span.own >= 0.03 && span.wall > 0.0 && span.others.is_some(), "{span:?} {sum}");
    }

    #[test]
    fn a_gpu_is_watched_that_is_used() {
        for (number, visible, gpu) in [
            ("1", None, Some("1")),
            ("0", Some("3"), Some("3")),
            ("1", Some("GPU-8932f937, GPU-d72cea1c"), Some("GPU-d72cea1c")),
            ("1", Some("2"), None),
        ] {
            assert_eq!(to_watch(number, visible).as_deref(), gpu, "{number} of {visible:?}");
        }
    }

    #[test]
    fn looks_at_a_gpu_are_summed_up() {
        use std::os::unix::fs::PermissionsExt as _;
        // Stands for the program that says it; a GPU in parts has no share of time.
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("says");
        std::fs::write(
            &program,
            "#!/bin/sh\necho '20, 100'\necho '[N/A], 3000'\necho '60, 200'\nexec sleep 60\n",
        )
        .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let watch = GpuWatch::of(program.as_os_str(), "0").unwrap();
        while watch.seen.lock().len() < 2 {
            std::thread::yield_now();
        }
        let found = watch.end().unwrap();
        assert_eq!((found.samples, found.memory_max_bytes), (2, 200 << 20));
        assert!((found.busy_mean - 0.4).abs() < 1e-12 && found.busy_max == 0.6, "{found:?}");
        assert!(GpuWatch::of("no such program".as_ref(), "0").is_none());
    }

    #[test]
    fn a_cpu_has_no_gpu_to_watch() {
        assert!(GpuWatch::start("cpu").is_none());
    }
}

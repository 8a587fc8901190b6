//! What a process uses of its machine.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::result::GpuUse;

/// CPU time of this process at a moment.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock {
    at: Instant,
    /// User and system time, seconds.
    seconds: f64,
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
        (per_second > 0).then(|| Self { at: Instant::now(), seconds: ticks / per_second as f64 })
    }

    /// Seconds of CPU time and of the clock since then.
    pub fn since(&self) -> Option<(f64, f64)> {
        let now = Self::now()?;
        Some((now.seconds - self.seconds, (now.at - self.at).as_secs_f64()))
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
        let index = device.strip_prefix("cuda:")?;
        let mut child = Command::new("nvidia-smi")
            .args([
                "--query-gpu=utilization.gpu,memory.used",
                "--format=csv,noheader,nounits",
                "-lms",
                "200",
                "-i",
            ])
            .arg(index)
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
                if let (Some(Some(busy)), Some(Some(mib))) = (numbers.next(), numbers.next()) {
                    store.lock().push((busy, mib));
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
        while before.since().unwrap().0 < 0.03 {
            sum = (0..100_000_u64).fold(sum, |a, b| a.wrapping_mul(31).wrapping_add(b));
        }
        let (cpu, wall) = before.since().unwrap();
        assert!(cpu >= 0.03 && wall > 0.0, "{cpu} {wall} {sum}");
    }

    #[test]
    fn a_cpu_has_no_gpu_to_watch() {
        assert!(GpuWatch::start("cpu").is_none());
    }
}

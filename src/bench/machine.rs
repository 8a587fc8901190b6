//! What it was measured on, and with which program.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::weights::sha256;

/// Instructions that decide how fast a CPU multiplies, as the kernel names them.
const FLAGS: [&str; 4] = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"];

/// The machine that it ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: u64,
    /// Which of `avx2`, `avx512f`, `avx512_bf16` and `amx_bf16` the processor has. Results of earlier versions do not say.
    #[serde(default)]
    pub flags: Option<Vec<String>>,
    /// libtorch's CPU threads where a model does not set them. Results of earlier versions do not say.
    #[serde(default)]
    pub threads: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Name and release of the kernel.
    pub kernel: String,
    /// GPUs, as `nvidia-smi` names them.
    pub gpus: Vec<Gpu>,
    /// Load averages before the first case.
    pub load: String,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Name.
    pub name: String,
    /// Memory, as `nvidia-smi` writes it.
    pub memory: String,
    /// Version of the driver.
    pub driver: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let cpu = read("/proc/cpuinfo");
        let known = value(&cpu, "flags").unwrap_or_default();
        let has = |flag: &&str| known.split_whitespace().any(|word| word == *flag);
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.and_then(|m| m.trim_end_matches("kB").trim().parse::<u64>().ok());
        let kernel = read("/proc/sys/kernel/osrelease");
        Self {
            cpu: value(&cpu, "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(0, |n| n.get() as u64),
            flags: Some(FLAGS.into_iter().filter(has).map(str::to_owned).collect()),
            threads: torch_threads(),
            memory_bytes: kib.map(|kib| kib * 1024),
            kernel: format!("{} {}", std::env::consts::OS, kernel.trim()),
            gpus: gpus(),
            load: read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" "),
        }
    }

    /// Processor, libtorch's threads and GPUs, in a few words.
    pub fn words(&self) -> String {
        let threads = self.threads.map_or_else(String::new, |n| format!(", {n} threads of libtorch"));
        let gpus = self.gpus.iter().map(|gpu| format!(", {}", gpu.name)).collect::<String>();
        format!("{}{threads}{gpus}", self.processor())
    }

    /// Its name, cores, and what it multiplies with.
    pub(super) fn processor(&self) -> String {
        let flags = self.flags.as_ref().filter(|flags| !flags.is_empty());
        let flags = flags.map_or_else(String::new, |flags| format!(" ({})", flags.join(", ")));
        format!("{}, {} cores{flags}", self.cpu, self.cores)
    }

    /// Whether the two are as fast, by what both say of themselves.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let gpus = |m: &Self| m.gpus.iter().map(|gpu| gpu.name.clone()).collect::<Vec<_>>();
        let flags = self.flags.as_ref().zip(other.flags.as_ref());
        let threads = self.threads.zip(other.threads);
        (&self.cpu, self.cores, gpus(self)) == (&other.cpu, other.cores, gpus(other))
            && flags.is_none_or(|(a, b)| a == b)
            && threads.is_none_or(|(a, b)| a == b)
    }
}

/// libtorch's CPU threads in this process, as they are set now.
pub(super) fn torch_threads() -> Option<u64> {
    u64::try_from(tch::get_num_threads()).ok()
}

fn gpus() -> Vec<Gpu> {
    let said =
        output("nvidia-smi", &["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]);
    let gpu = |line: &str| {
        let mut fields = line.split(',').map(|field| field.trim().to_owned());
        Some(Gpu { name: fields.next()?, memory: fields.next()?, driver: fields.next()? })
    };
    said.unwrap_or_default().lines().filter_map(gpu).collect()
}

/// What a program says on stdout; `None` if it is not there or fails.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The commit that the program was built from. Where the build said none (`SONOMASK_COMMIT`) it is that of the checkout in which
/// the program's file lies, with `+changes` where tracked files differ from it, and `unknown` outside of one.
pub(super) fn commit() -> String {
    if let Some(said) = option_env!("SONOMASK_COMMIT").filter(|said| !said.is_empty()) {
        return said.to_owned();
    }
    let here = || {
        let exe = std::env::current_exe().ok()?;
        let dir = exe.parent().and_then(Path::to_str)?;
        // Any other checkout that the file was put into says nothing of it.
        let manifest = output("git", &["-C", dir, "show", "HEAD:Cargo.toml"])?;
        if !manifest.contains(concat!("name = \"", env!("CARGO_PKG_NAME"), "\"")) {
            return None;
        }
        let head = output("git", &["-C", dir, "rev-parse", "HEAD"])?;
        let changed = output("git", &["-C", dir, "status", "--porcelain", "--untracked-files=no"])?;
        let changes = if changed.trim().is_empty() { "" } else { "+changes" };
        Some(format!("{}{changes}", head.trim()))
    };
    here().unwrap_or_else(|| "unknown".to_owned())
}

/// SHA-256 of the program's file.
pub(super) fn program_sha256() -> Option<String> {
    sha256(&std::env::current_exe().ok()?).ok()
}

/// How the program was built.
pub(super) fn build() -> &'static str {
    if cfg!(debug_assertions) { "dev" } else { "release" }
}

//! Starts a process for each case, listens to it, and ends it if it must be.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use gstreamer::glib;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::machine::{Machine, build, commit, program_sha256};
use super::result::{BenchResult, CaseResult, CaseStatus, RULES, SCHEMA};
use super::spec::{CaseSpec, Matrix};
use crate::segment::generate;
use crate::telemetry::{rustc, versions};
use crate::weights::{DEFAULT_SEED, Family};

/// What a case's process writes to stdout, one in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// So many frames were sent, the warm-up included.
    Frames(u64),
    /// It is done.
    Result(Box<CaseResult>),
}

/// Lines that may wait; a process that says more waits.
const LINES: usize = 64;
/// Between two looks whether the case shall end.
const LOOK: Duration = Duration::from_millis(100);
/// Time for a case to end by itself, once asked.
const GRACE: Duration = Duration::from_secs(130);
/// Lines of a failed process's stderr that become its reason.
const LAST_WORDS: usize = 6;

/// Why nothing can be run.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The program does not find itself, or there is no room for made weights.
    #[error("cannot start cases: {0}")]
    Start(#[from] std::io::Error),
}

/// Runs cases, one at a time, each in a process of this program.
#[derive(Debug)]
pub struct Runner {
    program: PathBuf,
    timeout: Duration,
    /// For weights that are made from a rule.
    folder: tempfile::TempDir,
    generated: BTreeMap<String, PathBuf>,
}

impl Runner {
    /// Cases that take longer than `timeout` are given up.
    ///
    /// # Errors
    /// If the program does not find itself, or there is no folder for temporary files.
    pub fn new(timeout: Duration) -> Result<Self, RunnerError> {
        let folder = tempfile::Builder::new().prefix("sonomask-bench-").tempdir()?;
        Ok(Self { program: std::env::current_exe()?, timeout, folder, generated: BTreeMap::new() })
    }

    /// Runs a case. `progress` gets the frames that were sent so far. Once `stopped`, the case is asked to end and gives what it has.
    pub fn run(
        &mut self,
        spec: &CaseSpec,
        progress: &mut dyn FnMut(u64),
        stopped: &dyn Fn() -> bool,
    ) -> CaseResult {
        let failed = |reason: String| CaseResult::without(spec, CaseStatus::Failed, Some(reason));
        let mut asked = spec.clone();
        if let Err(reason) = self.provide_weights(&mut asked) {
            return failed(reason);
        }
        let started = Running::start(&self.program, &asked);
        match started.and_then(|mut running| running.listen(self.timeout, progress, stopped)) {
            // Where made weights lay for a while is of no interest.
            Ok(result) => CaseResult { case: spec.clone(), ..result },
            Err(reason) => failed(reason),
        }
    }

    /// Makes the weights of a model that has none, once a family.
    fn provide_weights(&mut self, spec: &mut CaseSpec) -> Result<(), String> {
        if !spec.model.generated {
            return Ok(());
        }
        let name = spec.model.family.clone().ok_or("weights are made for a family, and none is given")?;
        if !self.generated.contains_key(&name) {
            let family = name.parse::<Family>().map_err(|e| e.to_string())?;
            let file = self.folder.path().join(format!("{name}.safetensors"));
            tracing::info!("making weights for {name} from a rule");
            generate(family, DEFAULT_SEED, None, &file).map_err(|e| e.to_string())?;
            self.generated.insert(name.clone(), file);
        }
        spec.model.weights = self.generated.get(&name).cloned();
        Ok(())
    }
}

/// A case's process.
struct Running {
    child: Child,
    lines: Receiver<String>,
    last_words: Arc<Mutex<VecDeque<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(program: &PathBuf, spec: &CaseSpec) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("its process cannot be started: {e}");
        let request = serde_json::to_string(spec).map_err(|e| e.to_string())?;
        let mut child = Command::new(program)
            .args(["bench", "case"])
            // Ctrl-C on a terminal goes to a whole group: the case is asked by us, once.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (send, lines) = bounded(LINES);
        let last_words: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let mut running = Self { child, lines, last_words: last_words.clone(), threads: Vec::new() };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(work).map_err(failed)
        };
        running.threads.push(spawn(
            "case-results",
            Box::new(move || {
                for line in
                    stdout.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok)
                {
                    if send.send(line).is_err() {
                        return;
                    }
                }
            }),
        )?);
        running.threads.push(spawn(
            "case-messages",
            Box::new(move || {
                for line in
                    stderr.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok)
                {
                    tracing::debug!("{line}");
                    let mut words = last_words.lock();
                    if words.len() >= LAST_WORDS {
                        words.pop_front();
                    }
                    words.push_back(line);
                }
            }),
        )?);
        // Closed at the end of this statement, which ends the request.
        if let Some(mut stdin) = stdin {
            stdin.write_all(request.as_bytes()).map_err(failed)?;
        }
        Ok(running)
    }

    /// Listens until the case is done or gone.
    fn listen(
        &mut self,
        timeout: Duration,
        progress: &mut dyn FnMut(u64),
        stopped: &dyn Fn() -> bool,
    ) -> Result<CaseResult, String> {
        let mut deadline = Instant::now() + timeout;
        let (mut asked, mut result) = (false, None);
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(Line::Frames(n)) => progress(n),
                    Ok(Line::Result(found)) => result = Some(*found),
                    Err(e) => return Err(format!("its process wrote what nobody understands: {e}")),
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if stopped() && !asked {
                asked = true;
                self.ask_to_end();
                deadline = deadline.min(Instant::now() + GRACE);
            }
            if Instant::now() >= deadline {
                let why = if asked { "it did not end when asked" } else { "it took longer than the timeout" };
                return Err(format!("{why}, and was killed"));
            }
        }
        let status = self.child.wait().map_err(|e| e.to_string())?;
        result.ok_or_else(|| self.obituary(status))
    }

    fn ask_to_end(&self) {
        let Ok(pid) = libc::pid_t::try_from(self.child.id()) else { return };
        // SAFETY: kill takes two numbers and touches no memory of ours. The child has not been waited for yet, so its number is
        // not another's.
        unsafe { libc::kill(pid, libc::SIGINT) };
    }

    fn obituary(&self, status: ExitStatus) -> String {
        let how = match (status.code(), status.signal()) {
            (_, Some(libc::SIGKILL)) => "its process was killed (out of memory?)".to_owned(),
            (_, Some(signal)) => format!("its process died of signal {signal}"),
            (Some(code), None) => format!("its process ended with {code} and no result"),
            (None, None) => "its process is gone".to_owned(),
        };
        let words: Vec<String> = self.last_words.lock().iter().cloned().collect();
        if words.is_empty() { how } else { format!("{how}: {}", words.join(" | ")) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing happens to a process that has ended.
        self.child.kill().ok();
        self.child.wait().ok();
        // A reader that waits for room in the channel must not be waited for.
        while self.lines.try_recv().is_ok() {}
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            thread.join().ok();
        }
    }
}

impl BenchResult {
    /// One without cases yet, of this program on this machine.
    pub fn begin(matrix: &Matrix, config: String) -> Self {
        let now = glib::DateTime::now_utc().and_then(|t| t.format("%Y-%m-%dT%H:%M:%SZ"));
        let versions = versions().into_iter().chain(rustc().map(|version| ("rustc", version)));
        Self {
            schema: SCHEMA,
            name: matrix.name.clone(),
            began: now.map_or_else(|_| String::new(), Into::into),
            seconds: 0.0,
            interrupted: false,
            machine: Machine::here(),
            versions: versions.map(|(name, version)| (name.to_owned(), version)).collect(),
            commit: commit(),
            program_sha256: program_sha256(),
            build: build().to_owned(),
            config,
            rules: RULES.map(str::to_owned).to_vec(),
            cases: Vec::new(),
        }
    }
}

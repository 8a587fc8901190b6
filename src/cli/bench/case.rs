//! `sonomask bench case`: one case, asked for on stdin, answered on stdout. Not for people: `sonomask bench` starts it.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::bench::{CaseSpec, Line, run_case};
use crate::cli::{Exit, runtime, signal};

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 1 << 20;
/// Between two lines on how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);

pub fn run() -> Result<Exit> {
    // SAFETY: this form of prctl takes numbers alone. Whoever started us is the only one to hear the answer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    crate::media::init()?;
    let mut request = String::new();
    std::io::stdin().lock().take(MAX_REQUEST).read_to_string(&mut request).context("cannot read the case")?;
    let spec: CaseSpec = serde_json::from_str(&request).context("not a case")?;
    let runtime = runtime()?;
    let mut told: Option<Instant> = None;
    let mut progress = |frames| {
        // Telling takes time that is not the model's.
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            tell(&Line::Frames(frames));
        }
    };
    let result = run_case(&spec, &runtime, &mut progress, &signal::stopped);
    tell(&Line::Result(Box::new(result)));
    Ok(Exit::Fine)
}

fn tell(line: &Line) {
    let Ok(mut text) = serde_json::to_string(line) else { return };
    text.push('\n');
    let mut out = std::io::stdout().lock();
    // Whoever asked is gone; then nobody misses it.
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

//! One file from its publisher: resumed where it stopped, checked before it gets its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::checkpoint::sha256;

/// A connection that gives no byte for this long is lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a broken transfer is taken up again while each try brings it further.
const ATTEMPTS: usize = 5;
const BUFFER: usize = 1 << 20;

/// What to fetch, and how to know it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Address, http or https.
    pub address: &'a str,
    /// Size in bytes. No more is ever written.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: &'a str,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server cannot be reached, or the connection was lost.
    #[error("cannot reach the publisher's server, is there a network? {reason}: {address}")]
    Unreachable {
        /// The address.
        address: String,
        /// The client's words.
        reason: String,
    },
    /// The server has another answer than the file.
    #[error("the publisher's server answered {answer}: {address}")]
    Answer {
        /// The address.
        address: String,
        /// Status, or what is wrong with the answer.
        answer: String,
    },
    /// The transfer broke off; what came is kept for the next time.
    #[error(
        "the transfer broke off after {got} of {bytes} bytes, the next download goes on from there: {reason}"
    )]
    Broken {
        /// Bytes so far.
        got: u64,
        /// Bytes in all.
        bytes: u64,
        /// The system's words.
        reason: io::Error,
    },
    /// The file is not the published one; it was removed.
    #[error("what came is not the published file: sha256 {found}, expected {expected}")]
    Checksum {
        /// Of what came.
        found: String,
        /// Published.
        expected: String,
    },
    /// Another process downloads the same file.
    #[error("another download of this file is going on: {}", path.display())]
    Busy {
        /// The part.
        path: PathBuf,
    },
    /// The disk.
    #[error("{reason}: {}", path.display())]
    Io {
        /// The system's words.
        reason: io::Error,
        /// The file.
        path: PathBuf,
    },
}

/// Where a download of `path` keeps what it has so far.
pub fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Fetches `wanted` to `path`, going on where an earlier try stopped. `progress` is told the bytes so far. Proxies are taken
/// from the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`). `path` appears whole and checked, or not at all.
///
/// # Errors
/// See [`DownloadError`].
pub fn download(
    wanted: &Wanted<'_>,
    path: &Path,
    mut progress: impl FnMut(u64),
) -> Result<(), DownloadError> {
    let part = part(path);
    let disk = |reason| DownloadError::Io { reason, path: part.clone() };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(disk)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(&part).map_err(disk)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(DownloadError::Busy { path: part }),
        Err(TryLockError::Error(e)) => return Err(disk(e)),
    }
    let agent = agent();
    let mut tries = 0;
    loop {
        let before = file.metadata().map_err(disk)?.len();
        if before > wanted.bytes {
            file.set_len(0).map_err(disk)?;
            continue;
        }
        progress(before);
        if before == wanted.bytes {
            break;
        }
        match transfer(&agent, wanted, &mut file, before, &mut progress) {
            Err(DownloadError::Broken { got, .. }) if got > before && tries < ATTEMPTS => tries += 1,
            Err(DownloadError::Io { reason, .. }) => return Err(disk(reason)),
            Err(e) => {
                // An address that never answered leaves no empty file behind.
                if file.metadata().is_ok_and(|m| m.len() == 0) {
                    std::fs::remove_file(&part).ok();
                }
                return Err(e);
            }
            Ok(()) => {}
        }
    }
    file.sync_all().map_err(disk)?;
    let found = sha256(&part).map_err(disk)?;
    if found != wanted.sha256 {
        std::fs::remove_file(&part).map_err(disk)?;
        return Err(DownloadError::Checksum { found, expected: wanted.sha256.to_owned() });
    }
    std::fs::rename(&part, path).map_err(disk)
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .user_agent(concat!("sonomask/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .build();
    Agent::new_with_config(config)
}

/// One request; appends to `file`, which has `have` bytes.
fn transfer(
    agent: &Agent,
    wanted: &Wanted<'_>,
    file: &mut File,
    have: u64,
    progress: &mut impl FnMut(u64),
) -> Result<(), DownloadError> {
    let mut request = agent.get(wanted.address).header(header::ACCEPT_ENCODING, "identity");
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let response = request.call().map_err(|e| DownloadError::Unreachable {
        address: wanted.address.to_owned(),
        reason: e.to_string(),
    })?;
    let disk = |reason| DownloadError::Io { reason, path: PathBuf::new() };
    let mut got = match start(&response, have, wanted.bytes) {
        Ok(start) => start,
        Err(answer) => {
            return Err(DownloadError::Answer { address: wanted.address.to_owned(), answer });
        }
    };
    if got != have {
        file.set_len(got).map_err(disk)?;
    }
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; BUFFER];
    while got < wanted.bytes {
        let room = buffer.len().min(usize::try_from(wanted.bytes - got).unwrap_or(usize::MAX));
        let broken = |reason| DownloadError::Broken { got, bytes: wanted.bytes, reason };
        let n = match body.read(&mut buffer[..room]) {
            Ok(0) => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(broken(e)),
        };
        file.write_all(&buffer[..n]).map_err(disk)?;
        got += n as u64;
        progress(got);
    }
    Ok(())
}

/// The byte that the answer's body begins at, or what is wrong with the answer.
fn start(response: &Response<Body>, have: u64, bytes: u64) -> Result<u64, String> {
    let text = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if text(header::CONTENT_TYPE).starts_with("text/html") {
        return Err(format!("{} with a web page, which is not the file", response.status()));
    }
    let another = |found| format!("with a file of {found} bytes, the published one had {bytes}");
    // `bytes 0-99/200`, `bytes */200`
    let total = |range: &str| range.rsplit('/').next().and_then(|n| n.trim().parse::<u64>().ok());
    match response.status() {
        StatusCode::OK => match text(header::CONTENT_LENGTH).parse::<u64>() {
            Ok(found) if found != bytes => Err(another(found)),
            _ => Ok(0),
        },
        StatusCode::PARTIAL_CONTENT => {
            let range = text(header::CONTENT_RANGE);
            let from = range.strip_prefix("bytes ").and_then(|r| r.split('-').next());
            match from.and_then(|f| f.trim().parse::<u64>().ok()) {
                Some(from) if from == have => match total(range) {
                    Some(found) if found != bytes => Err(another(found)),
                    _ => Ok(have),
                },
                _ => Err(format!("with the wrong part, {range:?}, asked for was byte {have} onwards")),
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Err(match total(text(header::CONTENT_RANGE)) {
            Some(found) if found != bytes => another(found),
            _ => format!("that it has nothing beyond byte {have}"),
        }),
        status => Err(status.to_string()),
    }
}

//! Downloads against a server of our own on this machine: resumed, checked, refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use sonomask::weights::{DownloadError, Wanted, download, part};

/// How the server answers one request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// As asked: whole, or from the byte of the range.
    Properly,
    /// As asked, and hangs up after this many bytes of the body.
    HangUp(usize),
    /// Always from the beginning, as servers without ranges do.
    FromTheStart,
    /// Another part than the one asked for.
    WrongPart,
    /// A file of this size, all or the rest of it.
    Sized(usize),
    /// That there is nothing beyond what was asked for, and this size.
    Beyond(usize),
    /// This status.
    Status(&'static str),
    /// A page to log in to the hospital's network.
    Page,
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Answers one connection after the other; returns the ranges asked for.
fn serve(answers: Vec<Answer>) -> (String, JoinHandle<Vec<Option<usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/weights.pt", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let whole = content();
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap().to_lowercase();
            let range = request.lines().find_map(|l| l.strip_prefix("range: bytes="));
            let from = range.map(|r| r.trim_end_matches('-').parse::<usize>().unwrap());
            asked.push(from);
            let ok = |from: usize, body: &[u8]| {
                let (status, extra) = if from == 0 {
                    ("200 OK", String::new())
                } else {
                    ("206 Partial Content", format!("content-range: bytes {from}-{}/300000\r\n", 299_999))
                };
                let length = 300_000 - from;
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{extra}connection: close\r\n\r\n"
                );
                [head.as_bytes(), body].concat()
            };
            let at = from.unwrap_or(0);
            let bytes = match answer {
                Answer::Properly => ok(at, &whole[at..]),
                Answer::HangUp(n) => ok(at, &whole[at..at + n]),
                Answer::FromTheStart => ok(0, &whole),
                Answer::WrongPart => ok(at + 1, &whole[at + 1..]),
                Answer::Sized(size) if at > 0 => format!(
                    "HTTP/1.1 206 Partial Content\r\ncontent-length: 1\r\ncontent-range: bytes {at}-{at}/{size}\r\nconnection: close\r\n\r\nx"
                )
                .into_bytes(),
                Answer::Sized(size) => {
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\nconnection: close\r\n\r\nx").into_bytes()
                }
                Answer::Beyond(size) => format!(
                    "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */{size}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                .into_bytes(),
                Answer::Status(status) => {
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
                }
                Answer::Page => {
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlog in".to_vec()
                }
            };
            // The client may have heard enough.
            stream.write_all(&bytes).ok();
        }
        asked
    });
    (address, thread)
}

struct Case {
    dir: tempfile::TempDir,
    path: PathBuf,
    sha256: String,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/weights.pt");
        Self { dir, path, sha256: sum(&content()) }
    }

    fn fetch(&self, address: &str) -> Result<Vec<u64>, DownloadError> {
        let mut seen = Vec::new();
        let wanted = Wanted { address, bytes: 300_000, sha256: &self.sha256 };
        download(&wanted, &self.path, |got| seen.push(got))?;
        assert_eq!(std::fs::read(&self.path).unwrap(), content());
        assert_eq!(files(self.path.parent().unwrap()), ["weights.pt"]);
        Ok(seen)
    }

    fn have(&self, bytes: &[u8]) {
        std::fs::create_dir_all(self.path.parent().unwrap()).unwrap();
        std::fs::write(part(&self.path), bytes).unwrap();
    }
}

fn files(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_whole_file_arrives_with_its_name_and_its_progress() {
    let (case, (address, server)) = (Case::new(), serve(vec![Answer::Properly]));
    let seen = case.fetch(&address).unwrap();
    assert!(seen.is_sorted() && seen.first() == Some(&0) && seen.last() == Some(&300_000), "{seen:?}");
    assert_eq!(server.join().unwrap(), [None]);
}

#[test]
fn a_part_is_gone_on_with() {
    let (case, (address, server)) = (Case::new(), serve(vec![Answer::Properly]));
    case.have(&content()[..123_456]);
    case.fetch(&address).unwrap();
    assert_eq!(server.join().unwrap(), [Some(123_456)]);
}

#[test]
fn a_whole_part_is_only_checked() {
    let case = Case::new();
    case.have(&content());
    case.fetch("http://127.0.0.1:1/nobody").unwrap();
}

#[test]
fn a_lost_connection_is_taken_up_again_where_it_stopped() {
    let (case, (address, server)) =
        (Case::new(), serve(vec![Answer::HangUp(100_000), Answer::HangUp(100_000), Answer::Properly]));
    case.fetch(&address).unwrap();
    assert_eq!(server.join().unwrap(), [None, Some(100_000), Some(200_000)]);
}

#[test]
fn a_connection_that_brings_nothing_ends_and_keeps_the_part() {
    let (case, (address, server)) = (Case::new(), serve(vec![Answer::HangUp(100_000), Answer::HangUp(0)]));
    let error = case.fetch(&address).unwrap_err();
    assert!(matches!(error, DownloadError::Broken { got: 100_000, bytes: 300_000, .. }), "{error}");
    assert!(!case.path.exists());
    assert_eq!(std::fs::read(part(&case.path)).unwrap(), &content()[..100_000]);
    server.join().unwrap();
}

#[test]
fn a_server_without_ranges_starts_over() {
    let (case, (address, server)) = (Case::new(), serve(vec![Answer::FromTheStart]));
    case.have(b"something else");
    case.fetch(&address).unwrap();
    assert_eq!(server.join().unwrap(), [Some(14)]);
}

#[test]
fn a_wrong_part_is_not_appended() {
    let (case, (address, server)) = (Case::new(), serve(vec![Answer::WrongPart]));
    case.have(&content()[..1000]);
    let error = case.fetch(&address).unwrap_err();
    assert!(matches!(error, DownloadError::Answer { .. }), "{error}");
    assert_eq!(std::fs::read(part(&case.path)).unwrap(), &content()[..1000]);
    server.join().unwrap();
}

#[test]
fn another_file_is_removed_and_named_by_its_sum() {
    let (case, (address, server)) = (Case::new(), serve(vec![Answer::Properly]));
    case.have(b"not the beginning of this file");
    let error = case.fetch(&address).unwrap_err();
    assert!(
        matches!(&error, DownloadError::Checksum { expected, .. } if *expected == case.sha256),
        "{error}"
    );
    assert!(files(case.path.parent().unwrap()).is_empty());
    server.join().unwrap();
}

#[test]
fn answers_that_are_no_file_are_told() {
    for (answer, words) in [
        (Answer::Status("404 Not Found"), "404 Not Found"),
        (Answer::Status("503 Service Unavailable"), "503"),
        (Answer::Page, "web page"),
    ] {
        let (case, (address, server)) = (Case::new(), serve(vec![answer]));
        let error = case.fetch(&address).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(files(case.path.parent().unwrap()).is_empty(), "{answer:?}");
        server.join().unwrap();
    }
}

#[test]
fn a_file_of_another_size_is_told_before_it_is_fetched() {
    let have = content();
    for (answer, part_len, words) in [
        (Answer::Sized(7_000_000), 0, "a file of 7000000 bytes, the published one had 300000"),
        (Answer::Sized(7_000_000), 1000, "a file of 7000000 bytes"),
        (Answer::Beyond(500), 1000, "a file of 500 bytes"),
        (Answer::Beyond(300_000), 1000, "nothing beyond byte 1000"),
    ] {
        let (case, (address, server)) = (Case::new(), serve(vec![answer]));
        if part_len > 0 {
            case.have(&have[..part_len]);
        }
        let error = case.fetch(&address).unwrap_err().to_string();
        assert!(error.contains(words), "{answer:?}: {error}");
        assert_eq!(std::fs::read(part(&case.path)).unwrap_or_default(), &have[..part_len], "{answer:?}");
        server.join().unwrap();
    }
}

#[test]
fn two_downloads_of_one_file_do_not_mix() {
    let case = Case::new();
    case.have(b"");
    let other = std::fs::File::options().append(true).open(part(&case.path)).unwrap();
    other.lock().unwrap();
    let error = case.fetch("http://127.0.0.1:1/nobody").unwrap_err();
    assert!(matches!(error, DownloadError::Busy { .. }), "{error}");
}

#[test]
fn without_a_network_the_command_says_so_and_leaves_nothing() {
    let case = Case::new();
    let to = case.dir.path().join("to");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sonomask"));
    command.args(["weights", "download", "sam2.1-hiera-tiny", "--to"]).arg(&to);
    // A proxy that is not there stands for a network that is not there: nothing leaves this machine.
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, "http://127.0.0.1:1");
    }
    let done = command.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is there a network?") && stderr.contains("sha256 7402e0d8"), "{stderr}");
    assert!(done.stdout.is_empty() && files(&to).is_empty());
}

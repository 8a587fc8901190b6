//! TensorBoard's event files: numbers by step, framed as TFRecords.
//!
//! Written here, because no crate will do: `tensorboard-rs` 0.5 brings a second `image` with unmaintained decoders and a
//! `protobuf` with an open advisory, `tfrecord` 0.15 prost, num and two more versions of itertools. Nine fields are all that
//! is needed.
//! Format: tensorflow/core/lib/io/record_writer.cc, tensorflow/core/util/event.proto, framework/summary.proto.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What TensorBoard knows an event file by, before the number that puts several in order.
const PREFIX: &str = "events.out.tfevents.";
/// What our own are known by.
const SUFFIX: &str = ".sonomask";
/// First record of every file.
const VERSION: &str = "brain.Event:2";
/// `SessionLog.status` for "what follows replaces what was there from this step on".
const START: u64 = 1;
/// Masks a checksum that is stored beside what it covers.
const MASK_DELTA: u32 = 0xa282_ead8;

/// Where protobuf fields are, and how they are coded: number times 8 plus wire type.
mod field {
    pub const EVENT_WALL_TIME: u8 = 1 << 3 | 1;
    pub const EVENT_STEP: u8 = 2 << 3;
    pub const EVENT_FILE_VERSION: u8 = 3 << 3 | 2;
    pub const EVENT_SUMMARY: u8 = 5 << 3 | 2;
    pub const EVENT_SESSION_LOG: u8 = 7 << 3 | 2;
    pub const SUMMARY_VALUE: u8 = 1 << 3 | 2;
    pub const VALUE_TAG: u8 = 1 << 3 | 2;
    pub const VALUE_SIMPLE: u8 = 2 << 3 | 5;
    pub const SESSION_STATUS: u8 = 1 << 3;
}

/// One event file that is being written.
#[derive(Debug)]
pub(super) struct Events {
    file: File,
}

impl Events {
    /// A new file in `dir`, after those that are there. With `resume_at` what they have from that step on is void for
    /// TensorBoard; without it our own files in `dir` are removed.
    ///
    /// # Errors
    /// If the folder cannot be made, read or written to.
    pub(super) fn create(dir: &Path, resume_at: Option<u64>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut number = now;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(inner) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)) else {
                continue;
            };
            if resume_at.is_none() {
                fs::remove_file(entry.path())?;
            } else if let Ok(taken) = inner.parse::<u64>() {
                // TensorBoard reads in the order of names, which a clock that was set back must not upset.
                number = number.max(taken.saturating_add(1));
            }
        }
        let file = File::create(dir.join(format!("{PREFIX}{number:010}{SUFFIX}")))?;
        let mut events = Self { file };
        let mut version = event(0);
        bytes(&mut version, field::EVENT_FILE_VERSION, VERSION.as_bytes());
        events.append(&version)?;
        // In the first file as well: TensorBoard takes the first start that it meets for the beginning of the run.
        let mut log = vec![field::SESSION_STATUS];
        varint(&mut log, START);
        let mut start = event(resume_at.unwrap_or(0));
        bytes(&mut start, field::EVENT_SESSION_LOG, &log);
        events.append(&start)?;
        Ok(events)
    }

    /// Appends named numbers of one step.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut one = Vec::new();
            bytes(&mut one, field::VALUE_TAG, tag.as_bytes());
            one.push(field::VALUE_SIMPLE);
            // TensorBoard draws what is not finite as triangles.
            one.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, field::SUMMARY_VALUE, &one);
        }
        let mut event = event(step);
        bytes(&mut event, field::EVENT_SUMMARY, &summary);
        self.append(&event)
    }

    /// Length, its checksum, the message, its checksum: in one write, so that only the end of a file is ever torn.
    fn append(&mut self, message: &[u8]) -> io::Result<()> {
        let length = (message.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(message.len() + 16);
        record.extend(length);
        record.extend(masked(crc32c(&length)).to_le_bytes());
        record.extend(message);
        record.extend(masked(crc32c(message)).to_le_bytes());
        self.file.write_all(&record)?;
        self.file.flush()
    }
}

/// An event of now.
fn event(step: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut event = vec![field::EVENT_WALL_TIME];
    event.extend(now.to_le_bytes());
    // As TensorFlow, which leaves out what is zero.
    if step > 0 {
        event.push(field::EVENT_STEP);
        varint(&mut event, step);
    }
    event
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field that has a length.
fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

/// Castagnoli's polynomial, reflected. Bit by bit: a record has a few hundred bytes.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

//! Checkpoints that were made to do harm, or were damaged: each is refused with a reason, none is executed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod archives;
mod pickles;
mod tensors;

use std::io::{Cursor, Write as _};

use sonomask::weights::{Checkpoint, CheckpointError, Reason};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Writes pickles, one opcode a call.
#[derive(Clone, Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }
    fn text(self, text: &str) -> Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }
    fn int(self, v: i64) -> Self {
        self.raw(&[0x8a, 8]).raw(&v.to_le_bytes())
    }
    fn ints(self, values: &[i64]) -> Self {
        values.iter().fold(self.raw(b"("), |p, &v| p.int(v)).raw(b"t")
    }
    /// A tensor over storage `0` of `numel` elements.
    fn tensor(self, kind: &str, numel: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", kind)
            .text("0")
            .text("cpu")
            .int(numel)
            .raw(b"tQ")
            .int(offset)
            .ints(shape)
            .ints(strides)
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }
    /// A state dict with one tensor `w`.
    fn state_dict(kind: &str, numel: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
        Self::new().raw(b"}").text("w").tensor(kind, numel, offset, shape, strides).raw(b"s.").0
    }
    fn end(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

fn zip(entries: &[(&str, &[u8], CompressionMethod)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, data, method) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(*method)).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    let stored = CompressionMethod::Stored;
    zip(&[("a/data.pkl", pickle, stored), ("a/data/0", storage, stored), ("a/version", b"3\n", stored)])
}

fn open(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.pth");
    std::fs::write(&path, bytes).unwrap();
    // The mapping outlives the name.
    Checkpoint::open(&path)
}

#[track_caller]
fn reason(bytes: &[u8]) -> Reason {
    match open(bytes) {
        Ok(checkpoint) => panic!("accepted, with {} tensors", checkpoint.tensors().count()),
        Err(e) => {
            println!("{e}");
            e.reason
        }
    }
}

fn eight_floats() -> Vec<u8> {
    (0..8).flat_map(|v| (v as f32).to_le_bytes()).collect()
}

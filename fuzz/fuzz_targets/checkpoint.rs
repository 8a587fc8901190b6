//! Any bytes at all as a weights file: a result or an error, never a panic, and no more memory than the file accounts for.
#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use sonomask::weights::{Checkpoint, Facts, Family};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(checkpoint) = Checkpoint::from_bytes(Path::new("fuzzed"), bytes.to_vec()) else {
        return Corpus::Keep;
    };
    // What is asked of a file once it is open.
    Family::recognise(&checkpoint).ok();
    let facts = Facts::of(&checkpoint);
    assert_eq!(facts.tensors, checkpoint.tensors().count());
    let mut total = 0usize;
    for (name, info) in checkpoint.tensors() {
        let data = checkpoint.data(name).expect("it is in the list");
        assert_eq!(data.len(), info.numel() * info.dtype.size());
        // A tensor is never larger than its storage, so the file bounds it.
        assert!(data.len() <= bytes.len());
        total += usize::from(data.first().copied().unwrap_or(0));
    }
    std::hint::black_box(total);
    Corpus::Keep
});

//! The corpus of the fuzzer, and what a few hundred thousand small changes make of it: a result or an error, bounded memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sonomask::weights::{Checkpoint, Facts, Family};

/// Counts what this thread holds, and the most it ever held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // Threads that are ending have no counters left, and are none of those that are measured.
    HELD.try_with(|held| {
        held.set(held.get() + change);
        PEAK.try_with(|peak| peak.set(peak.get().max(held.get()))).ok();
    })
    .ok();
}

// SAFETY: every call goes to the system's allocator as it came; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Reads `bytes` and all that is in them; the most memory that took beside the bytes, and whether it was a checkpoint.
fn read(bytes: &[u8]) -> (usize, bool) {
    let bytes = bytes.to_vec();
    let before = HELD.get();
    PEAK.set(before);
    let len = bytes.len();
    let good = match Checkpoint::from_bytes(Path::new("corpus"), bytes) {
        Err(e) => {
            assert!(!e.to_string().is_empty());
            false
        }
        Ok(checkpoint) => {
            Family::recognise(&checkpoint).ok();
            Facts::of(&checkpoint);
            for (name, info) in checkpoint.tensors() {
                let data = checkpoint.data(name).unwrap();
                assert_eq!(data.len(), info.numel() * info.dtype.size());
                assert!(data.len() <= len);
            }
            true
        }
    };
    (usize::try_from(PEAK.get() - before).unwrap(), good)
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/checkpoint");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(p).unwrap()))
        .collect();
    files.sort();
    files
}

/// What a reader may take: a fixed part, and so much for each byte of the file. An opcode makes one object of some fifty
/// bytes, and lists, stack and memo grow by doubling.
fn bound(len: usize) -> usize {
    (64 << 10) + 128 * len
}

#[test]
fn the_corpus_is_read_as_what_it_is() {
    let mut read_whole = 0;
    for (name, bytes) in corpus() {
        let (peak, good) = read(&bytes);
        assert!(peak <= bound(bytes.len()), "{name}: {peak}");
        // Finds of the fuzzer are called after their hash; files of ours have an extension and are good.
        assert!(good || !name.contains('.'), "{name}");
        read_whole += usize::from(good);
    }
    assert!(read_whole >= 5);
}

#[test]
fn changed_files_are_results_or_errors_in_bounded_memory() {
    let rounds = std::env::var("SONOMASK_FUZZ_ROUNDS").ok().and_then(|v| v.parse().ok()).unwrap_or(20_000);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let corpus = corpus();
    let (mut good, mut worst) = (0usize, 0.0f64);
    for _ in 0..rounds {
        let mut bytes = corpus[rng.random_range(0..corpus.len())].1.clone();
        for _ in 0..rng.random_range(1..8) {
            change(&mut bytes, &corpus, &mut rng);
        }
        let (peak, fine) = read(&bytes);
        assert!(peak <= bound(bytes.len()), "{peak} for {} bytes", bytes.len());
        worst = worst.max(peak as f64 / bound(bytes.len()) as f64);
        good += usize::from(fine);
    }
    println!(
        "{rounds} files, {good} were still checkpoints, at most {:.1} % of the memory allowed",
        worst * 100.0
    );
    assert!(good > 0 && good < rounds, "the changes are too small or too large to test anything");
}

fn change(bytes: &mut Vec<u8>, corpus: &[(String, Vec<u8>)], rng: &mut ChaCha8Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..7) {
        0 => bytes[at] ^= 1 << rng.random_range(0..8),
        1 => bytes[at] = rng.random(),
        2 => bytes.truncate(at),
        3 => {
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'.', b'R', b'c', b'Q', b'b', b'\n'][rng.random_range(0..11)]
        }
        4 => {
            let end = (at + 8).min(bytes.len());
            bytes[at..end].fill([0, 0xff][rng.random_range(0..2)]);
        }
        5 => {
            let end = (at + rng.random_range(1..64)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = rng.random_range(0..bytes.len());
            bytes.splice(to..to, piece);
        }
        _ => {
            let other = &corpus[rng.random_range(0..corpus.len())].1;
            let from = rng.random_range(0..other.len());
            let end = (from + rng.random_range(1..256)).min(other.len());
            let to = (at + end - from).min(bytes.len());
            bytes.splice(at..to, other[from..end].iter().copied());
        }
    }
}

#[test]
fn the_largest_pickles_take_bounded_memory() {
    // The costliest objects an opcode can make, as many as are read before the reader says no.
    let prefix = b"\x80\x02]q\0";
    let bodies: [&[u8]; 5] = [b"h\0\x85", b"]", b"}", b"N\x94", b"cos\nsystem\n)R"];
    for body in bodies {
        let pickle = [prefix, &body.repeat((4 << 20) / body.len() - 8)[..], b"."].concat();
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file("a/data.pkl", stored).unwrap();
        std::io::Write::write_all(&mut zip, &pickle).unwrap();
        let (peak, good) = read(&zip.finish().unwrap().into_inner());
        assert!(!good && peak < 128 << 20, "{body:?}: {peak}");
    }
}

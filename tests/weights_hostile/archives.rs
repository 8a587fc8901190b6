//! The files around the pickles: old ones, archives that were cut, damaged, compressed or lie, and other kinds.

use std::path::PathBuf;

use sonomask::weights::{Checkpoint, Reason};
use zip::CompressionMethod;

use super::{Pickle, archive, eight_floats, open, reason, zip};

#[test]
fn old_files_that_lie_about_their_storages_are_refused() {
    let magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    let file = |root: &[u8], keys: &[u8], tail: &[u8]| {
        [&magic, &b"\x80\x02M\xe9\x03."[..], b"\x80\x02}.", root, keys, tail].concat()
    };
    let root = Pickle::state_dict("FloatStorage", 8, 0, &[8], &[1]);
    let keys = Pickle::new().raw(b"]").text("0").raw(b"a.").0;
    let data = [&8u64.to_le_bytes()[..], &eight_floats()].concat();
    let good = file(&root, &keys, &data);
    assert_eq!(open(&good).unwrap().tensor("w").unwrap().unwrap().double_value(&[7]), 7.0);
    for len in 0..good.len() {
        assert!(open(&good[..len]).is_err(), "cut at {len}");
    }
    for tail in [
        [&u64::MAX.to_le_bytes()[..], &eight_floats()].concat(),
        [&9u64.to_le_bytes()[..], &eight_floats()].concat(),
        [&4u64.to_le_bytes()[..], &eight_floats()].concat(),
    ] {
        assert!(open(&file(&root, &keys, &tail)).is_err());
    }
    let twice = Pickle::new().raw(b"]").text("0").raw(b"a").text("0").raw(b"a.").0;
    assert!(matches!(reason(&file(&root, &twice, &[&data[..], &data].concat())), Reason::Archive(_)));
    let other = Pickle::new().raw(b"]").text("1").raw(b"a.").0;
    assert!(matches!(reason(&file(&root, &other, &data)), Reason::Archive(_)));
    assert!(matches!(reason(&file(&root, &Pickle::new().raw(b"]").end(), &data)), Reason::Archive(_)));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = archive(&Pickle::state_dict("FloatStorage", 8, 0, &[8], &[1]), &eight_floats());
    assert!(open(&whole).is_ok());
    for len in 0..whole.len() {
        assert!(open(&whole[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn damage_to_any_byte_never_panics() {
    let whole = archive(&Pickle::state_dict("FloatStorage", 8, 0, &[2, 4], &[4, 1]), &eight_floats());
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Ok(checkpoint) = open(&bytes) {
                for name in checkpoint.tensors().map(|(n, _)| n.to_owned()).collect::<Vec<_>>() {
                    assert!(checkpoint.tensor(&name).unwrap().unwrap().numel() <= 8);
                }
            }
        }
    }
}

#[test]
fn compressed_entries_are_refused_before_they_are_unpacked() {
    let (stored, deflated) = (CompressionMethod::Stored, CompressionMethod::Deflated);
    let pickle = Pickle::state_dict("FloatStorage", 1 << 24, 0, &[1 << 24], &[1]);
    let zeros = vec![0; 4 << 24];
    let bomb = zip(&[("a/data.pkl", &pickle, stored), ("a/data/0", &zeros, deflated)]);
    assert!(bomb.len() < 100_000);
    assert!(matches!(reason(&bomb), Reason::NotStored(name) if name == "a/data/0"));
    let bomb = zip(&[("a/data.pkl", &zeros, deflated)]);
    assert!(matches!(reason(&bomb), Reason::NotStored(name) if name == "a/data.pkl"));
}

#[test]
fn a_directory_that_claims_entries_without_number_costs_nothing() {
    // The 64-bit end record: a number of entries that no memory holds, a directory beyond the file. The 32-bit one says so, too.
    let claim = |count: u64, size: u64, offset: u64| {
        let end_64 =
            [&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[0; 12], &count.to_le_bytes(), &count.to_le_bytes()];
        let end_64 = [&end_64.concat()[..], &size.to_le_bytes(), &offset.to_le_bytes()].concat();
        let at = 4 + 60u64;
        let locator = [&b"PK\x06\x07\0\0\0\0"[..], &at.to_le_bytes(), &1u32.to_le_bytes()].concat();
        let end = [&b"PK\x05\x06\0\0\0\0"[..], &[0xff; 12], &[0, 0]].concat();
        [&b"PK\x03\x04"[..], &[0; 60], &end_64, &locator, &end].concat()
    };
    for (count, size, offset) in [
        (1 << 50, 46 << 50, 1 << 51),
        (u64::MAX, u64::MAX, u64::MAX),
        (1 << 50, 0, 64),
        (0, u64::MAX, 1),
        (1 << 50, 56, 64),
    ] {
        assert!(matches!(reason(&claim(count, size, offset)), Reason::Archive(_)));
    }
    let short = [&b"PK\x03\x04PK\x05\x06\0\0\0\0"[..], &[0xff; 12], &[0, 0]].concat();
    assert!(matches!(reason(&short), Reason::Archive(_)));
}

#[test]
fn names_that_occur_twice_in_the_archive_are_refused() {
    let stored = CompressionMethod::Stored;
    let pickle = Pickle::state_dict("FloatStorage", 8, 0, &[8], &[1]);
    let zip = zip(&[
        ("a/data.pkl", &pickle, stored),
        ("a/data/0", &eight_floats(), stored),
        ("a/data/1", b"", stored),
    ]);
    let mut same = zip;
    for at in 0..same.len() - 8 {
        if &same[at..at + 8] == b"a/data/1" {
            same[at + 7] = b'0';
        }
    }
    assert!(matches!(reason(&same), Reason::Archive(what) if what.contains("occurs twice")));
}

#[test]
fn archives_that_hold_something_else_are_refused() {
    let stored = CompressionMethod::Stored;
    let pickle = Pickle::state_dict("FloatStorage", 8, 0, &[8], &[1]);
    assert!(matches!(reason(&zip(&[("readme", b"x", stored)])), Reason::Archive(_)));
    assert!(matches!(reason(&zip(&[("a/data.pkl", &pickle, stored)])), Reason::Archive(_)));
    let two = zip(&[("a/data.pkl", &pickle, stored), ("b/data.pkl", &pickle, stored)]);
    assert!(matches!(reason(&two), Reason::Archive(_)));
    let big = zip(&[
        ("a/data.pkl", &pickle, stored),
        ("a/byteorder", b"big", stored),
        ("a/data/0", &eight_floats(), stored),
    ]);
    assert!(matches!(reason(&big), Reason::Archive(_)));
    assert!(matches!(reason(&archive(&Pickle::new().raw(b"}").end(), &[])), Reason::NoTensors));
    assert!(matches!(reason(&archive(&Pickle::new().raw(b"K\x01").end(), &[])), Reason::NoTensors));
    let twice =
        Pickle::new().raw(b"}").text("w").tensor("FloatStorage", 8, 0, &[8], &[1]).raw(b"s").text("w");
    let twice = twice.tensor("FloatStorage", 8, 0, &[4], &[1]).raw(b"s.").0;
    assert!(matches!(reason(&archive(&twice, &eight_floats())), Reason::Duplicate(name) if name == "w"));
}

#[test]
fn files_of_other_kinds_are_told_apart() {
    assert!(matches!(reason(b""), Reason::Unknown));
    assert!(matches!(reason(b"GIF89a, or whatever this is"), Reason::Unknown));
    let magic = Pickle::new().raw(b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.").0;
    assert!(matches!(reason(&magic), Reason::Pickle { .. }));
    assert!(matches!(reason(&[magic, vec![b'N'; 8]].concat()), Reason::Pickle { .. }));
    assert!(matches!(reason(&Pickle::new().raw(b"}").end()), Reason::Unknown));
    let missing = Checkpoint::open(&PathBuf::from("no/such/weights.pth")).unwrap_err();
    assert!(matches!(missing.reason, Reason::Io(_)) && missing.to_string().ends_with("no/such/weights.pth"));
}

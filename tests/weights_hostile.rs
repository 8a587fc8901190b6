//! Checkpoints that were made to do harm, or were damaged: each is refused with a reason, none is executed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{Cursor, Write as _};
use std::path::PathBuf;

use sonomask::weights::{Checkpoint, CheckpointError, Family, FamilyError, Reason, Weights, WeightsError};
use tch::Device;
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

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors().map(|(name, _)| name).collect()
}

fn eight_floats() -> Vec<u8> {
    (0..8).flat_map(|v| (v as f32).to_le_bytes()).collect()
}

#[test]
fn a_good_checkpoint_of_every_root_is_read() {
    let tensor = |p: Pickle| p.raw(b"}").text("w").tensor("FloatStorage", 8, 1, &[2, 3], &[3, 1]).raw(b"s");
    let flat = tensor(Pickle::new()).end();
    let nested =
        |key| tensor(Pickle::new().raw(b"}").text("epoch").int(3).raw(b"s").text(key)).raw(b"s").end();
    for pickle in [flat, nested("model"), nested("state_dict")] {
        let checkpoint = open(&archive(&pickle, &eight_floats())).unwrap();
        let names: Vec<_> = checkpoint.tensors().map(|(n, t)| (n, t.shape.clone())).collect();
        assert_eq!(names, [("w", vec![2, 3])]);
        let values = Vec::<f32>::try_from(checkpoint.tensor("w").unwrap().unwrap().view(-1)).unwrap();
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(checkpoint.tensor("v").is_none());
    }
}

#[test]
fn a_transposed_view_comes_out_in_its_own_order() {
    let pickle = Pickle::state_dict("FloatStorage", 8, 0, &[2, 4], &[1, 2]);
    let checkpoint = open(&archive(&pickle, &eight_floats())).unwrap();
    let values = Vec::<f32>::try_from(checkpoint.tensor("w").unwrap().unwrap().view(-1)).unwrap();
    assert_eq!(values, [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
}

#[test]
fn foreign_globals_are_named_and_refused() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("collections", "defaultdict"),
        ("numpy.core.multiarray", "_reconstruct"),
    ] {
        let pickle = Pickle::new().global(module, name).text("touch owned").raw(b"\x85R.").0;
        let found = reason(&archive(&pickle, &[]));
        assert!(
            matches!(&found, Reason::ForeignGlobal { name: n, .. } if *n == format!("{module}.{name}")),
            "{found:?}"
        );
        let by_stack = Pickle::new().text(module).text(name).raw(b"\x93.").0;
        assert!(matches!(reason(&archive(&by_stack, &[])), Reason::ForeignGlobal { .. }));
    }
}

#[test]
fn foreign_objects_are_inert_beside_a_state_dict_and_refused_in_it() {
    let call = |p: Pickle| p.global("os", "system").text("touch owned").raw(b"\x85R");
    let made =
        |p: Pickle| p.global("some.module", "Callback").raw(b")\x81").raw(b"}").text("a").int(1).raw(b"sb");
    let tensor = |p: Pickle| p.text("w").tensor("FloatStorage", 8, 0, &[8], &[1]).raw(b"s");
    let under = |key: &str| Pickle::new().raw(b"}").text(key).raw(b"}");
    // Beside it: a call, an object with state, an object as a key's value deep in a list, a storage of a foreign type.
    let beside = tensor(under("state_dict")).raw(b"s").text("evil");
    let beside = call(beside).raw(b"s").text("callbacks").raw(b"]");
    let beside = made(beside).raw(b"as").text("alien").tensor("QInt8Storage", 8, 0, &[8], &[1]).raw(b"s");
    let checkpoint = open(&archive(&beside.end(), &eight_floats())).unwrap();
    assert_eq!(checkpoint.tensors().count(), 1);
    assert_eq!(checkpoint.foreign(), ["os.system", "some.module.Callback", "torch.QInt8Storage"]);
    assert!(!PathBuf::from("owned").exists());
    // In it: as a value, inside a value, as a key, as the type of a storage.
    let in_it = |body: fn(Pickle) -> Pickle| body(tensor(under("state_dict"))).raw(b"s.").0;
    let pickles = [
        (in_it(|p| p.text("v").global("os", "system").text("x").raw(b"\x85Rs")), "os.system"),
        (in_it(|p| p.text("v").raw(b"]").global("os", "system").raw(b"as")), "os.system"),
        (in_it(|p| p.global("a", "b").raw(b"Ns")), "a.b"),
        (in_it(|p| p.text("v").tensor("QInt8Storage", 8, 0, &[8], &[1]).raw(b"s")), "torch.QInt8Storage"),
        (tensor(call(Pickle::new().raw(b"}").text("v")).raw(b"s")).end(), "os.system"),
    ];
    for (pickle, expected) in pickles {
        let found = reason(&archive(&pickle, &eight_floats()));
        assert!(matches!(&found, Reason::ForeignGlobal { name, .. } if name == expected), "{found:?}");
    }
}

#[test]
fn objects_without_number_are_refused() {
    let many = Pickle::new().raw(&vec![b'N'; 300_000]).end();
    assert!(matches!(reason(&archive(&many, &[])), Reason::Pickle { .. }));
    let memo = Pickle::new().raw(b"]").raw(&vec![0x94; 300_000]).end();
    assert!(matches!(reason(&archive(&memo, &[])), Reason::Pickle { .. }));
    // One long name, remembered once and used again and again.
    let long = Pickle::new().text(&"x".repeat(1 << 20)).raw(b"\x94").raw(&b"h\0h\0\x93".repeat(10)).end();
    assert!(matches!(reason(&archive(&long, &[])), Reason::Pickle { .. }));
}

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
fn calls_and_state_that_do_not_fit_are_refused() {
    let ordered = |p: Pickle| p.global("collections", "OrderedDict");
    let pickles = [
        ordered(Pickle::new()).text("x").raw(b"\x85R."),
        Pickle::new().text("x").raw(b")R."),
        Pickle::new().global("torch", "FloatStorage").raw(b")R."),
        Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(b")R."),
        Pickle::new().text("x").raw(b"}b."),
        Pickle::new().text("storage").raw(b"Q."),
        Pickle::new().raw(b"}]\x81."),
        Pickle::new().raw(b"}N}N\x92."),
        Pickle::new().raw(b"]N}u."),
    ];
    for pickle in pickles {
        assert!(matches!(reason(&archive(&pickle.0, &[])), Reason::Pickle { .. }));
    }
}

#[test]
fn stacks_marks_and_memos_that_are_not_there_are_refused() {
    let bodies: [&[u8]; 12] = [
        b".",
        b"R.",
        b"t.",
        b"u.",
        b"s.",
        b"q\0.",
        b"h\x07.",
        b"j\xff\xff\xff\xff.",
        b"((a.",
        b"N(s.",
        b"]e.",
        b"N(N\x86.",
    ];
    for body in bodies {
        assert!(
            matches!(reason(&archive(&Pickle::new().raw(body).0, &[])), Reason::Pickle { .. }),
            "{body:?}"
        );
    }
}

#[test]
fn a_memo_key_of_four_billion_costs_nothing() {
    let pickle = Pickle::new()
        .raw(b"}r\xff\xff\xff\xff")
        .text("w")
        .tensor("FloatStorage", 8, 0, &[8], &[1])
        .raw(b"s.")
        .0;
    assert_eq!(open(&archive(&pickle, &eight_floats())).unwrap().tensors().count(), 1);
}

#[test]
fn self_reference_is_refused() {
    let list = Pickle::new().raw(b"]q\0h\0a.").0;
    let dict = Pickle::new().raw(b"}q\0").text("model").raw(b"h\0s.").0;
    let through_another = Pickle::new().raw(b"]q\0]q\x01h\0aa.").0;
    for pickle in [list, dict, through_another] {
        assert!(matches!(reason(&archive(&pickle, &[])), Reason::Cycle));
    }
}

#[test]
fn deep_nesting_is_refused_and_wide_sharing_is_not_followed_twice() {
    let deep = Pickle::new().raw(&b"]".repeat(100_000)).raw(&b"a".repeat(99_999)).raw(b".").0;
    assert!(matches!(reason(&archive(&deep, &[])), Reason::TooDeep(_)));
    // Each tuple holds the one before twice: 2^60 objects for whoever walks it naively.
    let mut shared = Pickle::new().raw(b")q\0");
    for _ in 0..60 {
        shared = shared.raw(b"h\0\x86q\0");
    }
    assert!(matches!(reason(&archive(&shared.end(), &[])), Reason::NoTensors));
}

#[test]
fn a_pickle_cut_anywhere_is_refused() {
    let whole = Pickle::state_dict("FloatStorage", 8, 0, &[8], &[1]);
    for len in 0..whole.len() {
        assert!(
            matches!(reason(&archive(&whole[..len], &eight_floats())), Reason::Pickle { .. }),
            "cut at {len}"
        );
    }
}

#[test]
fn lengths_beyond_the_pickle_are_refused() {
    for body in [
        &b"X\xff\xff\xff\xffab."[..],
        b"\x8c\xffab.",
        b"\x8a\xff123456789.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ] {
        assert!(
            matches!(reason(&archive(&Pickle::new().raw(body).0, &[])), Reason::Pickle { .. }),
            "{body:?}"
        );
    }
    let huge = Pickle::new().raw(&vec![b'N'; 5 << 20]).end();
    assert!(matches!(reason(&archive(&huge, &[])), Reason::Pickle { at: 0, .. }));
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
fn shapes_and_strides_beyond_the_storage_are_refused() {
    let max = i64::MAX;
    let cases: [(i64, i64, &[i64], &[i64]); 10] = [
        (8, 0, &[9], &[1]),
        (8, 1, &[8], &[1]),
        (8, 0, &[2, 4], &[8, 1]),
        (8, 0, &[2], &[max]),
        (8, max, &[1], &[1]),
        (8, 0, &[max, max, max], &[1, 1, 1]),
        (8, 0, &[1 << 40], &[0]),
        (8, 0, &[1 << 32, 1 << 32], &[0, 0]),
        (max, 0, &[8], &[1]),
        (9, 0, &[8], &[1]),
    ];
    for (numel, offset, shape, strides) in cases {
        let found = reason(&archive(
            &Pickle::state_dict("FloatStorage", numel, offset, shape, strides),
            &eight_floats(),
        ));
        assert!(matches!(&found, Reason::Tensor { name, .. } if name == "w"), "{found:?}");
    }
    let negative: [(i64, i64, &[i64], &[i64]); 4] =
        [(-1, 0, &[8], &[1]), (8, -1, &[8], &[1]), (8, 0, &[-8], &[1]), (8, 0, &[8], &[-1])];
    for (numel, offset, shape, strides) in negative {
        let found = reason(&archive(
            &Pickle::state_dict("FloatStorage", numel, offset, shape, strides),
            &eight_floats(),
        ));
        assert!(matches!(found, Reason::Pickle { .. }), "{found:?}");
    }
    let many = Pickle::state_dict("FloatStorage", 8, 0, &[1; 9], &[1; 9]);
    assert!(matches!(reason(&archive(&many, &eight_floats())), Reason::Pickle { .. }));
}

#[test]
fn tensors_without_elements_cannot_claim_sizes_that_nothing_holds() {
    let huge = 1i64 << 40;
    for (shape, strides) in [(&[huge, 10, 0][..], &[10, 1, 1][..]), (&[0, 1 << 20, 1 << 20], &[1, 1, 1])] {
        let pickle = Pickle::state_dict("FloatStorage", 0, 0, shape, strides);
        assert!(matches!(reason(&archive(&pickle, &[])), Reason::Tensor { .. }), "{shape:?}");
    }
    for shape in ["[1099511627776,10,0]", "[0,18446744073709551615]", "[0,1048576,1048576]"] {
        let header = format!(
            r#"{{"ppn.learnable_prompts.x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#
        );
        let found = reason(&safetensors(&header, &[]));
        assert!(matches!(found, Reason::Tensor { .. } | Reason::Safetensors(_)), "{shape}: {found:?}");
    }
    let empty = open(&archive(&Pickle::state_dict("FloatStorage", 0, 0, &[0, 4], &[4, 1]), &[])).unwrap();
    assert_eq!(empty.tensor("w").unwrap().unwrap().size(), [0, 4]);
}

#[test]
fn keys_and_arguments_without_number_cost_no_time() {
    let entry = |p: Pickle| p.raw(b"}").text("w").tensor("FloatStorage", 8, 0, &[8], &[1]).raw(b"s");
    // One text as key and as value of the root, 100,000 times.
    let repeated = entry(Pickle::new().raw(b"}(").text("model")).text(&"k".repeat(200));
    let repeated = repeated.raw(&vec![b'2'; 199_999]).raw(b"u.").0;
    let checkpoint = open(&archive(&repeated, &eight_floats())).unwrap();
    assert_eq!(checkpoint.root_keys().len(), 2);
    // A long text, paired with a dict again and again: not compared with the known keys.
    let long = entry(Pickle::new().raw(b"}(").text("model")).text(&"é".repeat(1 << 19));
    let long = long.raw(b"q\x05}q\x06").raw(&b"h\x05h\x06".repeat(50_000)).raw(b"u.").0;
    assert!(open(&archive(&long, &eight_floats())).is_ok());
    let many = Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(b"(").raw(b"N");
    let many = many.raw(&[b'2'; 8]).raw(b"tR.").0;
    assert!(matches!(reason(&archive(&many, &[])), Reason::Pickle { .. }));
    let name = Pickle::state_dict("FloatStorage", 8, 0, &[8], &[1]);
    let at = name.windows(6).position(|w| w == b"X\x01\0\0\0\x30").unwrap();
    let long = [&name[..at + 1], &1000u32.to_le_bytes(), &[b'0'; 1000], &name[at + 6..]].concat();
    assert!(matches!(reason(&archive(&long, &eight_floats())), Reason::Pickle { .. }));
}

#[test]
fn a_class_inside_a_class_is_inert_beside_a_state_dict() {
    // What protocol 2 makes of an object of `Outer.Inner`.
    let pickle = Pickle::new().raw(b"}").text("state_dict").raw(b"}").text("w");
    let pickle = pickle.tensor("FloatStorage", 8, 0, &[8], &[1]).raw(b"ss").text("settings");
    let pickle = pickle.global("__builtin__", "getattr").global("my.module", "Outer").text("Inner");
    let checkpoint = open(&archive(&pickle.raw(b"\x86R)\x81s.").0, &eight_floats())).unwrap();
    assert_eq!(names(&checkpoint), ["w"]);
    assert_eq!(checkpoint.foreign(), ["__builtin__.getattr", "my.module.Outer"]);
}

#[test]
fn foreign_names_without_number_are_not_all_listed() {
    let mut pickle = Pickle::new().raw(b"}").text("state_dict").raw(b"}").text("w");
    pickle = pickle.tensor("FloatStorage", 8, 0, &[8], &[1]).raw(b"ss").text("settings").raw(b"]");
    for i in 0..2000 {
        pickle = pickle.global("some.module", &format!("Class{i}")).raw(b"a");
    }
    let checkpoint = open(&archive(&pickle.raw(b"s.").0, &eight_floats())).unwrap();
    assert_eq!(checkpoint.foreign().len(), 256);
}

#[test]
fn a_storage_of_another_type_is_read_with_that_types_size() {
    let found = reason(&archive(&Pickle::state_dict("DoubleStorage", 8, 0, &[8], &[1]), &eight_floats()));
    assert!(matches!(found, Reason::Tensor { .. }), "{found:?}");
    let checkpoint =
        open(&archive(&Pickle::state_dict("BoolStorage", 4, 0, &[4], &[1]), &[0, 1, 2, 255])).unwrap();
    let values = Vec::<bool>::try_from(checkpoint.tensor("w").unwrap().unwrap()).unwrap();
    assert_eq!(values, [false, true, true, true]);
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

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn safetensors_are_read_and_damaged_ones_refused() {
    let good = r#"{"w":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]}}"#;
    let checkpoint = open(&safetensors(good, &eight_floats())).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().unwrap().double_value(&[1, 3]), 7.0);
    let whole = safetensors(good, &eight_floats());
    for len in 0..whole.len() {
        assert!(open(&whole[..len]).is_err(), "cut at {len}");
    }
    for bad in [
        r#"{"w":{"dtype":"F32","shape":[2,5],"data_offsets":[0,32]}}"#,
        r#"{"w":{"dtype":"F32","shape":[8],"data_offsets":[8,40]}}"#,
        r#"{"w":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,32]}}"#,
        r#"{"w":{"dtype":"F32","shape":[8],"data_offsets":[32,0]}}"#,
        r#"{"w":{"dtype":"X9","shape":[8],"data_offsets":[0,32]}}"#,
        r#"{"w":7}"#,
    ] {
        assert!(matches!(
            reason(&safetensors(bad, &eight_floats())),
            Reason::Safetensors(_) | Reason::Tensor { .. }
        ));
    }
    // Offsets whose sum leaves the range of integers, although each is one.
    let step = (1u64 << 61) - 1;
    let entry = |i: u64| {
        let (from, to) = (i * step, (i + 1) * step);
        format!(r#""t{i}":{{"dtype":"U8","shape":[{step}],"data_offsets":[{from},{to}]}}"#)
    };
    let header = format!("{{{}}}", (0..8).map(entry).collect::<Vec<_>>().join(","));
    assert!(matches!(reason(&safetensors(&header, &[])), Reason::Safetensors(_)));
    let padded = format!("{good}{}", " ".repeat(5 << 20));
    assert!(matches!(reason(&safetensors(&padded, &eight_floats())), Reason::Safetensors(_)));
    let mut lying = whole;
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(open(&lying).is_err());
}

#[test]
fn a_view_checks_shapes_and_types_and_lists_what_was_not_used() {
    let header = r#"{"a.w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
        "a.n":{"dtype":"I64","shape":[1],"data_offsets":[4,12]},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}"#;
    let checkpoint = open(&safetensors(header, &[0; 16])).unwrap();
    let root = Weights::new(&checkpoint, Device::Cpu);
    let a = root.pp("a");
    assert_eq!(a.get("w", &[2]).unwrap().kind(), tch::Kind::Float);
    assert!(matches!(a.get("w", &[1, 2]), Err(WeightsError::Shape { name, .. }) if name == "a.w"));
    assert!(matches!(a.get("v", &[2]), Err(WeightsError::Missing { name, .. }) if name == "a.v"));
    assert!(matches!(a.get("n", &[1]), Err(WeightsError::Dtype { name, .. }) if name == "a.n"));
    assert_eq!((root.unused(), root.parameters()), (vec!["a.n".to_owned(), "b".to_owned()], 2));
    a.skip("n");
    assert!(matches!(root.finish(), Err(WeightsError::Unused { names }) if names == ["b"]));
    assert_eq!(root.buffer("b", &[1]).unwrap().numel(), 1);
    root.finish().unwrap();
    assert_eq!(root.parameters(), 2);
}

#[test]
fn families_are_told_from_keys_and_shapes() {
    let of = |keys: &[(&str, &[usize])]| {
        let mut at = 0;
        let entries: Vec<String> = keys
            .iter()
            .map(|(name, shape)| {
                let start = at;
                at += shape.iter().product::<usize>();
                format!(r#""{name}":{{"dtype":"U8","shape":{shape:?},"data_offsets":[{start},{at}]}}"#)
            })
            .collect();
        open(&safetensors(&format!("{{{}}}", entries.join(",")), &vec![0; at])).unwrap()
    };
    let tiny_vit = "image_encoder.patch_embed.seq.0.c.weight";
    let vit = "image_encoder.patch_embed.proj.weight";
    let hiera = "image_encoder.trunk.patch_embed.proj.weight";
    let block = "image_encoder.trunk.blocks.12.norm1.weight";
    let new = "no_obj_embed_spatial";
    type Keys = [(&'static str, &'static [usize])];
    let cases: [(&Keys, Family); 8] = [
        (&[(tiny_vit, &[32, 3, 1, 1])], Family::LiteMedSam),
        (&[(tiny_vit, &[32, 3, 3, 3])], Family::MobileSam),
        (&[(vit, &[768, 3, 16, 16])], Family::SamVitB),
        (&[(vit, &[1280, 3, 16, 16])], Family::SamVitH),
        (&[(hiera, &[96, 3, 7, 7])], Family::Sam2HieraTiny),
        (&[(hiera, &[96, 3, 7, 7]), (block, &[1]), (new, &[1])], Family::Sam21HieraSmall),
        (&[(hiera, &[112, 3, 7, 7]), (block, &[1])], Family::Sam2HieraBasePlus),
        (&[(hiera, &[144, 3, 7, 7]), (block, &[1]), (new, &[1])], Family::Sam21HieraLarge),
    ];
    let said = |name: &str| {
        let header = format!(
            r#"{{"__metadata__":{{"family":"{name}"}},"{vit}":{{"dtype":"U8","shape":[768,3,16,16],"data_offsets":[0,589824]}}}}"#
        );
        open(&safetensors(&header, &vec![0; 768 * 3 * 256])).unwrap()
    };
    // SAM ViT-B and MedSAM have the same keys and shapes: the file says which it is, the user has the last word.
    assert_eq!(Family::recognise(&said("medsam")), Ok(Family::MedSam));
    assert_eq!(Family::recognise(&said("sam-vit-b")), Ok(Family::SamVitB));
    assert_eq!(Family::expect(Some(Family::SamVitB), &said("medsam")), Ok(Family::SamVitB));
    assert_eq!(Family::expect(Some(Family::MedSam), &said("sam-vit-b")), Ok(Family::MedSam));
    assert!(Family::expect(Some(Family::SamVitL), &said("medsam")).is_err());
    for (keys, family) in cases {
        assert_eq!(Family::recognise(&of(keys)), Ok(family));
        assert_eq!(family.name().parse(), Ok(family));
    }
    let vit_b = of(&[(vit, &[768, 3, 16, 16])]);
    assert_eq!(Family::expect(Some(Family::MedSam), &vit_b), Ok(Family::MedSam));
    let wrong = Family::expect(Some(Family::LiteMedSam), &vit_b).unwrap_err();
    assert_eq!(wrong, FamilyError::Mismatch { asked: Family::LiteMedSam, found: Family::SamVitB });
    assert_eq!(wrong.to_string(), "the weights are sam-vit-b, asked for was lite-medsam");
    assert_eq!(Family::recognise(&of(&[("x", &[1])])), Err(FamilyError::Unrecognised));
    assert!(matches!("sam3".parse::<Family>(), Err(FamilyError::Name { .. })));
}

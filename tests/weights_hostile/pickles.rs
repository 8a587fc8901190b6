//! Pickles: what they may call, how deep and how long they may be, and what they may not refer to.

use std::path::PathBuf;

use sonomask::weights::{Checkpoint, Reason};

use super::{Pickle, archive, eight_floats, open, reason};

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors().map(|(name, _)| name).collect()
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

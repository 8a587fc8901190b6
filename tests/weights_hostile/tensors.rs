//! Tensors of both formats: their shapes, strides and types against what is there, and the family they tell.

use sonomask::weights::{Family, FamilyError, Reason, Weights, WeightsError};
use tch::Device;

use super::{Pickle, archive, eight_floats, open, reason};

#[test]
fn a_transposed_view_comes_out_in_its_own_order() {
    let pickle = Pickle::state_dict("FloatStorage", 8, 0, &[2, 4], &[1, 2]);
    let checkpoint = open(&archive(&pickle, &eight_floats())).unwrap();
    let values = Vec::<f32>::try_from(checkpoint.tensor("w").unwrap().unwrap().view(-1)).unwrap();
    assert_eq!(values, [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
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
fn a_storage_of_another_type_is_read_with_that_types_size() {
    let found = reason(&archive(&Pickle::state_dict("DoubleStorage", 8, 0, &[8], &[1]), &eight_floats()));
    assert!(matches!(found, Reason::Tensor { .. }), "{found:?}");
    let checkpoint =
        open(&archive(&Pickle::state_dict("BoolStorage", 4, 0, &[4], &[1]), &[0, 1, 2, 255])).unwrap();
    let values = Vec::<bool>::try_from(checkpoint.tensor("w").unwrap().unwrap()).unwrap();
    assert_eq!(values, [false, true, true, true]);
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

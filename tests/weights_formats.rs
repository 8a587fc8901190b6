//! Files as torch and Lightning really write them: read with the official names, compared value by value, converted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sonomask::weights::{Checkpoint, ConvertError, Dtype, Format, PREPROCESS, Reason, convert};
use tch::Kind;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/checkpoint").join(name)
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors().map(|(name, _)| name).collect()
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f64> {
    let tensor = checkpoint.tensor(name).unwrap().unwrap();
    Vec::try_from(tensor.to_kind(Kind::Double).view(-1)).unwrap()
}

/// A safetensors file of `f32` tensors of one dimension.
fn safetensors(tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let (mut at, mut entries, mut data) = (0, Vec::new(), Vec::new());
    for (name, values) in tensors {
        let end = at + values.len() * 4;
        let shape = values.len();
        entries.push(format!(r#""{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{at},{end}]}}"#));
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        at = end;
    }
    let header = format!(r#"{{"__metadata__":{{"seed":"7"}},{}}}"#, entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

fn open(tensors: &[(&str, &[f32])]) -> Result<Checkpoint, Reason> {
    Checkpoint::from_bytes(Path::new("made.safetensors"), safetensors(tensors)).map_err(|e| e.reason)
}

#[test]
fn a_lightning_file_has_the_official_names_and_nothing_of_it_is_executed() {
    let checkpoint = Checkpoint::open(&corpus("lightning.ckpt")).unwrap();
    assert_eq!(
        names(&checkpoint),
        [
            "image_encoder.adapters.0.adapters.0.bias",
            "image_encoder.adapters.0.adapters.0.weight",
            "image_encoder.adapters.0.adapters.2.bias",
            "image_encoder.adapters.0.adapters.2.weight",
            "image_encoder.trunk.norm.bias",
            "image_encoder.trunk.norm.weight",
            "ppn.layers.0.bias",
            "ppn.layers.0.weight",
            "ppn.learnable_prompts.shoulder",
            "sam_mask_decoder.attn.k_proj.bias",
            "sam_mask_decoder.attn.k_proj.weight",
            "sam_mask_decoder.attn.q_proj.bias",
            "sam_mask_decoder.attn.q_proj.w_a.weight",
            "sam_mask_decoder.attn.q_proj.w_b.weight",
            "sam_mask_decoder.attn.q_proj.weight",
            "sam_mask_decoder.attn.v_proj.bias",
            "sam_mask_decoder.attn.v_proj.w_a.weight",
            "sam_mask_decoder.attn.v_proj.w_b.weight",
            "sam_mask_decoder.attn.v_proj.weight",
            "sam_prompt_encoder.no_mask_embed.weight",
        ]
    );
    assert_eq!((checkpoint.format(), checkpoint.under()), (Format::TorchZip, Some("state_dict")));
    assert!(checkpoint.root_keys().iter().any(|k| k == "optimizer_states"), "{:?}", checkpoint.root_keys());
    for name in ["pathlib.PosixPath", "argparse.Namespace", "torch.device"] {
        assert!(checkpoint.foreign().iter().any(|f| f == name), "{:?}", checkpoint.foreign());
    }
    assert_eq!(checkpoint.metadata().get("global_step").map(String::as_str), Some("2"));
    assert!(checkpoint.metadata().contains_key("pytorch-lightning_version"));
    assert_eq!(checkpoint.metadata().get(PREPROCESS).map(String::as_str), Some("sam2rad"));
    assert_eq!(checkpoint.info("ppn.learnable_prompts.shoulder").unwrap().shape, [2, 3, 4]);
    // AdamW moved every weight of a freshly made norm from 1 by about the rate a step, two steps.
    for v in values(&checkpoint, "image_encoder.trunk.norm.weight") {
        assert!((v - 1.0).abs() > 1e-4 && (v - 1.0).abs() < 1e-3, "{v}");
    }
}

#[test]
fn every_container_and_protocol_of_torch_gives_the_same_tensors() {
    for (file, format, under) in [
        ("flat.pth", Format::TorchZip, None),
        ("legacy.pth", Format::TorchLegacy, Some("model")),
        ("protocol4.pth", Format::TorchZip, None),
        ("protocol5.pth", Format::TorchZip, Some("model")),
    ] {
        let checkpoint = Checkpoint::open(&corpus(file)).unwrap();
        assert_eq!((checkpoint.format(), checkpoint.under()), (format, under), "{file}");
        assert_eq!(names(&checkpoint), ["a.bias", "a.weight", "n"], "{file}");
        // Saved as the transpose of 0..6 in two rows: a view with strides.
        assert_eq!(checkpoint.info("a.weight").unwrap().shape, [3, 2], "{file}");
        assert_eq!(values(&checkpoint, "a.weight"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0], "{file}");
        assert_eq!(checkpoint.info("a.bias").unwrap().dtype, Dtype::F16, "{file}");
        assert_eq!(values(&checkpoint, "a.bias"), [1.0, 1.0], "{file}");
        assert_eq!(values(&checkpoint, "n"), [7.0], "{file}");
    }
}

#[test]
fn copies_of_the_prompt_encoder_must_agree() {
    let a: &[f32] = &[1.0, 2.0];
    let names_of = |first, second, encoder| {
        let made = [
            (first, a),
            (second, a),
            (encoder, a),
            ("model.model.prompt_sampler.prompt_learner.layers.0.norm1.bias", a),
        ];
        open(&made).map(|c| c.tensors().map(|(n, _)| n.to_owned()).collect::<Vec<_>>())
    };
    let first = "model.model.prompt_sampler.prompt_encoder.x";
    let second = "model.model.prompt_sampler.prompt_learner.prompt_encoder.x";
    let sam2 = names_of(first, second, "model.model.image_encoder.net.trunk.y").unwrap();
    assert_eq!(sam2, ["image_encoder.trunk.y", "ppn.layers.0.norm1.bias", "sam_prompt_encoder.x"]);
    let sam1 = names_of(first, second, "model.model.image_encoder.net.blocks.0.y").unwrap();
    assert_eq!(sam1, ["image_encoder.blocks.0.y", "ppn.layers.0.norm1.bias", "prompt_encoder.x"]);
    let error = open(&[(first, a), (second, &[1.0, 3.0]), ("model.model.image_encoder.net.trunk.y", a)]);
    match error {
        Err(Reason::Differ { name, .. }) => assert_eq!(name, "sam_prompt_encoder.x"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrappers_of_training_are_taken_away_and_official_names_are_left_alone() {
    let a: &[f32] = &[1.0];
    let of = |name: &str| names(&open(&[(name, a)]).unwrap()).join(" ");
    assert_eq!(
        of("module.image_encoder.blocks.0.attn.proj.weight"),
        "image_encoder.blocks.0.attn.proj.weight"
    );
    assert_eq!(of("module.model.mask_decoder.net.iou_token.weight"), "mask_decoder.iou_token.weight");
    for official in [
        "image_encoder.trunk.blocks.0.attn.proj.weight",
        "image_encoder.trunk.patch_embed.proj.weight",
        "memory_attention.layers.0.self_attn.q_proj.weight",
        "obj_ptr_tpos_proj.weight",
        "ppn.learnable_prompts.shoulder",
    ] {
        assert_eq!(of(official), official);
    }
    let aside = open(&[("model.model.obj_ptr_tpos_proj.bias", &[0.0; 256]), ("model.model.no_mem_embed", a)])
        .unwrap();
    assert_eq!(aside.set_aside(), ["model.model.obj_ptr_tpos_proj.bias"]);
    assert_eq!(names(&aside), ["no_mem_embed"]);
}

#[test]
fn conversion_keeps_values_names_and_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    let source = Checkpoint::open(&corpus("lightning.ckpt")).unwrap();
    let more = BTreeMap::from([("family".to_owned(), "sam2-hiera-tiny".to_owned())]);
    for (dtype, tolerance) in
        [(None, 0.0), (Some(Dtype::F32), 0.0), (Some(Dtype::F16), 5e-4), (Some(Dtype::BF16), 4e-3)]
    {
        convert(&source, &out, dtype, &more).unwrap();
        let back = Checkpoint::open(&out).unwrap();
        assert_eq!(names(&back), names(&source));
        assert_eq!(back.metadata().get("family").map(String::as_str), Some("sam2-hiera-tiny"));
        assert_eq!(back.metadata().get("global_step"), source.metadata().get("global_step"));
        for (name, info) in back.tensors() {
            assert_eq!(info.dtype, dtype.unwrap_or(Dtype::F32), "{name}");
            assert_eq!(info.shape, source.info(name).unwrap().shape, "{name}");
            for (a, b) in values(&source, name).into_iter().zip(values(&back, name)) {
                assert!((a - b).abs() <= tolerance * a.abs().max(1e-3), "{name}: {a} {b}");
            }
        }
    }
    // Integers stay integers, strided views come out in order.
    let flat = Checkpoint::open(&corpus("flat.pth")).unwrap();
    convert(&flat, &out, Some(Dtype::BF16), &BTreeMap::new()).unwrap();
    let back = Checkpoint::open(&out).unwrap();
    assert_eq!(back.info("n").unwrap().dtype, Dtype::I64);
    assert_eq!(values(&back, "a.weight"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
}

#[test]
fn conversion_rounds_as_torch_does() {
    // 1 + 2^-11 is halfway between two f16 and goes to the even one; the next f32 above it goes up.
    let halfway = 1.0 + 2f32.powi(-11);
    let source =
        open(&[("w", &[halfway, f32::from_bits(halfway.to_bits() + 1), f32::NAN, f32::INFINITY])]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    convert(&source, &out, Some(Dtype::F16), &BTreeMap::new()).unwrap();
    let ours = Checkpoint::open(&out).unwrap().data("w").unwrap().into_owned();
    let theirs = source.tensor("w").unwrap().unwrap().to_kind(Kind::Half);
    let back: Vec<f32> = Vec::try_from(theirs.to_kind(Kind::Float)).unwrap();
    assert_eq!(back[..2], [1.0, 1.0 + 2f32.powi(-10)]);
    let f16s: Vec<half::f16> = ours.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]])).collect();
    assert_eq!((f16s[0].to_f32(), f16s[1].to_f32()), (back[0], back[1]));
    assert!(f16s[2].is_nan() && f16s[3].is_infinite());
}

#[test]
fn a_value_that_does_not_fit_leaves_the_old_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    std::fs::write(&out, "old").unwrap();
    let large = open(&[("small", &[1.0]), ("large", &[70000.0])]).unwrap();
    let error = convert(&large, &out, Some(Dtype::F16), &BTreeMap::new()).unwrap_err();
    assert!(matches!(&error, ConvertError::Range { name, .. } if name == "large"), "{error}");
    assert_eq!(std::fs::read(&out).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    convert(&large, &out, Some(Dtype::BF16), &BTreeMap::new()).unwrap();
}

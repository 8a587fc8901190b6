//! The memory block by block: its encoder, prompts that are masks, times, pointers and attention.

use sonomask::nn::{Memories, RotaryGrid, Sam2, Sam2Memory, given, sine_grid, sine_of_time};
use sonomask::weights::Family;
use tch::{Device, Kind, Tensor};

use super::networks;
use crate::fixture_support::{ENCODER, Fixture, LOGITS};

fn tiny(file: &Fixture, side: i64) -> (Sam2, Sam2Memory) {
    networks(&file.generated(), Family::Sam21HieraTiny, side)
}

#[test]
fn parity_sam21_memory_encoder() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let (_, memory) = tiny(&file, 1024);
    let top = file.input("fx.mem.pix_feat", &[1, 256, 64, 64], 2.0);
    let logits = file.raw("mem.in.low_logits");
    let high = logits.upsample_bilinear2d([1024, 1024], false, None, None);
    for (case, mask) in [("sigmoid", high.sigmoid()), ("binary", high.gt(0.0).to_kind(Kind::Float))] {
        let mask = mask * 20.0 - 10.0;
        let key = |what: &str| format!("mem.{case}.{what}");
        let downsampled = memory.memory_encoder.mask_downsampler().forward(&mask).unwrap();
        file.check(&key("downsampler"), &downsampled, ENCODER);
        file.check(&key("features"), &memory.memory_encoder.forward(&top, &mask).unwrap(), ENCODER);
    }
    file.check("mem.pos_enc", &sine_grid(64, [64, 64], Device::Cpu).unwrap(), ENCODER);
    for (case, score) in [("present", 3.0), ("absent", -3.0)] {
        let present = Tensor::from_slice(&[score]).view([1, 1]).gt(0.0);
        let features = memory.remember(&top, &logits, &present, false).unwrap();
        file.check(&format!("mem.encode_new.{case}"), &features, ENCODER);
    }
}

#[test]
fn parity_sam21_mask_prompts() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let nets = tiny(&file, 1024);
    let high = file.raw("mem.in.low_logits").upsample_bilinear2d([1024, 1024], false, None, None);
    let mask = high.gt(0.0).to_kind(Kind::Float);
    file.check("mask_downsample.out", &nets.1.mask_prompt(&mask).unwrap(), ENCODER);
    let embedding = file.input("fx.dec.image_embed", &[1, 256, 64, 64], 2.0);
    let s0 = file.input("fx.dec.s0", &[1, 32, 256, 256], 2.0);
    let s1 = file.input("fx.dec.s1", &[1, 64, 128, 128], 2.0);
    let found = given((&nets.0, &nets.1), &embedding, &(s0, s1), &mask).unwrap();
    file.check_logits("use_mask_as_output.low_res", &found.logits);
    file.check_raw("use_mask_as_output.obj_ptr", &found.pointer, ENCODER);
    file.check_raw("use_mask_as_output.obj_score", &found.object_score, LOGITS);
}

#[test]
fn parity_sam21_times_and_pointers() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let (_, memory) = tiny(&file, 1024);
    let times = Vec::<f32>::try_from(file.raw("tpos.in")).unwrap();
    file.check_raw("tpos.sine", &sine_of_time(&times, 256, Device::Cpu).unwrap(), ENCODER);
    file.check_raw("tpos.proj", &memory.time(&times).unwrap(), ENCODER);
    let token = file.input("fx.tok", &[2, 256], 2.0);
    let present = Tensor::ones([2, 1], (Kind::Bool, Device::Cpu));
    file.check_raw("obj_ptr_proj.out", &memory.pointer(&token, &present).unwrap(), ENCODER);
    for side in [64, 32] {
        let grid = RotaryGrid::new([side, side], Device::Cpu).unwrap();
        let parts = grid.turns().view_as_real();
        file.check(&format!("rope.{side}.real"), &parts.select(-1, 0).contiguous(), ENCODER);
        file.check(&format!("rope.{side}.imag"), &parts.select(-1, 1).contiguous(), ENCODER);
    }
}

#[test]
fn parity_sam21_memory_attention() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let attention = tiny(&file, 1024).1.memory_attention;
    let rows = |x: &Tensor| x.flatten(2, -1).permute([2, 0, 1]);
    let positions = sine_grid(256, [64, 64], Device::Cpu).unwrap();
    file.check("ma.curr_pos", &rows(&positions), ENCODER);
    let top = file.input("fx.ma.curr", &[4096, 1, 256], 2.0).permute([1, 2, 0]).reshape([1, 256, 64, 64]);
    for (case, frames, pointers) in [("m1p1", 1, 1), ("m7p16", 7, 16)] {
        let shape = [frames * 4096 + pointers * 4, 1, 64];
        let input =
            |what: &str, scale| file.input(&format!("fx.ma.{what}.{case}"), &shape, scale).transpose(0, 1);
        let memories = Memories {
            values: input("mem", 2.0),
            positions: input("mpos", 1.0),
            pointer_tokens: pointers * 4,
        };
        let out = attention.forward(&top, &memories).unwrap();
        file.check(&format!("ma.{case}.out"), &rows(&out), ENCODER);
        if case != "m1p1" {
            continue;
        }
        let keys = &memories.values + &memories.positions;
        let mut x = attention.queries(&top).unwrap();
        for (i, layer) in attention.layers().iter().enumerate() {
            let key = |what: &str| format!("ma.{case}.layer{i}.{what}");
            x = layer.itself(&x, attention.grid()).unwrap();
            file.check(&key("sa"), &x, ENCODER);
            x = layer.remembered(&x, &keys, &memories, attention.grid()).unwrap();
            file.check(&key("ca"), &x, ENCODER);
            x = layer.mlp(&x).unwrap();
            file.check(&key("out"), &x, ENCODER);
        }
    }
}

/// Objects that are looked at together answer as one by one.
#[test]
fn memories_of_several_objects_are_looked_at_together() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("sam21_modules");
    let attention = tiny(&file, 256).1.memory_attention;
    let top = file.input("top", &[1, 256, 16, 16], 2.0);
    let input = |what: &str, scale| file.input(what, &[3, 2 * 256 + 8, 64], scale);
    let (values, positions) = (input("values", 2.0), input("positions", 1.0));
    let together =
        Memories { values: values.shallow_clone(), positions: positions.shallow_clone(), pointer_tokens: 8 };
    let together = attention.forward(&top, &together).unwrap();
    for i in 0..3 {
        let one = Memories {
            values: values.narrow(0, i, 1),
            positions: positions.narrow(0, i, 1),
            pointer_tokens: 8,
        };
        let alone = attention.forward(&top, &one).unwrap();
        let error = (together.narrow(0, i, 1) - &alone).norm() / alone.norm();
        assert!(f64::try_from(error).unwrap() < 1e-5, "object {i}");
    }
}

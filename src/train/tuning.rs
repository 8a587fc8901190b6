//! Which parts of the network are trained, and how fast.

use super::optimizer::Group;
use super::{DecoderTuning, StageSpec};
use crate::nn::{in_mask_decoder, is_factor, scores_presence};

/// Whether the tensor `name` is trained: the predictor always, of the decoder what its tuning says, and what says whether a class is
/// there with `object_score`. What is trained of the encoder is chosen where it is adapted (`segment::EncoderLora`).
pub fn is_trained(name: &str, tuning: DecoderTuning, object_score: bool) -> bool {
    if name.starts_with("ppn.") {
        return true;
    }
    let Some(part) = in_mask_decoder(name) else { return false };
    let begins = |parts: &[&str]| parts.iter().any(|begin| part.starts_with(begin));
    // A frozen decoder still has to learn whether a class is there: nobody taught it that for these classes.
    if scores_presence(name) {
        return object_score;
    }
    let mask = ["mask_tokens.", "output_upscaling.", "output_hypernetworks_mlps.0."];
    match tuning {
        DecoderTuning::Frozen => false,
        DecoderTuning::Lora { .. } => is_factor(part) || begins(&mask),
        // The features that the decoder adds are kept on disk, and nothing says how good a mask is thought to be.
        DecoderTuning::Attention | DecoderTuning::Full => {
            let left_out = tuning == DecoderTuning::Attention && part.contains(".mlp.");
            begins(&mask) || begins(&["transformer.", "iou_token."]) && !left_out
        }
    }
}

/// The largest learning rate of a group in a stage.
pub fn largest(stage: &StageSpec, group: Group) -> f64 {
    match group {
        Group::Predictor => stage.predictor,
        Group::Decoder => stage.decoder,
        Group::Encoder => stage.encoder,
    }
}

/// The learning rate of a group when `share` of the stage's steps are done: a straight rise, then a half cosine.
pub fn rate(stage: &StageSpec, group: Group, share: f64) -> f64 {
    let largest = largest(stage, group);
    if share < stage.warmup {
        return largest * share / stage.warmup;
    }
    let after = ((share - stage.warmup) / (1.0 - stage.warmup).max(f64::EPSILON)).min(1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * after).cos());
    largest * (stage.floor + (1.0 - stage.floor) * cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall_and_keep_their_floor() {
        let stage = StageSpec {
            name: "all".into(),
            pyramid: false,
            epochs: 10,
            predictor: 2.0,
            decoder: 0.0,
            encoder: 0.5,
            warmup: 0.1,
            floor: 0.25,
        };
        let at = |share| rate(&stage, Group::Predictor, share);
        assert!((at(0.05) - 1.0).abs() < 1e-12);
        assert!((at(0.1) - 2.0).abs() < 1e-12);
        // Half of the cosine: the middle between the largest and the floor, 0.25 of it.
        assert!((at(0.55) - 1.25).abs() < 1e-12);
        assert!((at(1.0) - 0.5).abs() < 1e-12);
        assert_eq!(rate(&stage, Group::Decoder, 0.5), 0.0);
        assert!((rate(&stage, Group::Encoder, 0.1) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn each_tuning_trains_what_it_says() {
        let trained = |name: &str| {
            let lora = DecoderTuning::Lora { rank: 8 };
            [DecoderTuning::Frozen, lora, DecoderTuning::Attention, DecoderTuning::Full]
                .map(|tuning| is_trained(name, tuning, true))
        };
        for decoder in ["mask_decoder", "sam_mask_decoder"] {
            let of = |part: &str| trained(&format!("{decoder}.{part}"));
            assert_eq!(of("obj_score_token.weight"), [true; 4]);
            let score = format!("{decoder}.pred_obj_score_head.layers.0.weight");
            assert!(is_trained(&score, DecoderTuning::Frozen, true));
            assert!(!is_trained(&score, DecoderTuning::Full, false));
            assert_eq!(of("mask_tokens.weight"), [false, true, true, true]);
            assert_eq!(of("output_hypernetworks_mlps.0.layers.1.bias"), [false, true, true, true]);
            assert_eq!(of("output_hypernetworks_mlps.1.layers.1.bias"), [false; 4]);
            assert_eq!(of("transformer.layers.0.self_attn.q_proj.w_a.weight"), [false, true, true, true]);
            assert_eq!(of("transformer.layers.0.self_attn.q_proj.weight"), [false, false, true, true]);
            assert_eq!(of("transformer.layers.1.mlp.lin1.weight"), [false, false, false, true]);
            assert_eq!(of("iou_prediction_head.layers.0.weight"), [false; 4]);
            assert_eq!(of("conv_s0.weight"), [false; 4]);
        }
        assert_eq!(trained("ppn.mask_classifier.final_conv.weight"), [true; 4]);
        assert_eq!(trained("image_encoder.neck.0.weight"), [false; 4]);
        assert_eq!(trained("prompt_encoder.no_mask_embed.weight"), [false; 4]);
    }
}

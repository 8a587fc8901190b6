//! The prompt predictor network against the authors' answers, and the forms that have none published against PyTorch
//! (`scripts/make_ppn_fixtures.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use fixture_support::{ENCODER, Fixture};
use sonomask::nn::{
    Adapters, MaskDecoder, MaskDecoderConfig, MaskSelection, MergedLora, MlpKeys, PpnConfig, Prediction,
    PromptEncoder, PromptPredictor, TwoWayTransformer, lora_shapes,
};
use sonomask::weights::{Blank, Generated, Source, Weights};
use tch::{Device, Kind, Tensor};

const IMAGES: i64 = 2;
/// Largest difference of a `bf16` mask by the largest logit: two of the largest roundings, as there are two convolutions.
const BF16: f64 = 1.0 / 128.0;

/// The networks of one file, with the inputs they are asked with.
struct Case {
    file: Fixture,
    ppn: PromptPredictor,
    prompt_encoder: PromptEncoder,
    mask_decoder: MaskDecoder,
    /// Embedding, stride 8, stride 4.
    features: [Tensor; 3],
    queries: Tensor,
}

impl Case {
    fn open(name: &str, side: i64, config: &PpnConfig, kind: Kind) -> Self {
        let file = Fixture::open(name);
        let generated = file.generated();
        let w = Weights::new(&generated, Device::Cpu);
        let e = side / 16;
        let prompt_encoder =
            PromptEncoder::new(&w.pp("sam_prompt_encoder"), 256, [e; 2], [side; 2], 16).unwrap();
        let mask_decoder = MaskDecoder::new(&w.pp("sam_mask_decoder"), &MaskDecoderConfig::SAM2).unwrap();
        let ppn = PromptPredictor::new(&w.pp("ppn").computing_in(kind), config).unwrap();
        let features = [
            file.input("fx.ppn.emb", &[IMAGES, 256, e, e], 2.0),
            file.input("fx.ppn.s1", &[IMAGES, 64, 2 * e, 2 * e], 2.0),
            file.input("fx.ppn.s0", &[IMAGES, 32, 4 * e, 4 * e], 2.0),
        ];
        let queries = file.input("fx.ppn.queries", &[2, 10, 256], 1.0);
        Self { file, ppn, prompt_encoder, mask_decoder, features, queries }
    }

    /// The reference put query set `i` to image `i`; we put every set to every image. These are the pairs it has.
    fn pairs(prediction: &Prediction) -> Prediction {
        let rows = Tensor::from_slice(&[0i64, 3]);
        let pick = |t: &Tensor| t.index_select(0, &rows);
        Prediction {
            sparse: pick(&prediction.sparse),
            dense: pick(&prediction.dense),
            interim_mask: pick(&prediction.interim_mask),
            boxes: pick(&prediction.boxes),
        }
    }

    fn answer(&self, levels: usize) -> Prediction {
        let features: Vec<&Tensor> = self.features.iter().take(levels).collect();
        Self::pairs(&self.ppn.forward(&features, &self.queries, &self.prompt_encoder, false).unwrap())
    }

    fn check(&self, levels: usize) {
        let ours = self.answer(levels);
        self.file.check_raw("sparse", &ours.sparse, ENCODER);
        self.file.check("dense", &ours.dense, ENCODER);
        self.file.check_logits("interim_mask", &ours.interim_mask);
        self.file.check_raw("pred_boxes", &ours.boxes, ENCODER);

        let [embedding, s1, s0] = &self.features;
        let decoded = self
            .mask_decoder
            .forward(
                embedding,
                self.prompt_encoder.get_dense_pe(),
                &ours.sparse,
                &ours.dense,
                Some((s0, s1)),
                MaskSelection::Single,
            )
            .unwrap();
        self.file.check_logits("low_res_masks", &decoded.masks);
        self.file.check_raw("iou", &decoded.iou, ENCODER);
        self.file.check_raw("obj", &decoded.object_score.unwrap(), ENCODER);
    }
}

fn two_classes() -> Vec<String> {
    ["one", "two"].map(str::to_owned).into()
}

#[test]
fn parity_ppn_high_res_512() {
    let _guard = tch::no_grad_guard();
    Case::open("sam2rad_ppn_512", 512, &PpnConfig::sam2_high_res("fixture", two_classes()), Kind::Float)
        .check(3);
}

#[test]
fn parity_ppn_high_res_1024() {
    let _guard = tch::no_grad_guard();
    Case::open("sam2rad_ppn_1024", 1024, &PpnConfig::sam2_high_res("fixture", two_classes()), Kind::Float)
        .check(3);
}

/// In a network in `bf16` queries and boxes of this form come from `f32` and are the authors' to the same bar; the mask, made in `bf16`, is off by
/// what eight bits of a significand are.
#[test]
fn parity_ppn_in_bf16() {
    let _guard = tch::no_grad_guard();
    let config = PpnConfig::sam2_high_res("fixture", two_classes());
    let case = Case::open("sam2rad_ppn_512", 512, &config, Kind::BFloat16);
    let ours = case.answer(3);
    assert_eq!(ours.interim_mask.kind(), Kind::Float);
    case.file.check_raw("sparse", &ours.sparse, ENCODER);
    case.file.check_raw("pred_boxes", &ours.boxes, ENCODER);
    case.file.check("interim_mask", &ours.interim_mask, BF16);
    let in_f32 = Case::open("sam2rad_ppn_512", 512, &config, Kind::Float).answer(3);
    assert!(
        !bool::try_from(ours.interim_mask.eq_tensor(&in_f32.interim_mask).all()).unwrap(),
        "computed in f32"
    );
}

/// A form without published answers: every image with every class.
fn check_form(key: &str, config: &PpnConfig) {
    let _guard = tch::no_grad_guard();
    let (images, grid) = (2, 16);
    let file = Fixture::open("ppn_forms");
    let generated = file.generated();
    let w = Weights::new(&generated, Device::Cpu);
    let prompt_encoder =
        PromptEncoder::new(&w.pp("sam_prompt_encoder"), 256, [grid; 2], [16 * grid; 2], 16).unwrap();
    let ppn = PromptPredictor::new(&w.pp("ppn"), config).unwrap();
    let features: Vec<Tensor> = (config.channel_dims.iter().enumerate())
        .map(|(i, &width)| file.input(&format!("fx.{key}.{i}"), &[images, width, grid, grid], 2.0))
        .collect();
    let features: Vec<&Tensor> = features.iter().collect();
    let queries = file.input(&format!("fx.{key}.queries"), &[3, 10, 256], 1.0);
    let ours = ppn.forward(&features, &queries, &prompt_encoder, false).unwrap();
    file.check(&format!("{key}.sparse"), &ours.sparse, ENCODER);
    file.check(&format!("{key}.dense"), &ours.dense, ENCODER);
    file.check(&format!("{key}.boxes"), &ours.boxes, ENCODER);
    file.check_logits(&format!("{key}.interim_mask"), &ours.interim_mask);
}

fn three_classes() -> Vec<String> {
    ["one", "two", "three"].map(str::to_owned).into()
}

#[test]
fn parity_ppn_single_scale() {
    check_form("single", &PpnConfig::single_scale("fixture", three_classes()));
}

#[test]
fn parity_ppn_levels_of_one_size() {
    check_form("mobile", &PpnConfig::sam_high_res("fixture", three_classes(), 320));
}

#[test]
fn parity_ppn_pyramid() {
    let of_levels = PpnConfig::sam_high_res("fixture", three_classes(), 320);
    check_form("pyramid", &PpnConfig::pyramid(of_levels, Some(160)));
}

#[test]
fn parity_lora() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("lora_adapters");
    let build = |source: &dyn Source| {
        let w = Weights::new(source, Device::Cpu);
        let transformer = w.pp("sam_mask_decoder").pp("transformer");
        (
            TwoWayTransformer::new(&transformer, 2, 256, 8, 2048, MlpKeys::Layers).unwrap(),
            w.read(),
            w.unused(),
        )
    };
    let adapted = file.generated().with(lora_shapes(&build(&Blank).1, 8));
    let merged = MergedLora::new(&adapted);
    let sources: [&dyn Source; 2] = [&adapted, &merged];
    for source in sources {
        let (transformer, read, unused) = build(source);
        assert!(unused.is_empty(), "{unused:?}");
        let factors = read.keys().filter(|name| name.contains(".w_a.") || name.contains(".w_b.")).count();
        assert!(
            factors == 0 || factors == 28,
            "two factors of two projections of seven attentions: {factors}"
        );
        let (tokens, cells) = transformer
            .forward(
                &file.input("fx.lora.image", &[1, 256, 12, 8], 2.0),
                &file.input("fx.lora.position", &[1, 256, 12, 8], 2.0),
                &file.input("fx.lora.tokens", &[1, 7, 256], 1.0),
            )
            .unwrap();
        file.check("lora.tokens", &tokens, ENCODER);
        file.check("lora.cells", &cells, ENCODER);
    }
}

#[test]
fn parity_adapters() {
    let _guard = tch::no_grad_guard();
    let file = Fixture::open("lora_adapters");
    let widths = [96, 96, 192];
    let optional = ("image_encoder.adapters.0.adapters.0.weight".to_owned(), vec![64, 96]);
    let generated: Generated = file.generated().with([optional]);
    let w = Weights::new(&generated, Device::Cpu);
    let adapters = Adapters::new(&w.pp("image_encoder"), &widths).unwrap().unwrap();
    for (i, width) in widths.into_iter().enumerate() {
        let x = file.input(&format!("fx.adapter.{i}"), &[1, 4, 4, width], 2.0);
        file.check(&format!("adapter.{i}"), &adapters.apply(i, &x).unwrap(), ENCODER);
    }
}

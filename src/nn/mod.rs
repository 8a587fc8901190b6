//! The networks, one file per block of the reference implementations.
//!
//! - Fields are named after the checkpoint's keys and constructors follow its paths, so the code is the weight map.
//! - `forward` keeps the graph differentiable; whoever only infers wraps it in `tch::no_grad`.
//! - libtorch's errors (out of memory, shapes that do not fit) are returned, never thrown.
//!
//! Sources: SAM (<https://arxiv.org/abs/2304.02643>, <https://github.com/facebookresearch/segment-anything>), SAM 2
//! (<https://arxiv.org/abs/2408.00714>, <https://github.com/facebookresearch/sam2>), TinyViT as
//! used by MobileSAM (<https://arxiv.org/abs/2306.14289>) and LiteMedSAM (<https://github.com/bowang-lab/MedSAM>).

mod adapter;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod common;
mod encoder_step;
mod fpn_neck;
mod hiera;
mod linear;
mod lora;
mod mask_decoder;
mod memory_attention;
mod memory_encoder;
mod neck;
mod position_encoding;
mod ppn;
mod prompt_encoder;
mod sam;
mod sam1;
mod sam2;
mod sam2_memory;
mod sam2_video;
mod tail;
mod tiny_vit;
mod transformer;
mod vit;
mod window;

pub use adapter::Adapters;
pub use common::{
    Activation, Conv2d, ConvTranspose2d, LayerNorm, LayerNorm2d, Mlp, MlpBlock, MlpKeys, sent, unsent,
};
pub use encoder_step::EncoderStep;
pub use fpn_neck::FpnNeck;
pub use hiera::{Hiera, HieraConfig};
pub use linear::Linear;
pub use lora::{MergedLora, is_factor, lora_shapes};
pub use mask_decoder::{
    Decoded, MaskDecoder, MaskDecoderConfig, MaskSelection, OutputUpscaling, in_mask_decoder, scores_presence,
};
pub use memory_attention::{Memories, MemoryAttention, MemoryAttentionLayer, RotaryGrid};
pub use memory_encoder::{MaskDownSampler, MemoryEncoder};
pub use position_encoding::{sine_grid, sine_of_time};
pub use ppn::{PpnConfig, PpnForm, Prediction, PromptPredictor, learnable_prompts};
pub use prompt_encoder::{PositionEmbeddingRandom, PromptEncoder};
pub use sam::{Sam, SamFeatures};
pub use sam1::{Sam1, Sam1Config, Sam1Encoder, Sam1EncoderConfig, Sam1Features};
pub use sam2::{Sam2, Sam2Features, Sam2ImageEncoder};
pub use sam2_memory::{RECENT_FRAMES, Remembered, RememberedPointer, Sam2Memory};
pub use sam2_video::{CERTAIN, Tracked, VideoPrompt, drawn_logits, find, given, tracked};
pub use tail::LastBlocks;
pub use tiny_vit::{TinyVit, TinyVitConfig, TinyVitStem};
pub use transformer::{Attention, TwoWayAttentionBlock, TwoWayTransformer};
pub use vit::{ImageEncoderVit, VitConfig};

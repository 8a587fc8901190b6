//! The networks, one file per block of the reference implementations.
//!
//! - Fields are named after the checkpoint's keys and constructors follow its paths, so the code is the weight map.
//! - `forward` keeps the graph differentiable; whoever only infers wraps it in `tch::no_grad`.
//! - libtorch's errors (out of memory, shapes that do not fit) are returned, never thrown.
//!
//! Sources: SAM (<https://arxiv.org/abs/2304.02643>, <https://github.com/facebookresearch/segment-anything>), TinyViT as
//! used by MobileSAM (<https://arxiv.org/abs/2306.14289>) and LiteMedSAM (<https://github.com/bowang-lab/MedSAM>).

mod common;
mod lite_medsam;
mod mask_decoder;
mod prompt_encoder;
mod tiny_vit;
mod transformer;

pub use common::{Activation, Conv2d, ConvTranspose2d, LayerNorm, LayerNorm2d, Linear, Mlp, MlpBlock};
pub use lite_medsam::LiteMedSam;
pub use mask_decoder::{MaskDecoder, OutputUpscaling};
pub use prompt_encoder::{PositionEmbeddingRandom, PromptEncoder};
pub use tiny_vit::{TinyVit, TinyVitConfig, TinyVitStem};
pub use transformer::{Attention, TwoWayAttentionBlock, TwoWayTransformer};

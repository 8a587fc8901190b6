//! What a prompt predictor consists of.

use tch::TchError;

use super::DIM;
use super::pyramid::LEAST_CELLS;
use crate::weights::{Source, WeightsError};

/// The forms of the prompt predictor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PpnForm {
    /// One block on the image embedding; the mask head's logits are enlarged four times. What the paper describes.
    SingleScale,
    /// A block on each of several levels, from the embedding to the finest. What the authors run on SAM 2.
    HighRes,
    /// One block on the image embedding, to which a small pyramid over the features of all levels has added what it sees of
    /// the whole picture. Its first masks and the block's add up to the interim mask, and the box is the one around that.
    /// Sonomask's own.
    Pyramid,
}

impl PpnForm {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::SingleScale, Self::HighRes, Self::Pyramid];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleScale => "single-scale",
            Self::HighRes => "high-res",
            Self::Pyramid => "pyramid",
        }
    }

    /// Cells that the image embedding needs a side.
    pub fn least_cells(self) -> i64 {
        match self {
            Self::SingleScale | Self::HighRes => 1,
            Self::Pyramid => LEAST_CELLS,
        }
    }
}

impl std::str::FromStr for PpnForm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|f| f.name() == name);
        found.ok_or_else(|| format!("unknown form {name:?}; expected single-scale, high-res or pyramid"))
    }
}

/// What a prompt predictor consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PpnConfig {
    /// Which form.
    pub form: PpnForm,
    /// Name of the data set that the queries were learned on, a part of their key.
    pub dataset: String,
    /// Names of the classes, in the order of the queries.
    pub classes: Vec<String>,
    /// Queries of a class, `N`. The first two become a box.
    pub tokens: i64,
    /// Channels of every level from coarse to fine, the embedding's first; of a pyramid's early features last.
    pub channel_dims: Vec<i64>,
    /// How much larger the interim mask is than the finest level; it has to come out at four times the embedding.
    pub mask_scale_factor: i64,
}

impl PpnConfig {
    /// Queries of a class in the authors' configurations.
    pub const TOKENS: i64 = 10;

    /// One block on the embedding, for any network.
    pub fn single_scale(dataset: impl Into<String>, classes: Vec<String>) -> Self {
        Self {
            form: PpnForm::SingleScale,
            dataset: dataset.into(),
            classes,
            tokens: Self::TOKENS,
            channel_dims: vec![DIM],
            mask_scale_factor: 4,
        }
    }

    /// SAM 2: the embedding and the features of stride 8 (64 channels) and 4 (32) that its mask decoder takes.
    pub fn sam2_high_res(dataset: impl Into<String>, classes: Vec<String>) -> Self {
        Self {
            form: PpnForm::HighRes,
            channel_dims: vec![DIM, 64, 32],
            mask_scale_factor: 1,
            ..Self::single_scale(dataset, classes)
        }
    }

    /// SAM and MobileSAM: the embedding and the outputs of the encoder's last two blocks, which are `width` wide (768, 1024 and 1280 for
    /// ViT-B, L and H, 320 for TinyViT) and of the embedding's size.
    pub fn sam_high_res(dataset: impl Into<String>, classes: Vec<String>, width: i64) -> Self {
        Self {
            form: PpnForm::HighRes,
            channel_dims: vec![DIM, width, width],
            ..Self::single_scale(dataset, classes)
        }
    }

    /// The same features as another configuration's in a pyramid, with `early` channels of the encoder's early features.
    pub fn pyramid(high_res: Self, early: Option<i64>) -> Self {
        let channel_dims = high_res.channel_dims.iter().copied().chain(early).collect();
        Self { form: PpnForm::Pyramid, channel_dims, mask_scale_factor: 4, ..high_res }
    }

    /// Refuses what no network can be made of.
    pub(super) fn check(&self) -> Result<(), WeightsError> {
        let wrong = if self.channel_dims.first() != Some(&DIM) {
            format!("the first level has {DIM} channels, not {:?}", self.channel_dims)
        } else if self.tokens < 2 {
            format!("a class needs two queries for its box, not {}", self.tokens)
        } else if self.mask_scale_factor < 1 {
            format!("the mask cannot be {} times the finest level", self.mask_scale_factor)
        } else {
            return Ok(());
        };
        Err(TchError::Shape(wrong).into())
    }
}

/// The data sets whose queries `source` holds below `prefix` (`ppn` in sonomask's names), each with its numbers of classes and of
/// queries a class.
pub fn learnable_prompts(source: &dyn Source, prefix: &str) -> Vec<(String, i64, i64)> {
    let prefix = format!("{prefix}.learnable_prompts.");
    let found = |name: String| {
        let dataset = name.strip_prefix(&prefix)?;
        match source.shape(&name)?[..] {
            [classes, tokens, _] => Some((dataset.to_owned(), classes, tokens)),
            _ => None,
        }
    };
    source.names().into_iter().filter_map(found).collect()
}

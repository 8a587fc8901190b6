//! Which network a checkpoint belongs to, told from its keys and shapes.

use std::fmt;
use std::str::FromStr;

use super::checkpoint::Checkpoint;
use super::published::Published;

/// The families of networks that checkpoints are published for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// TinyViT at 256 pixels with a stride-4 grid, SAM decoder.
    LiteMedSam,
    /// TinyViT at 1024 pixels, SAM decoder.
    MobileSam,
    /// ViT-B, SAM decoder.
    SamVitB,
    /// ViT-L, SAM decoder.
    SamVitL,
    /// ViT-H, SAM decoder.
    SamVitH,
    /// ViT-B fine-tuned on medical images; keys and shapes are those of [`Family::SamVitB`].
    MedSam,
    /// SAM 2, Hiera tiny.
    Sam2HieraTiny,
    /// SAM 2, Hiera small.
    Sam2HieraSmall,
    /// SAM 2, Hiera base-plus.
    Sam2HieraBasePlus,
    /// SAM 2, Hiera large.
    Sam2HieraLarge,
    /// SAM 2.1, Hiera tiny.
    Sam21HieraTiny,
    /// SAM 2.1, Hiera small.
    Sam21HieraSmall,
    /// SAM 2.1, Hiera base-plus.
    Sam21HieraBasePlus,
    /// SAM 2.1, Hiera large.
    Sam21HieraLarge,
}

/// Why a family was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FamilyError {
    /// No such name.
    #[error("unknown model family {name:?}; known are {}", Family::names())]
    Name {
        /// Given name.
        name: String,
    },
    /// Keys and shapes fit no family.
    #[error(
        "the weights belong to no known family: none of the first layers of SAM, SAM 2, MobileSAM or LiteMedSAM is in them"
    )]
    Unrecognised,
    /// The file is something else than what was asked for.
    #[error("the weights are {found}, asked for was {asked}")]
    Mismatch {
        /// Asked for.
        asked: Family,
        /// What the file is.
        found: Family,
    },
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 14] = [
        Self::LiteMedSam,
        Self::MobileSam,
        Self::SamVitB,
        Self::SamVitL,
        Self::SamVitH,
        Self::MedSam,
        Self::Sam2HieraTiny,
        Self::Sam2HieraSmall,
        Self::Sam2HieraBasePlus,
        Self::Sam2HieraLarge,
        Self::Sam21HieraTiny,
        Self::Sam21HieraSmall,
        Self::Sam21HieraBasePlus,
        Self::Sam21HieraLarge,
    ];

    /// Name on the command line, in configs and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::LiteMedSam => "lite-medsam",
            Self::MobileSam => "mobile-sam",
            Self::SamVitB => "sam-vit-b",
            Self::SamVitL => "sam-vit-l",
            Self::SamVitH => "sam-vit-h",
            Self::MedSam => "medsam",
            Self::Sam2HieraTiny => "sam2-hiera-tiny",
            Self::Sam2HieraSmall => "sam2-hiera-small",
            Self::Sam2HieraBasePlus => "sam2-hiera-base-plus",
            Self::Sam2HieraLarge => "sam2-hiera-large",
            Self::Sam21HieraTiny => "sam2.1-hiera-tiny",
            Self::Sam21HieraSmall => "sam2.1-hiera-small",
            Self::Sam21HieraBasePlus => "sam2.1-hiera-base-plus",
            Self::Sam21HieraLarge => "sam2.1-hiera-large",
        }
    }

    /// Whether it is SAM 2 or 2.1.
    pub fn is_sam2(self) -> bool {
        self.name().starts_with("sam2")
    }

    /// Whether it is SAM 2.1, which has a few weights that 2.0 has not.
    pub fn is_sam21(self) -> bool {
        self.name().starts_with("sam2.1")
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Tells the family from the first layer, the depth and the parts that only one version has.
    ///
    /// # Errors
    /// [`FamilyError::Unrecognised`].
    pub fn recognise(checkpoint: &Checkpoint) -> Result<Self, FamilyError> {
        let shape = |name: &str| checkpoint.info(name).map(|i| i.shape.as_slice());
        if let Some(stem) = shape("image_encoder.patch_embed.seq.0.c.weight") {
            return match stem {
                [_, 3, 1, 1] => Ok(Self::LiteMedSam),
                [_, 3, 3, 3] => Ok(Self::MobileSam),
                _ => Err(FamilyError::Unrecognised),
            };
        }
        if let Some(stem) = shape("image_encoder.patch_embed.proj.weight") {
            return match stem {
                [768, 3, 16, 16] if is_medsam(checkpoint) => Ok(Self::MedSam),
                [768, 3, 16, 16] => Ok(Self::SamVitB),
                [1024, 3, 16, 16] => Ok(Self::SamVitL),
                [1280, 3, 16, 16] => Ok(Self::SamVitH),
                _ => Err(FamilyError::Unrecognised),
            };
        }
        let version_21 = shape("no_obj_embed_spatial").is_some();
        let deeper_than_tiny = shape("image_encoder.trunk.blocks.12.norm1.weight").is_some();
        let choose = |v20, v21| Ok(if version_21 { v21 } else { v20 });
        match shape("image_encoder.trunk.patch_embed.proj.weight") {
            Some([96, 3, 7, 7]) if deeper_than_tiny => choose(Self::Sam2HieraSmall, Self::Sam21HieraSmall),
            Some([96, 3, 7, 7]) => choose(Self::Sam2HieraTiny, Self::Sam21HieraTiny),
            Some([112, 3, 7, 7]) => choose(Self::Sam2HieraBasePlus, Self::Sam21HieraBasePlus),
            Some([144, 3, 7, 7]) => choose(Self::Sam2HieraLarge, Self::Sam21HieraLarge),
            _ => Err(FamilyError::Unrecognised),
        }
    }

    /// The family of `checkpoint`, which must be `asked` where that is given.
    ///
    /// # Errors
    /// An unknown file, or one of another family.
    pub fn expect(asked: Option<Self>, checkpoint: &Checkpoint) -> Result<Self, FamilyError> {
        let found = Self::recognise(checkpoint)?;
        match asked {
            // The two share every key and shape, so the user has the last word.
            Some(asked @ (Self::MedSam | Self::SamVitB)) if matches!(found, Self::MedSam | Self::SamVitB) => {
                Ok(asked)
            }
            Some(asked) if asked != found => Err(FamilyError::Mismatch { asked, found }),
            _ => Ok(found),
        }
    }
}

/// Whether weights of ViT-B's keys and shapes are MedSAM's: they say so, or the file is the published one.
fn is_medsam(checkpoint: &Checkpoint) -> bool {
    match checkpoint.metadata().get("family") {
        Some(name) => name == Family::MedSam.name(),
        None => Published::of_file(checkpoint.path()).is_some_and(|p| p.family == Family::MedSam),
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Family {
    type Err = FamilyError;

    fn from_str(name: &str) -> Result<Self, FamilyError> {
        Self::ALL
            .into_iter()
            .find(|f| f.name() == name)
            .ok_or_else(|| FamilyError::Name { name: name.to_owned() })
    }
}

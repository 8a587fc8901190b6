//! The checkpoints that the models' authors published: where, under which licence, and their checksums.
//!
//! The checksums are SHA-256 of the files at the publishers' addresses, as many projects record them independently of each
//! other. (The six hexadecimal digits in the names of SAM v1's files are not of these sums.)

use std::path::Path;

use super::checkpoint::sha256;
use super::family::Family;

/// One published file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Published {
    /// Name on the command line.
    pub name: &'static str,
    /// Name of the family; MedSAM2 is a fine-tuned SAM 2.1.
    #[serde(serialize_with = "family_name")]
    pub family: Family,
    /// File name, as published.
    pub file: &'static str,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: &'static str,
    /// Licence of the weights, an SPDX name where there is one.
    pub licence: &'static str,
    /// The publisher's address of the file.
    pub address: &'static str,
}

fn family_name<S: serde::Serializer>(family: &Family, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(family.name())
}

const APACHE: &str = "Apache-2.0";

const fn sam2(
    family: Family,
    name: &'static str,
    file: &'static str,
    bytes: u64,
    sha256: &'static str,
    address: &'static str,
) -> Published {
    Published { name, family, file, bytes, sha256, licence: APACHE, address }
}

impl Published {
    /// Every published checkpoint of the known families.
    pub const ALL: [Self; 15] = [
        Self {
            name: "lite-medsam",
            family: Family::LiteMedSam,
            file: "lite_medsam.pth",
            bytes: 39_370_479,
            sha256: "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
            licence: APACHE,
            address: "https://drive.usercontent.google.com/download?id=18Zed-TUTsmr2zc5CHUWd5Tu13nb6vq6z&export=download&confirm=t",
        },
        Self {
            name: "mobile-sam",
            family: Family::MobileSam,
            file: "mobile_sam.pt",
            bytes: 40_728_226,
            sha256: "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            licence: APACHE,
            address: "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        },
        Self {
            name: "sam-vit-b",
            family: Family::SamVitB,
            file: "sam_vit_b_01ec64.pth",
            bytes: 375_042_383,
            sha256: "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            licence: APACHE,
            address: "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
        },
        Self {
            name: "sam-vit-l",
            family: Family::SamVitL,
            file: "sam_vit_l_0b3195.pth",
            bytes: 1_249_524_607,
            sha256: "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            licence: APACHE,
            address: "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth",
        },
        Self {
            name: "sam-vit-h",
            family: Family::SamVitH,
            file: "sam_vit_h_4b8939.pth",
            bytes: 2_564_550_879,
            sha256: "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            licence: APACHE,
            address: "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
        },
        Self {
            name: "medsam",
            family: Family::MedSam,
            file: "medsam_vit_b.pth",
            bytes: 375_049_145,
            sha256: "34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
            licence: "see the publisher's page: zenodo.org/records/10689643",
            address: "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        },
        sam2(
            Family::Sam2HieraTiny,
            "sam2-hiera-tiny",
            "sam2_hiera_tiny.pt",
            155_906_050,
            "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
            "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_tiny.pt",
        ),
        sam2(
            Family::Sam2HieraSmall,
            "sam2-hiera-small",
            "sam2_hiera_small.pt",
            184_309_650,
            "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
            "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_small.pt",
        ),
        sam2(
            Family::Sam2HieraBasePlus,
            "sam2-hiera-base-plus",
            "sam2_hiera_base_plus.pt",
            323_493_298,
            "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
            "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_base_plus.pt",
        ),
        sam2(
            Family::Sam2HieraLarge,
            "sam2-hiera-large",
            "sam2_hiera_large.pt",
            897_952_466,
            "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
            "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_large.pt",
        ),
        sam2(
            Family::Sam21HieraTiny,
            "sam2.1-hiera-tiny",
            "sam2.1_hiera_tiny.pt",
            156_008_466,
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_tiny.pt",
        ),
        sam2(
            Family::Sam21HieraSmall,
            "sam2.1-hiera-small",
            "sam2.1_hiera_small.pt",
            184_416_285,
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_small.pt",
        ),
        sam2(
            Family::Sam21HieraBasePlus,
            "sam2.1-hiera-base-plus",
            "sam2.1_hiera_base_plus.pt",
            323_606_802,
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_base_plus.pt",
        ),
        sam2(
            Family::Sam21HieraLarge,
            "sam2.1-hiera-large",
            "sam2.1_hiera_large.pt",
            898_083_611,
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
            "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_large.pt",
        ),
        Self {
            name: "medsam2",
            family: Family::Sam21HieraTiny,
            file: "MedSAM2_latest.pt",
            bytes: 156_040_129,
            sha256: "c92743b99f00d078bf32a3afcc38aaa9faf1c1692dffe3eaa7a90938c1991060",
            licence: "see the publisher's page: huggingface.co/wanglab/MedSAM2",
            address: "https://huggingface.co/wanglab/MedSAM2/resolve/main/MedSAM2_latest.pt",
        },
    ];

    /// How its publisher handles pictures, by the name that metadata would give it, and the side of the network's input in pixels;
    /// `None` where both are as for the family's other weights.
    ///
    /// MedSAM2 is a fine-tuned SAM 2.1 at 512 pixels, fed by SAM 2's loader of video frames (its `medsam2_infer_3D_CT.py`).
    pub fn handling(&self) -> Option<(&'static str, usize)> {
        (self.name == "medsam2").then_some(("sam2-video", 512))
    }

    /// The published file that the file at `path` is, by size and then by checksum.
    pub fn of_file(path: &Path) -> Option<&'static Self> {
        let bytes = path.metadata().ok()?.len();
        // Most files have no published file's size, and need not be read.
        Self::ALL
            .iter()
            .any(|p| p.bytes == bytes)
            .then(|| sha256(path).ok())
            .flatten()
            .and_then(|sum| Self::of_sha256(&sum))
    }

    /// The file with this checksum (lower-case hex).
    pub fn of_sha256(sha256: &str) -> Option<&'static Self> {
        const ALL: &[Published] = &Published::ALL;
        ALL.iter().find(|p| p.sha256 == sha256)
    }

    /// The file that goes by `name`: its name here, or its file name.
    pub fn named(name: &str) -> Option<&'static Self> {
        const ALL: &[Published] = &Published::ALL;
        ALL.iter().find(|p| p.name == name || p.file == name)
    }
}

/// Name of the published file with this checksum (lower-case hex).
pub fn published(sha256: &str) -> Option<&'static str> {
    Published::of_sha256(sha256).map(|p| p.file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_files_and_sums_are_unique_and_well_formed() {
        for p in Published::ALL {
            assert_eq!(p.sha256.len(), 64, "{}", p.file);
            assert!(p.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{}", p.file);
            assert!(p.address.starts_with("https://"), "{}", p.file);
            assert_eq!(Published::named(p.name), Published::named(p.file));
            assert_eq!(published(p.sha256), Some(p.file));
        }
        let unique = |of: fn(&Published) -> &'static str| {
            Published::ALL.iter().map(of).collect::<BTreeSet<_>>().len() == Published::ALL.len()
        };
        assert!(unique(|p| p.name) && unique(|p| p.file) && unique(|p| p.sha256) && unique(|p| p.address));
    }

    #[test]
    fn every_family_has_a_published_file_of_its_name() {
        for family in Family::ALL {
            assert_eq!(Published::named(family.name()).map(|p| p.family), Some(family), "{family}");
        }
    }
}

//! The files that a segmenter is built from, and what they say of themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::learned::{self, Learned};
use super::load::LoadError;
use super::manners::Manners;
use super::{MAX_INPUT_SIZE, ModelSpec};
use crate::nn::{self, Sam, in_mask_decoder};
use crate::weights::{
    Checkpoint, Family, FamilyError, Layered, PREPROCESS, Published, SOURCE_SHA256, WeightsError, sha256,
};

/// Metadata with the family that a predictor was trained for.
const FAMILY: &str = "family";

/// Metadata with what of the mask decoder was trained with a predictor.
pub const DECODER: &str = "decoder";

/// Metadata with the side of the network's input, in pixels, that a predictor was trained at.
pub const INPUT_SIZE: &str = "input_size";

/// Metadata with the SHA-256 of the weights that a predictor was trained with.
pub const BASE_SHA256: &str = "base_sha256";

/// The network's file, and the one laid over it.
pub(super) struct Files {
    base: Checkpoint,
    over: Option<Checkpoint>,
}

impl Files {
    pub(super) fn open(spec: &ModelSpec) -> Result<Self, LoadError> {
        let base = Checkpoint::open(&spec.weights)?;
        Ok(Self { base, over: spec.ppn.as_deref().map(Checkpoint::open).transpose()? })
    }

    pub(super) fn source(&self) -> Layered<'_> {
        Layered { top: self.over.as_ref().unwrap_or(&self.base), base: &self.base }
    }

    /// The family of the network, which the predictor must have been trained for.
    pub(super) fn family(&self, spec: &ModelSpec) -> Result<Family, LoadError> {
        let unfit = |path: &PathBuf| {
            let path = path.clone();
            move |reason| LoadError::Family { reason, path }
        };
        let family = Family::expect(spec.family, &self.base).map_err(unfit(&spec.weights))?;
        let trained_for = self.over.as_ref().and_then(|over| over.metadata().get(FAMILY));
        if let (Some(name), Some(path)) = (trained_for, &spec.ppn) {
            let found = name.parse::<Family>().map_err(unfit(path))?;
            if found != family {
                return Err(unfit(path)(FamilyError::Mismatch { asked: family, found }));
            }
        }
        Ok(family)
    }

    /// The published file that the network's file with the checksum `weights_sha256` is, or was converted from.
    pub(super) fn published(&self, weights_sha256: &str) -> Option<&'static Published> {
        Published::of_sha256(weights_sha256).or_else(|| Published::of_sha256(self.converted_from()?))
    }

    /// SHA-256 of the file that the network's was converted from.
    fn converted_from(&self) -> Option<&str> {
        self.base.metadata().get(SOURCE_SHA256).map(String::as_str)
    }

    /// Tensors that do not fit, with the file that they lie in.
    pub(super) fn unfit(&self, spec: &ModelSpec, reason: WeightsError) -> LoadError {
        let over = match (&self.over, reason.key()) {
            (Some(over), Some(key)) => {
                over.info(key).is_some() || key.starts_with(learned::PREFIX) && self.base.info(key).is_none()
            }
            _ => false,
        };
        let path = spec.ppn.as_ref().filter(|_| over).unwrap_or(&spec.weights).clone();
        LoadError::Weights { reason, path }
    }

    /// SHA-256 of the network's file.
    pub(super) fn sha256(&self, spec: &ModelSpec) -> Result<String, LoadError> {
        sum(&spec.weights)
    }

    /// A predictor speaks to the features of the weights that it was trained with; with others of the same family it is worse
    /// without an error.
    pub(super) fn warn_of_another_base(&self, weights_sha256: &str) {
        let trained_with = self.over.as_ref().and_then(|over| over.metadata().get(BASE_SHA256));
        if let Some(sum) = trained_with.filter(|sum| !self.is_base(sum, weights_sha256)) {
            tracing::warn!("the predictor was trained with other weights, SHA-256 {sum}: expect worse masks");
        }
    }

    /// Side of the input in pixels that the predictor was trained at, if its file says so.
    ///
    /// # Errors
    /// Something else than a side that `family` can take, even where another one is asked for: such a file is damaged.
    pub(super) fn taught_side(&self, spec: &ModelSpec, family: Family) -> Result<Option<i64>, LoadError> {
        // Without a predictor it is somebody else's word.
        let learned = self.over.is_some() || self.base.tensors().any(|(name, _)| in_predictor(name));
        let Some(text) = self.metadata(INPUT_SIZE).filter(|_| learned) else { return Ok(None) };
        let wrong = |why: String| {
            let what = format!("{INPUT_SIZE} = {text:?} in the metadata; {why}");
            LoadError::Predictor { what, path: spec.trained_file().clone() }
        };
        let range = 1..=MAX_INPUT_SIZE as i64;
        let side = text.parse().ok().filter(|side| range.contains(side));
        let side = side.ok_or_else(|| wrong(format!("expected 1 to {MAX_INPUT_SIZE} pixels")))?;
        Sam::takes(family, side).map_err(wrong)?;
        Ok(Some(side))
    }

    /// Whether the network's file, whose checksum is `weights_sha256`, has the weights of the file with the checksum `sum`:
    /// converted ones are the same.
    fn is_base(&self, sum: &str, weights_sha256: &str) -> bool {
        sum == weights_sha256 || Some(sum) == self.converted_from()
    }

    /// SHA-256 of the file over the network's.
    pub(super) fn ppn_sha256(&self, spec: &ModelSpec) -> Result<Option<String>, LoadError> {
        spec.ppn.as_deref().map(sum).transpose()
    }

    /// What of the decoder was trained with the predictor, if its file says so.
    pub(super) fn trained_decoder(&self) -> Option<String> {
        self.over.as_ref()?.metadata().get(DECODER).cloned()
    }

    /// Whether the file over the network's changes what the encoder says of a picture.
    pub(super) fn change_features(&self) -> bool {
        self.over.as_ref().is_some_and(|over| over.tensors().any(|(name, _)| changes_features(name)))
    }

    /// What the metadata say of the handling of pictures and, in the file over the network's, of the decoder and of each data set's classes.
    pub(super) fn says(&self) -> BTreeMap<String, String> {
        let mut says = BTreeMap::new();
        for file in [Some(&self.base), self.over.as_ref()].into_iter().flatten() {
            says.extend(file.metadata().get(PREPROCESS).map(|found| (PREPROCESS.to_owned(), found.clone())));
        }
        if let Some(over) = &self.over {
            let classes = over.metadata().iter().filter(|(key, _)| key.starts_with("classes."));
            says.extend(classes.map(|(key, names)| (key.clone(), names.clone())));
            says.extend(over.metadata().get(DECODER).map(|found| (DECODER.to_owned(), found.clone())));
            // A file of one data set need not name it.
            if let (Some(names), [(dataset, ..)]) =
                (over.metadata().get("classes"), &nn::learnable_prompts(over, learned::PREFIX)[..])
            {
                says.insert(format!("classes.{dataset}"), names.clone());
            }
        }
        says
    }

    /// The tensors of the file over the network's that `which` chooses by their names.
    pub(super) fn carried(
        &self,
        which: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Tensor>, WeightsError> {
        let Some(over) = &self.over else { return Ok(BTreeMap::new()) };
        let chosen = over.tensors().filter(|(name, _)| which(name));
        chosen
            .filter_map(|(name, _)| Some(over.tensor(name)?.map(|tensor| (name.to_owned(), tensor))))
            .collect::<Result<_, _>>()
            .map_err(WeightsError::from)
    }

    pub(super) fn learned(&self, spec: &ModelSpec) -> Result<Option<Learned>, LoadError> {
        Learned::find(spec, &self.source(), |key| self.metadata(key))
    }

    fn metadata(&self, key: &str) -> Option<String> {
        self.over.as_ref().unwrap_or(&self.base).metadata().get(key).cloned()
    }

    /// How pictures, prompts and masks are handled: as the family's weights were published, or this very file was, unless the
    /// file that was trained last says otherwise.
    pub(super) fn manners(
        &self,
        spec: &ModelSpec,
        family: Family,
        published: Option<&Published>,
    ) -> Result<Manners, LoadError> {
        let own = Manners::of(family);
        let says = |file: &Checkpoint| file.metadata().get(PREPROCESS).cloned();
        let (found, path) = match (self.over.as_ref().and_then(says), says(&self.base)) {
            (Some(found), _) => (found, spec.trained_file()),
            (None, Some(found)) => (found, &spec.weights),
            (None, None) => match published.and_then(Published::handling) {
                Some((name, _)) => (name.to_owned(), &spec.weights),
                None => return Ok(own),
            },
        };
        own.trained_with(&found).ok_or_else(|| LoadError::Handling { found, path: path.clone() })
    }
}

/// Whether the tensor `name` is a prompt predictor's.
fn in_predictor(name: &str) -> bool {
    name.strip_prefix(learned::PREFIX).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether another value of the tensor `name` changes the features of a picture. The predictor and the decoder only read them, but
/// for SAM 2's two convolutions of the finer levels, which lie in its decoder.
fn changes_features(name: &str) -> bool {
    if in_predictor(name) {
        return false;
    }
    in_mask_decoder(name).is_none_or(|part| part.starts_with("conv_s"))
}

fn sum(path: &Path) -> Result<String, LoadError> {
    sha256(path).map_err(|reason| LoadError::Io { reason, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_of_everything_before_the_decoder() {
        for before in [
            "image_encoder.neck.0.weight",
            "image_encoder.adapters.0.up.weight",
            "sam_mask_decoder.conv_s1.bias",
            "no_mem_embed",
            "ppnx.weight",
        ] {
            assert!(changes_features(before), "{before}");
        }
        for behind in [
            "ppn.pyramid.out.weight",
            "mask_decoder.transformer.layers.0.self_attn.q_proj.w_a.weight",
            "sam_mask_decoder.obj_score_token.weight",
        ] {
            assert!(!changes_features(behind), "{behind}");
        }
    }

    #[test]
    fn a_published_file_is_handled_as_its_publisher_does() {
        for published in Published::ALL.iter().filter(|p| p.handling().is_some()) {
            let (name, side) = published.handling().unwrap();
            assert!(Manners::of(published.family).trained_with(name).is_some(), "{name}");
            Sam::takes(published.family, side as i64).unwrap();
        }
        let medsam2 = Published::named("medsam2").unwrap();
        assert_eq!(medsam2.handling(), Some(("sam2-video", 512)));
    }

    /// A checkpoint of empty tensors with these names, and with metadata.
    fn checkpoint(dir: &Path, file: &str, names: &[&str], says: &[(&str, &str)]) -> PathBuf {
        let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![0], &[]).unwrap();
        let metadata = says.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let path = dir.join(file);
        safetensors::serialize_to_file(names.iter().map(|name| (*name, view())), Some(metadata), &path)
            .unwrap();
        path
    }

    #[test]
    fn the_file_that_a_wrong_tensor_lies_in_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let weights = checkpoint(dir.path(), "net.safetensors", &["image_encoder.a", "ppn.old"], &[]);
        let ppn = checkpoint(dir.path(), "ppn.safetensors", &["ppn.a", "mask_decoder.b"], &[]);
        let spec = ModelSpec { ppn: Some(ppn.clone()), ..ModelSpec::new(weights.clone()) };
        let files = Files::open(&spec).unwrap();
        let blamed =
            |name: &str| match files.unfit(&spec, WeightsError::Unused { names: vec![name.to_owned()] }) {
                LoadError::Weights { path, .. } => path,
                other => panic!("{other}"),
            };
        for (name, path) in [
            ("image_encoder.a", &weights),
            ("image_encoder.missing", &weights),
            ("ppn.old", &weights),
            ("ppn.a", &ppn),
            ("ppn.missing", &ppn),
            ("mask_decoder.b", &ppn),
        ] {
            assert_eq!(blamed(name), *path, "{name}");
        }
    }

    #[test]
    fn a_predictor_is_used_at_the_side_that_it_was_trained_at() {
        let dir = tempfile::tempdir().unwrap();
        let weights = checkpoint(dir.path(), "net.safetensors", &["image_encoder.a"], &[]);
        let side = |says: &[(&str, &str)], asked| {
            let ppn = Some(checkpoint(dir.path(), "ppn.safetensors", &["ppn.a"], says));
            let spec = ModelSpec { ppn, input_size: asked, ..ModelSpec::new(weights.clone()) };
            let taught = Files::open(&spec).unwrap().taught_side(&spec, Family::Sam2HieraTiny)?;
            crate::segment::load::side(&spec, taught, Family::Sam2HieraTiny, None)
        };
        assert_eq!(side(&[], None).unwrap(), None);
        assert_eq!(side(&[(INPUT_SIZE, "512")], None).unwrap(), Some(512));
        assert_eq!(side(&[(INPUT_SIZE, "512")], Some(256)).unwrap(), Some(256), "a person is believed");
        for (says, expected) in [
            ("large", "expected 1 to 4096 pixels"),
            ("0", "expected 1 to 4096 pixels"),
            ("8192", "expected 1 to 4096 pixels"),
            ("500", "takes a multiple of 32 pixels a side"),
        ] {
            let wrong = side(&[(INPUT_SIZE, says)], None).unwrap_err().to_string();
            let named = format!("input_size = {says:?} in the metadata; ");
            for part in [named.as_str(), expected, "ppn.safetensors"] {
                assert!(wrong.contains(part), "{part}: {wrong}");
            }
        }
        let asked = side(&[], Some(500)).unwrap_err().to_string();
        assert!(asked.contains("the input size: ") && !asked.contains("ppn.safetensors"), "{asked}");
    }

    #[test]
    fn the_side_stands_in_a_file_that_has_both_too() {
        let dir = tempfile::tempdir().unwrap();
        let side = |names: &[&str], says| {
            let spec =
                ModelSpec::new(checkpoint(dir.path(), "net.safetensors", names, &[(INPUT_SIZE, says)]));
            Files::open(&spec).unwrap().taught_side(&spec, Family::LiteMedSam).unwrap()
        };
        assert_eq!(side(&["image_encoder.a", "ppn.learnable_prompts.arm"], "128"), Some(128));
        assert_eq!(side(&["image_encoder.a"], "large"), None, "there is no predictor");
    }

    #[test]
    fn converted_weights_are_known_by_what_they_were_made_from() {
        let dir = tempfile::tempdir().unwrap();
        let medsam2 = Published::named("medsam2").unwrap();
        let says = [(SOURCE_SHA256, medsam2.sha256)];
        let weights = checkpoint(dir.path(), "net.safetensors", &["a"], &says);
        let spec = ModelSpec::new(weights);
        let files = Files::open(&spec).unwrap();
        let published = files.published("of the converted file");
        assert_eq!(published.map(|p| p.name), Some("medsam2"));
        let manners = files.manners(&spec, medsam2.family, published).unwrap();
        assert_eq!(Some(manners), Manners::of(medsam2.family).trained_with("sam2-video"));
        assert!(files.is_base(medsam2.sha256, "of the converted file"));
        assert!(files.is_base("of the converted file", "of the converted file"));
        assert!(!files.is_base("another", "of the converted file"));
    }
}

//! The configuration of a training run.

use std::path::PathBuf;

use super::read::{Log, MANY, Section, impossible, tables, text};
use super::stages::read_stages;
use super::tree::{Item, Node};
use super::{ConfigError, LoadArgs, Origin, layers, print};
use crate::dataset::{Augment, ClassLabel, DatasetSpec, MAX_SPECKLE, MAX_WARP, MaskLayout};
use crate::nn::PpnForm;
use crate::segment::{DeviceChoice, EncoderLora, MAX_INPUT_SIZE, MAX_THREADS, ModelSpec, Precision};
use crate::train::{DataSpec, DecoderTuning, LossConfig, MaskLoss, PromptSampling, Split, TrainSpec};
use crate::weights::Family;

/// Largest weight of a term of the loss.
const MAX_WEIGHT: f64 = 1e4;

/// A whole configuration of a training run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// What is to be done.
    pub spec: TrainSpec,
    /// Where the network runs.
    pub device: DeviceChoice,
    /// The preset of the loss, if it is one that others have published.
    published_loss: Option<&'static str>,
    log: Log,
}

impl TrainConfig {
    /// Reads and merges all layers: file < environment < `--set` < flags.
    ///
    /// # Errors
    /// A file that cannot be read, bad TOML, an unknown key, a value of the wrong type or range, settings that cannot go together.
    pub fn load(args: LoadArgs<'_, impl Iterator<Item = (String, String)>>) -> Result<Self, ConfigError> {
        let (tree, _, _) = layers::merge(args)?;
        let mut log = Log::new();
        let mut top = Section::new("", Some(tree), &mut log)?;
        let [model, datasets, predictor, encoder, decoder, loss, prompts, augment, stages, run] = [
            "model",
            "datasets",
            "predictor",
            "encoder",
            "decoder",
            "loss",
            "prompts",
            "augment",
            "stages",
            "run",
        ]
        .map(|key| top.take(key));
        top.finish()?;
        let (model, device) = read_model(model, &mut log)?;
        let datasets = read_datasets(datasets, &mut log)?;
        let (form, tokens) = read_predictor(predictor, &mut log)?;
        let encoder = read_encoder(encoder, &mut log)?;
        let (decoder, object_score) = read_decoder(decoder, &mut log)?;
        let (loss, published_loss) = read_loss(loss, &mut log)?;
        let prompts = read_prompts(prompts, &mut log)?;
        let (views, fresh, augment) = read_augment(augment, encoder.is_some(), &mut log)?;
        let (stages, usual) = read_stages(stages, form, encoder.is_some(), &mut log)?;
        let mut s = Section::new("run", run, &mut log)?;
        let out = s.path_opt("out")?.unwrap_or_else(|| PathBuf::from("training"));
        let spec = TrainSpec {
            model,
            datasets,
            form,
            tokens,
            decoder,
            encoder,
            object_score,
            loss,
            prompts,
            views,
            augment,
            fresh,
            stages,
            usual,
            batch: s.int("batch", 4, 1, 1024)? as usize,
            weight_decay: s.double("weight_decay", 0.1, 0.0, 1.0)?,
            clip: s.double("clip", 1.0, 0.0, 1e6)?,
            average: s.double("average", 0.99, 0.0, 0.999_999)?,
            validate_every: u64::from(s.int("validate_every", 1, 1, MANY)?),
            patience: u64::from(s.int("patience", 0, 0, MANY)?),
            seed: u64::from(s.int("seed", 0, 0, u32::MAX)?),
            half: s.bool("half", true)?,
            cache: s.path_opt("cache")?.unwrap_or_else(|| out.join("features")),
            out,
        };
        s.finish()?;
        Ok(Self { spec, device, published_loss, log })
    }

    /// What this run leaves out of a loss that others have published, in words; `None` where it is whole, or sonomask's own.
    pub fn left_out(&self) -> Option<String> {
        let preset = self.published_loss.filter(|_| self.spec.form == PpnForm::Pyramid)?;
        let mut said = format!(
            "loss.preset = {preset:?} without its term of the box: a pyramid's box is the one around its interim mask"
        );
        if self.spec.stages.iter().any(|stage| stage.pyramid) {
            said += ", whose term is all that a stage with trains = \"pyramid\" has";
        }
        Some(said)
    }

    /// The effective settings as TOML for the files that a run leaves: paths as they were written.
    pub fn portable(&self) -> String {
        print::portable(&self.log)
    }

    /// The effective settings, defaults included, as TOML that [`TrainConfig::load`] reads back.
    pub fn to_toml(&self) -> String {
        print::to_toml(&self.log)
    }
}

fn read_model(node: Option<Node>, log: &mut Log) -> Result<(ModelSpec, DeviceChoice), ConfigError> {
    let mut s = Section::new("model", node, log)?;
    let at = s.at().clone();
    let names = Family::ALL.map(Family::name).join(", ");
    let family =
        s.text("family", &format!("one of {names}, or \"\" for what the file is"), ("", None), |t| {
            if t.is_empty() { Some(None) } else { t.parse::<Family>().ok().map(Some) }
        })?;
    let Some(weights) = s.path_opt("weights")? else {
        return impossible("model.weights is missing: expected the checkpoint of the network", &at);
    };
    let spec = ModelSpec {
        family,
        ppn: s.path_opt("ppn")?,
        precision: s.choice("precision", Precision::Fp32, &Precision::ALL.map(|p| (p.name(), p)))?,
        input_size: Some(s.int("input_size", 0, 0, MAX_INPUT_SIZE as u32)? as usize).filter(|&n| n > 0),
        presence_threshold: s.float("presence_threshold", 0.5, 0.0, 1.0)?,
        threads: s.int("threads", 0, 0, MAX_THREADS as u32)? as usize,
        ..ModelSpec::new(weights)
    };
    let device = s.text("device", "\"auto\", \"cpu\" or \"cuda:N\"", ("auto", DeviceChoice::Auto), |t| {
        t.parse().ok()
    })?;
    s.finish()?;
    Ok((spec, device))
}

fn read_datasets(node: Option<Node>, log: &mut Log) -> Result<Vec<DataSpec>, ConfigError> {
    let mut sets: Vec<DataSpec> = Vec::new();
    for (i, node) in tables(node, "datasets")?.into_iter().enumerate() {
        let at = node.at.clone();
        let set = read_dataset(i, node, log)?;
        if sets.iter().any(|other| other.set.name == set.set.name) {
            return impossible(format!("two data sets are named {:?}", set.set.name), &at);
        }
        sets.push(set);
    }
    if sets.is_empty() {
        return impossible("there is nothing to learn from: expected [[datasets]]", &Origin::Default);
    }
    Ok(sets)
}

fn read_dataset(i: usize, node: Node, log: &mut Log) -> Result<DataSpec, ConfigError> {
    let section = format!("datasets[{i}]");
    let mut s = Section::new(&section, Some(node), log)?;
    let at = s.at().clone();
    let word = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    let name = s.text("name", "a name without a dot", ("target", "target".to_owned()), |t| {
        word(t).filter(|t| !t.contains('.'))
    })?;
    let Some(root) = s.path_opt("data")? else {
        return impossible(
            format!("{section}.data is missing: expected the folder with imgs/ and gts/"),
            &at,
        );
    };
    let classes = s.optional(
        "classes",
        "names, the first of which has label 1, the second 2 and so on; or { name = ..., label = ... }",
        read_classes,
    )?;
    let set = DatasetSpec {
        name,
        root,
        images: s.path_opt("images")?,
        masks: s.path_opt("masks")?,
        classes: classes.unwrap_or_default(),
        layout: s.choice(
            "layout",
            MaskLayout::Index,
            &[("index", MaskLayout::Index), ("per-class", MaskLayout::PerClass)],
        )?,
        bits: s.int("bits", 16, 8, 16)? as u8,
    };
    let (validation, train) = (s.path_opt("validation")?, s.path_opt("train")?);
    let folds = s.int("folds", 0, 0, MANY)? as usize;
    let fold = s.int("fold", 0, 0, MANY)? as usize;
    let patient =
        s.text("patient", "what ends the patient's part of a name", ("", None), |t| Some(word(t)))?;
    let seed = u64::from(s.int("split_seed", 0, 0, u32::MAX)?);
    let noise = s.double("noise", 0.0, 0.0, 1.0)?;
    let limit = Some(s.int("limit", 0, 0, MANY)? as usize).filter(|&n| n > 0);
    s.finish()?;
    // Whoever says one of these means it, and nothing would come of it.
    if folds == 0 && (fold != 0 || seed != 0) {
        let key = if fold != 0 { "fold" } else { "split_seed" };
        let what = "says nothing without parts: expected folds = 2 or more";
        return impossible(format!("{section}.{key} {what}"), &at);
    }
    if folds == 0 && validation.is_none() && patient.is_some() {
        let what = "patient keeps pictures together where some are held out: expected folds or validation";
        return impossible(format!("{section}.{what}"), &at);
    }
    let split = match (validation, train, folds) {
        (Some(_), _, 1..) => {
            return impossible(format!("{section}: held out is either a list (validation) or a fold"), &at);
        }
        (Some(validation), train, 0) => Split::Lists { validation, train, patient },
        (None, Some(_), _) => {
            return impossible(format!("{section}.train needs a list of what is held out: validation"), &at);
        }
        (None, None, 0) => Split::Nothing,
        (None, None, folds) if fold < folds => Split::Folds { folds, fold, patient, seed },
        (None, None, folds) => {
            return impossible(format!("{section}.fold = {fold}: expected 0 to {}", folds - 1), &at);
        }
    };
    Ok(DataSpec { set, split, noise, limit })
}

fn read_classes(node: &Node) -> Option<Vec<ClassLabel>> {
    let Item::Array(items) = &node.item else { return None };
    let class = |(i, node): (usize, &Node)| {
        if let Some(name) = text(node) {
            return Some(ClassLabel { name, label: u16::try_from(i + 1).ok()? });
        }
        let label = node.get("label")?.value().as_integer()?;
        Some(ClassLabel { name: text(node.get("name")?)?, label: u16::try_from(label).ok()? })
    };
    items.iter().enumerate().map(class).collect()
}

fn read_predictor(node: Option<Node>, log: &mut Log) -> Result<(PpnForm, i64), ConfigError> {
    let mut s = Section::new("predictor", node, log)?;
    let forms = PpnForm::ALL.map(|form| (form.name(), form));
    let found = (s.choice("form", PpnForm::Pyramid, &forms)?, i64::from(s.int("tokens", 10, 2, 256)?));
    s.finish()?;
    Ok(found)
}

/// Low rank in the last blocks, or nothing.
fn read_encoder(node: Option<Node>, log: &mut Log) -> Result<Option<EncoderLora>, ConfigError> {
    let mut s = Section::new("encoder", node, log)?;
    let rank = i64::from(s.int("rank", 32, 1, 256)?);
    let blocks = s.int("blocks", 0, 0, 64)? as usize;
    let lora = EncoderLora { rank, blocks };
    let found = s.choice("tuning", None, &[("frozen", None), ("lora", Some(lora))])?;
    s.finish()?;
    Ok(found)
}

fn read_decoder(node: Option<Node>, log: &mut Log) -> Result<(DecoderTuning, bool), ConfigError> {
    let mut s = Section::new("decoder", node, log)?;
    let rank = i64::from(s.int("rank", 8, 1, 256)?);
    let lora = DecoderTuning::Lora { rank };
    let choices = [DecoderTuning::Frozen, lora, DecoderTuning::Attention, DecoderTuning::Full];
    let tuning = s.choice("tuning", DecoderTuning::Attention, &choices.map(|t| (t.name(), t)))?;
    let object_score = s.bool("object_score", true)?;
    s.finish()?;
    Ok((tuning, object_score))
}

/// The loss, and the name of its preset if that is not sonomask's own.
fn read_loss(node: Option<Node>, log: &mut Log) -> Result<(LossConfig, Option<&'static str>), ConfigError> {
    let mut s = Section::new("loss", node, log)?;
    let presets =
        [("sonomask", LossConfig::SONOMASK), ("paper", LossConfig::PAPER), ("authors", LossConfig::CODED)];
    let d = s.choice("preset", LossConfig::SONOMASK, &presets)?;
    let published = presets.iter().skip(1).find(|(_, preset)| *preset == d).map(|(name, _)| *name);
    let weight = |s: &mut Section<'_>, key, default| s.double(key, default, 0.0, MAX_WEIGHT);
    let mask = read_mask_loss(&mut s, ["mask_focal", "mask_dice", "mask_alpha", "mask_gamma"], d.mask)?;
    let interim = ["interim_focal", "interim_dice", "interim_alpha", "interim_gamma"];
    let interim = read_mask_loss(&mut s, interim, d.interim)?;
    let found = LossConfig {
        mask,
        interim,
        l1: weight(&mut s, "box_l1", d.l1)?,
        giou: weight(&mut s, "box_giou", d.giou)?,
        presence: weight(&mut s, "presence", d.presence)?,
        presence_smoothing: s.double("presence_smoothing", d.presence_smoothing, 0.0, 1.0)?,
        ..d
    };
    s.finish()?;
    Ok((found, published))
}

fn read_mask_loss(
    s: &mut Section<'_>,
    [focal, dice, alpha, gamma]: [&'static str; 4],
    d: MaskLoss,
) -> Result<MaskLoss, ConfigError> {
    // Between 0 and 1 the slope of a power is infinite where a pixel is right for certain.
    let power = |v: f64| v == 0.0 || (1.0..=10.0).contains(&v);
    Ok(MaskLoss {
        focal: s.double(focal, d.focal, 0.0, MAX_WEIGHT)?,
        dice: s.double(dice, d.dice, 0.0, MAX_WEIGHT)?,
        alpha: s.double(alpha, d.alpha, 0.0, 1.0)?,
        gamma: s.number(gamma, "0, or a number from 1 to 10", d.gamma, power)?,
        ..d
    })
}

fn read_prompts(node: Option<Node>, log: &mut Log) -> Result<PromptSampling, ConfigError> {
    let mut s = Section::new("prompts", node, log)?;
    let at = s.at().clone();
    let mut share = |key, default| s.double(key, default, 0.0, 1.0);
    let found = PromptSampling {
        autonomous: share("autonomous", 0.6)?,
        assisted: share("assisted", 0.3)?,
        manual: share("manual", 0.1)?,
        boxes: share("boxes", 0.6)?,
        points: share("points", 0.3)?,
        masks: share("masks", 0.1)?,
        jitter: share("jitter", 0.1)?,
    };
    s.finish()?;
    if found.autonomous + found.assisted + found.manual == 0.0 {
        let what =
            "prompts.autonomous, assisted and manual are all 0: expected a share above 0 of one of them";
        return impossible(what, &at);
    }
    if found.assisted + found.manual > 0.0 && found.boxes + found.points + found.masks == 0.0 {
        let what = "prompts.boxes, points and masks are all 0: expected a share above 0 of one of them, or assisted = 0 and manual = 0";
        return impossible(what, &at);
    }
    Ok(found)
}

fn read_augment(
    node: Option<Node>,
    adapted: bool,
    log: &mut Log,
) -> Result<(usize, bool, Augment), ConfigError> {
    let mut s = Section::new("augment", node, log)?;
    let at = s.at().clone();
    let presets = [("upright", Augment::UPRIGHT), ("paper", Augment::PAPER)];
    let d = s.choice("preset", Augment::UPRIGHT, &presets)?;
    let views = s.int("views", 4, 0, 10_000)? as usize;
    let found = Augment {
        probability: s.double("probability", d.probability, 0.0, 1.0)?,
        flip_horizontal: s.bool("flip_horizontal", d.flip_horizontal)?,
        flip_vertical: s.bool("flip_vertical", d.flip_vertical)?,
        translate: s.double("translate", d.translate, 0.0, 1.0)?,
        rotate: s.double("rotate", d.rotate, 0.0, 180.0)?,
        crop: s.double("crop", d.crop, 0.01, 1.0)?,
        gamma: s.double("gamma", d.gamma, 0.0, 4.0)?,
        widen: s.double("widen", d.widen, 0.0, 3.0)?,
        warp: s.double("warp", d.warp, 0.0, MAX_WARP)?,
        gain: s.double("gain", d.gain, 0.0, 4.0)?,
        speckle: s.double("speckle", d.speckle, 0.0, MAX_SPECKLE)?,
    };
    let fresh = s.bool("fresh", false)?;
    s.finish()?;
    // A frozen encoder, which is not run at all, would have to be run in every step.
    if fresh && !adapted {
        return impossible(
            "augment.fresh draws views while the encoder is adapted: expected encoder.tuning = \"lora\"",
            &at,
        );
    }
    if fresh && views == 0 {
        return impossible("augment.fresh draws views where views = 0 asks for none", &at);
    }
    Ok((views, fresh, found))
}

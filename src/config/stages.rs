//! The stages of a training run.

use super::read::{Log, MANY, Section, impossible, tables};
use super::tree::Node;
use super::{ConfigError, Origin};
use crate::nn::PpnForm;
use crate::train::StageSpec;

/// The stages, and whether they are the usual ones because none are given.
pub(super) fn read_stages(
    node: Option<Node>,
    form: PpnForm,
    adapted: bool,
    log: &mut Log,
) -> Result<(Vec<StageSpec>, bool), ConfigError> {
    let at = node.as_ref().map_or(Origin::Default, |node| node.at.clone());
    let mut given = tables(node, "stages")?;
    let usual = given.is_empty();
    if usual {
        given = usual_stages(form, adapted);
    }
    let stages = given.into_iter().enumerate().map(|(i, node)| read_stage(i, Some(node), adapted, log));
    let stages: Vec<StageSpec> = stages.collect::<Result<_, _>>()?;
    if adapted && stages.iter().all(|stage| stage.encoder == 0.0) {
        let what = "encoder.tuning = \"lora\", and no stage tunes the encoder: expected one with encoder = 1e-3 or so, or no [[stages]]";
        return impossible(what, &at);
    }
    Ok((stages, usual))
}

/// A pyramid first learns alone, which costs a tenth; other forms have one stage. An encoder is `adapted` together with a pyramid that has
/// learned something, and then left as it is.
fn usual_stages(form: PpnForm, adapted: bool) -> Vec<Node> {
    let stages = match form {
        PpnForm::Pyramid if adapted => toml::toml! {
            stages = [
                { name = "pyramid", trains = "pyramid", epochs = 20, predictor = 1e-3, decoder = 0.0 },
                { name = "encoder", trains = "pyramid", epochs = 10, predictor = 5e-4, decoder = 0.0, encoder = 1e-3 },
                { name = "all", trains = "all", epochs = 4, predictor = 3e-4, decoder = 1e-4 },
            ]
        },
        PpnForm::SingleScale | PpnForm::HighRes if adapted => toml::toml! {
            stages = [{ name = "all", encoder = 1e-4 }]
        },
        PpnForm::Pyramid => toml::toml! {
            stages = [
                { name = "pyramid", trains = "pyramid", epochs = 30, predictor = 1e-3, decoder = 0.0 },
                { name = "all", trains = "all", epochs = 4, predictor = 3e-4, decoder = 1e-4 },
            ]
        },
        PpnForm::SingleScale | PpnForm::HighRes => toml::toml! {
            stages = [{ name = "all" }]
        },
    };
    let stages = stages.get("stages").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    stages.iter().map(|stage| Node::of(stage, &Origin::Default)).collect()
}

fn read_stage(i: usize, node: Option<Node>, adapted: bool, log: &mut Log) -> Result<StageSpec, ConfigError> {
    let mut s = Section::new(&format!("stages[{i}]"), node, log)?;
    let word = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    let (at, unnamed) = (s.at().clone(), format!("stage {}", i + 1));
    let found = StageSpec {
        name: s.text("name", "a name", (&unnamed, unnamed.clone()), word)?,
        pyramid: s.choice("trains", false, &[("all", false), ("pyramid", true)])?,
        epochs: u64::from(s.int("epochs", 30, 1, MANY)?),
        predictor: s.double("predictor", 1e-4, 0.0, 1.0)?,
        decoder: s.double("decoder", 1e-5, 0.0, 1.0)?,
        encoder: s.double("encoder", 0.0, 0.0, 1.0)?,
        warmup: s.double("warmup", 0.05, 0.0, 1.0)?,
        floor: s.double("floor", 0.01, 0.0, 1.0)?,
    };
    s.finish()?;
    if found.encoder > 0.0 && !adapted {
        return impossible(
            format!("the stage {:?} tunes the encoder: expected encoder.tuning = \"lora\"", found.name),
            &at,
        );
    }
    if found.predictor == 0.0 && found.encoder == 0.0 && (found.decoder == 0.0 || found.pyramid) {
        return impossible(
            format!("the stage {:?} has learning rates of 0: it would learn nothing", found.name),
            &at,
        );
    }
    Ok(found)
}

//! Configurations of training and of tables: what is left out of a loss, what may be asked, and the example in the repository.

use std::path::Path;

use sonomask::config::{LoadArgs, TablesConfig, TrainConfig};
use sonomask::eval::{Prompting, Tuning};

use super::write;

fn training(file: &Path, set: &[&str]) -> TrainConfig {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let args = LoadArgs { preset: None, file: Some(file), env: std::iter::empty(), set: &set, flags: &[] };
    TrainConfig::load(args).unwrap()
}

#[test]
fn what_a_pyramid_leaves_out_of_a_published_loss_is_said() {
    let (_dir, path) = write("[model]\nweights = \"w\"\n[[datasets]]\ndata = \"d\"\nclasses = [\"a\"]\n");
    let said = |set: &[&str]| training(&path, set).left_out();
    assert_eq!(said(&[]), None);
    assert_eq!(said(&["loss.preset=paper", "predictor.form=single-scale"]), None);
    for preset in ["loss.preset=paper", "loss.preset=authors"] {
        let text = said(&[preset]).unwrap();
        let name = preset.trim_start_matches("loss.preset=");
        assert!(text.contains(name) && text.contains("without its term of the box"), "{text}");
        assert!(text.contains("all that a stage with trains = \"pyramid\" has"), "{text}");
        // A weight of one's own makes it no other loss, and without such a stage there is nothing to say of it.
        let text = said(&[preset, "loss.mask_dice=1", "stages=[{ name = \"all\" }]"]).unwrap();
        assert!(text.contains(name) && !text.contains("stage"), "{text}");
    }
}

#[test]
fn tables_ask_other_prompts_by_their_names() {
    let asking = |others: &str| {
        let (_dir, path) = write(&format!(
            "others = {others}\n[[datasets]]\nname = \"P\"\ndata = \"data\"\nclasses = [{{ name = \"nerve\", label = 1 }}]\n\
            [[models]]\nname = \"M\"\nweights = \"w.pth\"\n"
        ));
        TablesConfig::read(&path).map(|config| config.others).map_err(|e| e.to_string())
    };
    let all = [Prompting::Box, Prompting::BoxRegions, Prompting::Points, Prompting::AutoPoints];
    assert_eq!(asking("[\"box\", \"box-regions\", \"points\", \"auto+points\"]").unwrap(), all);
    assert_eq!(asking("[]").unwrap(), []);
    let expected = "expected a list of some of \"box\", \"box-regions\", \"points\", \"auto+points\" (";
    for wrong in ["[\"auto\"]", "[\"box\", \"auto+box\"]", "[\"clicks\"]", "[1]", "\"box\""] {
        let told = asking(wrong).unwrap_err();
        assert!(told.contains(expected) && told.contains("c.toml:1)"), "{wrong}: {told}");
    }
}

#[test]
fn the_example_of_tables_compares_predictors_of_every_decoder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/training");
    let file = folder.join("tables.toml");
    let config = TablesConfig::read(&file).unwrap();
    assert_eq!(config.others, [Prompting::Box, Prompting::Points, Prompting::AutoPoints]);
    let ppn = |at: usize| config.models[at].spec("usgra").unwrap().ppn;
    assert_eq!((config.models.len(), ppn(0)), (5, None));
    let text = std::fs::read_to_string(folder.join("tables.sh")).unwrap();
    let words = ["frozen", "lora", "full", "attention"];
    let tunings = [Tuning::Frozen, Tuning::Lora, Tuning::Full, Tuning::Attention];
    for (at, (word, tuning)) in (1..).zip(words.into_iter().zip(tunings)) {
        assert_eq!(config.models[at].decoder, tuning);
        let last = format!("training/tables/{word}/last.safetensors");
        assert!(ppn(at).is_some_and(|ppn| ppn.ends_with(&last)), "{word}");
        let set = format!("decoder.tuning={word}");
        assert_eq!(training(&folder.join("frozen.toml"), &[set.as_str()]).spec.decoder.name(), word);
    }
    // The script beside it trains them, with settings that are understood.
    let commands = [
        "for tuning in frozen lora attention full; do",
        "--set decoder.tuning=$tuning",
        "out=training/tables\n",
    ];
    assert!(commands.iter().all(|command| text.contains(command)), "{text}");
    let stages: Vec<&str> = text.split('\'').filter(|part| part.starts_with("stages=[")).collect();
    assert_eq!(stages.len(), 2);
    for (stages, pyramid) in stages.into_iter().zip([true, false]) {
        let spec = training(&folder.join("frozen.toml"), &[stages]).spec;
        assert!(spec.stages.len() == 1 && spec.stages[0].pyramid == pyramid, "{stages}");
    }
}

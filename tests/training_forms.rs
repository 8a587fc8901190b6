//! Every way of teaching once, from configuration to a predictor that is used: families, forms of the predictor, what of the decoder
//! learns, losses, precisions, layouts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod training_support;

use std::path::Path;

use sonomask::train::Ending;
use sonomask::weights::Checkpoint;
use training_support::{
    SIDE, configure, ended, folder, lines, pictures, read_into, rewrite, run, sonomask, tensors, train,
};

/// What differs from [`configure`].
struct Way {
    /// `None`: LiteMedSAM as it was published.
    family: Option<&'static str>,
    form: &'static str,
    decoder: &'static str,
    loss: &'static str,
    /// More keys of `[model]`.
    model: &'static str,
    /// Pictures that are learned from.
    limit: usize,
}

/// One epoch of everything. The predictor it leaves.
fn taught(root: &Path, way: &Way, more: &str) -> std::path::PathBuf {
    let data = pictures(root);
    let config = configure(root, &data);
    let own = format!("{}/weights/lite_medsam.pth", env!("CARGO_MANIFEST_DIR"));
    let weights = way.family.map_or(own.clone(), |family| {
        let file = root.join("made.safetensors");
        ended(&sonomask().args(["weights", "generate", family]).arg(&file).output().unwrap(), 0);
        file.to_string_lossy().into_owned()
    });
    let Way { form, decoder, loss, model, limit, .. } = way;
    rewrite(&config, |text| {
        let (before, stages) = text.split_once("[[stages]]").unwrap();
        let run = &stages[stages.find("[run]").unwrap()..];
        let before = before
            .replace(&own, &weights)
            .replace(SIDE, model)
            .replace("folds = 5\nfold = 1\n", &format!("limit = {limit}\n"))
            .replace("tuning = \"lora\"", &format!("tuning = \"{decoder}\""))
            .replace("views = 1", "views = 0");
        // With every kind of a person's prompts.
        let own = format!(
            "[predictor]\nform = \"{form}\"\n[loss]\npreset = \"{loss}\"\n[prompts]\nassisted = 0.8\nmanual = 0.5\n"
        );
        let stage = "[[stages]]\nname = \"all\"\nepochs = 1\npredictor = 1e-3\ndecoder = 1e-3\n";
        format!("{before}{more}{own}{stage}{run}")
    });
    let out = root.join("out");
    ended(&train(&config, &out, &[]).output().unwrap(), 0);
    let losses: Vec<f64> = lines(&out).iter().map(|line| line["losses"]["total"].as_f64().unwrap()).collect();
    assert!(losses.len() == 1 && losses[0].is_finite() && losses[0] > 0.0, "{losses:?}");
    let ppn = out.join("last.safetensors");
    let names: Vec<String> = tensors(&ppn).into_keys().collect();
    let has =
        |part: &str| names.iter().any(|name| name.contains("decoder.transformer.") && name.contains(part));
    assert_eq!((has("attn"), has("mlp")), (*decoder != "frozen", *decoder == "full"), "{names:?}");
    let mut segment = sonomask();
    segment.args(["segment", "--presence-threshold", "0", "--weights", &weights, "--ppn"]).arg(&ppn);
    segment.arg("--out").arg(root.join("stills")).arg(data.join("imgs/p0.png"));
    let side = model.strip_prefix("input_size = ");
    // At which side it was trained, its file says, and nobody else has to.
    if let Some(side) = side {
        assert_eq!(Checkpoint::open(&ppn).unwrap().metadata()["input_size"], side);
    }
    if more.contains("arm") {
        segment.args(["--dataset", "arm"]);
    }
    ended(&segment.output().unwrap(), 0);
    ppn
}

#[test]
fn mobile_sam_by_the_authors_loss_with_its_whole_decoder() {
    let root = folder();
    let family = Some("mobile-sam");
    let model = "input_size = 128";
    let way = Way { family, form: "single-scale", decoder: "full", loss: "authors", model, limit: 3 };
    taught(root.path(), &way, "");
}

#[test]
fn a_vit_by_the_papers_loss_with_a_frozen_decoder() {
    let root = folder();
    let family = Some("sam-vit-b");
    let way = Way { family, form: "single-scale", decoder: "frozen", loss: "paper", model: "", limit: 2 };
    taught(root.path(), &way, "");
}

#[test]
fn sam2_in_the_authors_form() {
    let root = folder();
    let family = Some("sam2.1-hiera-tiny");
    let model = "input_size = 128";
    let way = Way { family, form: "high-res", decoder: "attention", loss: "paper", model, limit: 0 };
    taught(root.path(), &way, "");
}

#[test]
fn an_input_of_too_few_cells_for_a_pyramid_is_refused_before_anything_is_encoded() {
    let root = folder();
    let config = configure(root.path(), &pictures(root.path()));
    let weights = root.path().join("made.safetensors");
    ended(&sonomask().args(["weights", "generate", "mobile-sam"]).arg(&weights).output().unwrap(), 0);
    let own = format!("{}/weights/lite_medsam.pth", env!("CARGO_MANIFEST_DIR"));
    rewrite(&config, |text| text.replace(&own, &weights.to_string_lossy()));
    let done = train(&config, &root.path().join("out"), &["--set", "model.input_size=96"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("expected at least 128 pixels"), "{said}");
    assert!(!root.path().join("features").exists(), "pictures were encoded");
}

/// In bfloat16, of two data sets with classes of their own, one of them with a mask for each class.
#[test]
fn two_data_sets_are_learned_together() {
    let root = folder();
    let arm = root.path().join("arm");
    for part in ["imgs", "gts/bright"] {
        std::fs::create_dir_all(arm.join(part)).unwrap();
    }
    let data = pictures(root.path());
    for i in [0, 1] {
        let name = format!("p{i}.png");
        std::fs::copy(data.join("imgs").join(&name), arm.join("imgs").join(&name)).unwrap();
        let mut mask = image::open(data.join("gts").join(&name)).unwrap().into_luma8();
        mask.pixels_mut().for_each(|p| p.0[0] = if p.0[0] == 1 { 255 } else { 0 });
        mask.save(arm.join("gts/bright").join(&name)).unwrap();
    }
    let more = format!(
        "[[datasets]]\nname = \"arm\"\ndata = \"{}\"\nlayout = \"per-class\"\nclasses = [\"bright\"]\n",
        arm.display()
    );
    let model = "precision = \"bf16\"";
    let way = Way { family: None, form: "pyramid", decoder: "attention", loss: "sonomask", model, limit: 3 };
    let ppn = taught(root.path(), &way, &more);
    let queries = tensors(&ppn).into_keys().filter(|name| name.contains("learnable_prompts"));
    assert_eq!(queries.count(), 2);
}

#[test]
fn a_run_that_gets_no_better_ends_early() {
    let root = folder();
    let data = pictures(root.path());
    let mut spec = read_into(&configure(root.path(), &data), "out");
    (spec.patience, spec.views) = (2, 0);
    spec.stages.remove(0);
    let stage = &mut spec.stages[0];
    (stage.epochs, stage.predictor, stage.decoder) = (9, 1e-12, 1e-12);
    let outcome = run(&spec, false, u64::MAX);
    assert_eq!((outcome.ending, outcome.epochs), (Ending::Early, 3));
    assert_eq!(outcome.best.map(|(_, epoch)| epoch), Some(1));
}

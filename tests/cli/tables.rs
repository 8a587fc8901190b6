//! Tables of models and data sets: which prompts each model is asked with.

use image::{GrayImage, Luma};

use super::{folder, picture, run};
use crate::program_support::{said, weights};

#[test]
fn other_prompts_are_asked_of_the_models_that_can_do_them() {
    let dir = folder();
    for part in ["data/imgs", "data/gts"] {
        std::fs::create_dir_all(dir.path().join(part)).expect("a folder");
    }
    picture(&dir.path().join("data/imgs/p0.png"), 64, 64, 0);
    let square = |x: u32, y: u32| Luma([u8::from((20..44).contains(&x) && (16..40).contains(&y))]);
    GrayImage::from_fn(64, 64, square).save(dir.path().join("data/gts/p0.png")).expect("a picture");
    let generate = ["weights", "generate", "lite-medsam", "g.safetensors", "--ppn", "single-scale"];
    said(&run(dir.path(), &[&generate[..], &["--classes", "nerve"]].concat()), 0);
    let published = format!("[[models]]\nname = \"S\"\nweights = {:?}\n", weights());
    let trained = "[[models]]\nname = \"G\"\ndecoder = \"lora\"\nweights = \"g.safetensors\"\n";
    let tables = |models: &str| {
        let data =
            "[[datasets]]\nname = \"P\"\ndata = \"data\"\nclasses = [{ name = \"nerve\", label = 1 }]\n";
        let text = format!("others = [\"box\", \"auto+points\"]\n{data}{models}");
        std::fs::write(dir.path().join("t.toml"), text).expect("a file");
        run(dir.path(), &["eval", "--tables", "t.toml", "--out", "t"])
    };
    let text = said(&tables(&published), 2);
    assert!(text.contains("others = [\"auto+points\"]: no model has a prompt predictor"), "{text}");
    assert!(!dir.path().join("t").exists(), "nothing was begun");

    said(&tables(&format!("{published}{trained}")), 0);
    let read = |name: &str| std::fs::read_to_string(dir.path().join("t").join(name)).expect("a file");
    let csv = read("tables.csv");
    let asked: Vec<String> =
        csv.lines().skip(1).map(|line| line.split(',').take(4).collect::<Vec<_>>().join(" ")).collect();
    let expected =
        ["S frozen P box", "G LoRA P auto", "G LoRA P box", "G LoRA P auto+box", "G LoRA P auto+points"];
    assert_eq!(asked, expected);
    let markdown = read("tables.md");
    let (_, others) = markdown.split_once("## Other prompts").expect("a table of them");
    assert!(others.contains("| Model | Decoder | P BB | P point+LP |"), "{others}");
    let row = others.lines().find(|line| line.starts_with("| S | frozen |")).expect("the model's row");
    assert!(row.ends_with(" | – |"), "without a predictor: {row}");
}

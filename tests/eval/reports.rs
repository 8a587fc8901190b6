//! Reports in every form, the cases they show, and tables in the shape of the paper's.

use std::collections::BTreeMap;

use sonomask::eval::{
    Case, Cell, Evaluation, Material, Prompting, Report, Row, Summary, Tables, Tuning, evaluate, ranked,
};

use super::{all, case, filler, material, three};

#[test]
fn best_median_and_worst() {
    let cases: Vec<Case> = (0..5u64).map(|i| case(&i.to_string(), 0, 10 * i, 10, 10)).collect();
    let shown: Vec<_> = ranked(&cases, 0).into_iter().map(|(rank, c)| (rank, c.image.as_str())).collect();
    assert_eq!(shown, [("best", "4"), ("median", "2"), ("worst", "0")]);
    assert_eq!(ranked(&cases[..1], 0).len(), 1);
    assert_eq!(ranked(&cases, 1), []);
}

#[test]
fn a_report_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let data = three(dir.path());
    let chosen = all(&data);
    let material = Material { augmented: 3, ..material(&data, &chosen) };
    let mut model = filler(&["a", "b"]);
    let names = vec!["a".to_owned(), "b|\"<".to_owned()];
    let mut evaluations = Vec::new();
    for mode in [Prompting::AutoBox, Prompting::Box] {
        let cases = evaluate(&mut model, &material, mode, |_| {}).unwrap();
        assert_eq!(cases.len(), 3 * 2 * 4, "the picture and three views of it");
        evaluations.push(Evaluation::new(mode, &names, cases, None));
    }
    let (plain, augmented) = (&evaluations[0].summary, evaluations[0].augmented.as_ref().unwrap());
    assert_eq!(plain.classes[0].n_present + plain.classes[0].n_absent, 3);
    assert_eq!(augmented.classes[0].n_present + augmented.classes[0].n_absent, 9);
    let mut report = Report {
        dataset: data.name.clone(),
        n: 3,
        names,
        model: model.info.clone(),
        device: "cpu".into(),
        spacing_mm: Some((0.5, 0.5)),
        patient: None,
        augmented_views: 3,
        settings: Default::default(),
        evaluations,
    };
    let pictures: Vec<_> =
        report.evaluations.iter().map(|e| e.pictures(&mut model, &material).unwrap()).collect();
    assert_eq!(pictures[1].iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    let png = image::load_from_memory(&pictures[1][0][0].png).unwrap();
    assert!(png.width() > 0);
    let html = report.html(&pictures);
    assert!(
        html.contains("scenes &amp; sons")
            && html.contains("b|&quot;&lt;")
            && html.contains("filler &lt;1&gt;")
    );
    assert!(
        html.contains("data:image/png;base64,iVBORw0KGgo")
            && html.contains("a, augmented")
            && html.contains("00ff")
    );
    assert!(!html.contains("http://") && !html.contains("https://"), "it needs nothing else");
    let markdown = report.markdown();
    assert!(markdown.contains("| auto+box | b\\|\"< |") && markdown.contains("HD95, mm"), "{markdown}");
    let summary = report.summary_csv();
    assert_eq!(summary.lines().count(), 1 + 2 * 2 * 3);
    assert!(summary.contains("auto+box,plain,\"b|\"\"<\",1,2,"), "{summary}");
    let columns = |text: &str| text.lines().map(|l| l.matches(',').count()).collect::<Vec<_>>();
    assert!(columns(&summary).iter().all(|n| *n == columns(&summary)[0]), "{summary}");
    let cases = report.cases_csv();
    assert_eq!(cases.lines().count(), 1 + 2 * 24);
    assert!(columns(&cases).iter().all(|n| *n == columns(&cases)[0]), "{cases}");
    let json = report.json(false).unwrap();
    assert_eq!(json["evaluations"][1]["mode"], "box");
    let seen = &report.evaluations[0].augmented.as_ref().unwrap().classes[0];
    assert_eq!(json["evaluations"][0]["augmented"]["classes"]["a"]["n_present"], seen.n_present);
    report.evaluations.truncate(1);
    let json = report.json(true).unwrap();
    assert_eq!((&json["schema"], &json["mode"], &json["n"]), (&1.into(), &"auto+box".into(), &3.into()));
    assert_eq!(json["classes"]["a"]["dice_ci95"].as_array().unwrap().len(), 2);
    assert!(json["mean"]["iou"].is_f64() && json.get("evaluations").is_none());
}

/// The paper's kinds of models on the first of two data sets, the later the better, asked what its tables ask and `others`.
fn tables(others: &[Prompting]) -> Tables {
    let row = |name: &str, decoder, learned| Row { name: name.into(), decoder, learned };
    let models = vec![
        row("SAM", Tuning::Frozen, false),
        row("SAM+PPN", Tuning::Frozen, true),
        row("Sam2Rad", Tuning::Lora, true),
    ];
    let mut cells = BTreeMap::new();
    for (model, both) in [(0, 20), (1, 30), (2, 40)] {
        let mean = Summary::of(&["a".to_owned()], &[case("i", 0, both, 10, 10)], None).mean;
        for mode in models[model].asked(others) {
            let cell = Cell { weights_sha256: "w".into(), ppn_sha256: None, views: 1, n: 1, mean };
            cells.insert((model, 0, mode), cell);
        }
    }
    Tables { datasets: vec!["Hip".into(), "Wrist".into()], models, cells }
}

#[test]
fn tables_have_the_papers_shape() {
    let tables = tables(&[]);
    assert_eq!(tables.models[0].promptings(), [Prompting::Box]);
    assert_eq!(tables.models[2].promptings(), [Prompting::Auto, Prompting::AutoBox]);
    let text = tables.markdown();
    // 2 * 20 / 60 and 20 / 40; 2 * 30 / 80 and 30 / 50; 2 * 40 / 100 and 40 / 60.
    for line in [
        "| Model | Hip BB | Wrist BB |",
        "| SAM | 66.7/50.0 | – |",
        "| Model | Hip BB | Hip LP | Wrist BB | Wrist LP |",
        "| SAM+PPN | 75.0/60.0 | 75.0/60.0 | – | – |",
        "| Model | Decoder | Hip LP | Hip BB+LP | Wrist LP | Wrist BB+LP |",
        "| Sam2Rad | LoRA | 80.0/66.7 | 80.0/66.7 | – | – |",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("Other prompts"), "nothing was asked with points");
    let page = tables.html();
    for part in ["<th>Hip BB+LP</th>", "<td>66.7/50.0<small>66.7 to 66.7</small></td>", "<td>–</td>"] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert_eq!(page.matches("<table>").count(), 3);
    assert_eq!(tables.csv().lines().count(), 1 + 1 + 3 + 2);
    assert_eq!(tables.json().unwrap()["cells"].as_array().unwrap().len(), 6);
}

#[test]
fn other_prompts_are_asked_of_every_model_that_can_do_them() {
    use Prompting::{Auto, AutoBox, AutoPoints, Box, Points};
    let found = tables(&[Box, Points, AutoPoints, Points]);
    let asked = |model: usize| {
        found.cells.keys().filter(|at| at.0 == model).map(|at| at.2).collect::<Vec<Prompting>>()
    };
    assert_eq!(found.models[2].asked(&[Box, Points, Points]), [Auto, AutoBox, Box, Points]);
    assert_eq!(asked(0), [Box, Points], "without a predictor there are no learned prompts");
    assert_eq!(asked(1), [Auto, Box, AutoBox, Points, AutoPoints]);
    assert_eq!(asked(2), asked(1));
    let text = found.markdown();
    for line in [
        "| Model | Decoder | Hip BB | Hip point | Hip point+LP | Wrist BB | Wrist point | Wrist point+LP |",
        "| SAM | frozen | 66.7/50.0 | 66.7/50.0 | – | – | – | – |",
        "| Sam2Rad | LoRA | 80.0/66.7 | 80.0/66.7 | 80.0/66.7 | – | – | – |",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // A box that the paper's tables show of every model that was asked so is not shown again.
    let text = tables(&[Points]).markdown();
    assert!(text.contains("| Model | Decoder | Hip point | Wrist point |"), "{text}");
}

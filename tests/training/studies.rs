//! Studies as their users start them: several runs for one question, a table of what they come to, and nothing done twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use super::divided;
use crate::training_support::{ended, folder, lines, pictures, rewrite, train};

/// The quickest run there is: one epoch of a pyramid without further views, beside a decoder as it was published.
fn hasten(config: &Path) {
    rewrite(config, |text| {
        let (before, stages) = text.split_once("[[stages]]").unwrap();
        let run = &stages[stages.find("[run]").unwrap()..];
        let frozen = "tuning = \"frozen\"\nobject_score = false";
        let before = before.replace("views = 1", "views = 0").replace("tuning = \"lora\"", frozen);
        let stage = "[[stages]]\ntrains = \"pyramid\"\nepochs = 1\npredictor = 1e-3\ndecoder = 0.0\n";
        format!("{before}{stage}{run}")
    });
}

/// Rows of a table: what the runs are of, prompts, class, Dice, its range, pictures, runs.
struct Table(Vec<Vec<String>>);

impl Table {
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("group,mode,class,dice,low,high,pictures,runs"));
        let rows: Vec<Vec<String>> = lines.map(|line| line.split(',').map(str::to_owned).collect()).collect();
        for row in &rows {
            let [dice, low, high] = [3, 4, 5].map(|at: usize| row[at].parse::<f64>().unwrap());
            assert!(0.0 <= low && low <= dice + 1e-9 && dice <= high + 1e-9 && high <= 1.0, "{row:?}");
        }
        Self(rows)
    }

    /// Everything but Dice and its range.
    fn counts(&self) -> Vec<String> {
        self.0.iter().map(|row| [&row[..3], &row[6..]].concat().join(" ")).collect()
    }

    fn dice(&self, row: usize) -> f64 {
        self.0[row][3].parse().unwrap()
    }
}

/// A study that is started twice, with its `runs`: what it said the first time, and the table that it left both times.
#[track_caller]
fn studied(config: &Path, out: &Path, asked: &[&str], runs: &[&str]) -> (String, Table) {
    let start = || {
        let output = train(config, out, &[&["--study"][..], asked].concat()).output().unwrap();
        (ended(&output, 0), String::from_utf8(output.stdout).unwrap())
    };
    let written = || -> Vec<SystemTime> {
        let files =
            runs.iter().flat_map(|run| ["last.safetensors", "result.json"].map(|f| out.join(run).join(f)));
        files.map(|file| file.metadata().unwrap().modified().unwrap()).collect()
    };
    let tables =
        || ["study.md", "study.csv", "study.json"].map(|f| std::fs::read_to_string(out.join(f)).unwrap());
    let (said, printed) = start();
    for (i, run) in runs.iter().enumerate() {
        assert!(said.contains(&format!("run {} of {}: {run}\n", i + 1, runs.len())), "{run}: {said}");
        assert!(said.contains(&format!("{run}: trained in ")), "{run}: {said}");
        assert!(!lines(&out.join(run)).is_empty(), "{run}");
    }
    assert!(said.contains("epoch 1 (") && said.contains("written to "), "{said}");
    let first = (written(), tables());
    let [markdown, csv, json] = &first.1;
    assert_eq!(printed.trim_end(), markdown.trim_end());
    let json: Value = serde_json::from_str(json).unwrap();
    // A line of heads, and in Markdown another one below it.
    let rows = csv.lines().count() - 1;
    assert_eq!((json["lines"].as_array().unwrap().len(), markdown.lines().count()), (rows, rows + 2));
    // Parts that are held out have no order in which a curve could go through them.
    assert_eq!(out.join("study.svg").is_file(), asked[0] != "folds");

    let (again, printed_again) = start();
    assert!(!again.contains("trained in") && !again.contains("epoch 1 ("), "{again}");
    assert!(runs.iter().all(|run| again.contains(&format!(": {run}\n"))), "{again}");
    assert!(first == (written(), tables()), "something was done anew");
    assert_eq!(printed, printed_again);
    (said, Table::read(&out.join("study.csv")))
}

#[test]
fn every_part_is_held_out_once_and_all_are_put_together() {
    let root = folder();
    let data = pictures(root.path());
    let config = divided(root.path(), &data, "folds = 2\n");
    hasten(&config);
    let out = root.path().join("folds");
    let runs = ["fold-0", "fold-1"];
    let (_, table) = studied(&config, &out, &["folds", "--mode", "auto", "--mode", "box"], &runs);
    // The dark disc is in four of the five pictures.
    let expected = ["all auto bright 5 2", "all auto dark 4 2", "all box bright 5 2", "all box dark 4 2"];
    assert_eq!(table.counts(), expected);
    // One epoch teaches nothing, but a box around a bright disc is answered by the decoder as it was published.
    assert!(table.dice(2) > 0.5, "{}", table.dice(2));
    let lists = runs.map(|run| std::fs::read_to_string(out.join(run).join("validation.txt")).unwrap());
    let held: Vec<&str> = lists.iter().flat_map(|list| list.lines()).collect();
    assert_eq!(held.len(), 5);
    assert_eq!(held.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["p0", "p1", "p2", "p3", "p4"]));
}

#[test]
fn few_pictures_and_damaged_masks_have_a_row_each() {
    let root = folder();
    let data = pictures(root.path());
    std::fs::write(root.path().join("held.txt"), "p1\n").unwrap();
    let config = divided(root.path(), &data, "validation = \"held.txt\"\n");
    hasten(&config);
    let out = root.path().join("few-shot");
    let asked = ["few-shot", "--shots", "2", "--draws", "1", "--mode", "auto"];
    let (said, table) = studied(&config, &out, &asked, &["shots-2-0", "shots-all-0"]);
    let expected = ["2 auto bright 1 1", "2 auto dark 1 1", "all auto bright 1 1", "all auto dark 1 1"];
    assert_eq!(table.counts(), expected);
    // Half of the pictures are shown twice as often.
    assert_eq!(["shots-2-0", "shots-all-0"].map(|run| lines(&out.join(run)).len()), [2, 1]);
    assert!(!said.contains("without its term of the box"), "{said}");

    let asked = ["noise", "--draws", "1", "--mode", "auto", "--set", "loss.preset=paper"];
    let runs = ["noise-0-0", "noise-25-0", "noise-50-0", "noise-75-0"];
    let (said, table) = studied(&config, &root.path().join("noise"), &asked, &runs);
    let expected = ["0 %", "25 %", "50 %", "75 %"]
        .map(|share| ["bright", "dark"].map(|class| format!("{share} auto {class} 1 1")));
    assert_eq!(table.counts(), expected.as_flattened());
    // For all its runs together.
    assert_eq!(said.matches("loss.preset = \"paper\" without its term of the box").count(), 1, "{said}");
}

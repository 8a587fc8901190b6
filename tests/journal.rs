//! What a training run writes down: that a resumed run's files are those of one without interruption, and what others read of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sonomask::chart::{Chart, Mark, Panel, Scale, Series, XAxis};
use sonomask::train::{Epoch, Journal, JournalError, Validation};

fn map(values: &[(&str, f64)]) -> BTreeMap<String, f64> {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// A run that learns; its best epoch is 7.
fn epoch(n: u64) -> Epoch {
    let t = n as f64;
    let dice = 0.8 - 0.01 * (t - 7.0).powi(2);
    let validation = Validation {
        dice: map(&[("nerve", dice - 0.1), ("vessel", dice + 0.1)]),
        iou: map(&[("nerve", dice / 2.0), ("vessel", dice / 2.0 + 0.05)]),
        mean_dice: dice,
    };
    Epoch {
        epoch: n,
        step: n * 25,
        stage: if n < 3 { "predictor".into() } else { "predictor and decoder".into() },
        losses: map(&[
            ("mask", 2.0 / t),
            ("interim", 1.0 / t),
            ("box", 0.3),
            ("presence", 0.01),
            ("total", 3.0 / t + 0.31),
        ]),
        learning_rates: map(&[("predictor", 1e-4 / t)]),
        gradient_norm: 1.5,
        // Not every epoch is validated.
        validation: (n % 3 != 2).then_some(validation),
        best: n <= 7 && n % 3 != 2,
        seconds: map(&[("train", 4.25), ("validate", 0.5)]),
    }
}

fn run(dir: &Path, resume_after: Option<u64>, epochs: std::ops::RangeInclusive<u64>) {
    let mut journal = Journal::open(dir, resume_after).unwrap();
    for n in epochs {
        journal.write(&epoch(n)).unwrap();
    }
}

fn lines(dir: &Path) -> String {
    fs::read_to_string(dir.join("metrics.jsonl")).unwrap()
}

#[test]
fn a_resumed_run_leaves_the_files_of_one_without_interruption() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path(), None, 1..=9);
    run(cut.path(), None, 1..=6);
    // The checkpoint is of epoch 4; the kill came in the middle of a line, and of a character.
    let mut torn = fs::read(cut.path().join("metrics.jsonl")).unwrap();
    torn.extend("{\"epoch\":7,\"step\":175,\"stage\":\"é".as_bytes());
    torn.pop();
    fs::write(cut.path().join("metrics.jsonl"), &torn).unwrap();
    run(cut.path(), Some(4), 5..=9);
    assert_eq!(lines(cut.path()), lines(whole.path()));
    let curves = |dir: &Path| fs::read_to_string(dir.join("curves.svg")).unwrap();
    assert_eq!(curves(cut.path()), curves(whole.path()));

    let journal = Journal::open(cut.path(), Some(9)).unwrap();
    assert_eq!(journal.epochs(), (1..=9).map(epoch).collect::<Vec<_>>());
    assert_eq!(journal.best().unwrap().epoch, 7);
}

#[test]
fn only_the_torn_line_is_lost_where_the_checkpoint_is_later() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), None, 1..=3);
    let whole = lines(dir.path());
    for torn in ["{", "{\"epoch\":4", "\0\0\0\0", &whole.lines().last().unwrap()[..40]] {
        fs::write(dir.path().join("metrics.jsonl"), format!("{whole}{torn}")).unwrap();
        Journal::open(dir.path(), Some(4)).unwrap();
        assert_eq!(lines(dir.path()), whole, "{torn:?}");
    }
    // Cut off between the line and its end.
    fs::write(dir.path().join("metrics.jsonl"), whole.trim_end()).unwrap();
    Journal::open(dir.path(), Some(3)).unwrap();
    assert_eq!(lines(dir.path()), whole);
}

#[test]
fn a_new_run_replaces_an_old_one_and_a_lost_journal_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), None, 1..=3);
    let events = dir.path().join("tensorboard");
    fs::write(events.join("events.out.tfevents.1.elsewhere"), "not ours").unwrap();
    run(dir.path(), None, 1..=1);
    assert_eq!(lines(dir.path()).lines().count(), 1);
    assert_eq!(fs::read_dir(&events).unwrap().count(), 2, "ours is replaced, another's is not");

    let empty = tempfile::tempdir().unwrap();
    run(&empty.path().join("deep/er"), Some(7), 8..=9);
    assert_eq!(lines(&empty.path().join("deep/er")).lines().count(), 2);
}

#[test]
fn a_damaged_line_amid_others_is_told() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), None, 1..=3);
    let damaged = lines(dir.path()).replacen("\"epoch\":2", "\"epoch\":\"two\"", 1);
    fs::write(dir.path().join("metrics.jsonl"), &damaged).unwrap();
    let error = Journal::open(dir.path(), Some(3)).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { line: 2, .. }), "{error}");
    assert_eq!(lines(dir.path()), damaged, "nothing is lost by asking");
    let file = dir.path().join("metrics.jsonl/below");
    let error = Journal::open(&file, None).unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl"), "{error}");
}

#[test]
fn what_is_not_finite_breaks_neither_lines_nor_curves() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), None).unwrap();
    for (n, bad) in [(1, f64::NAN), (2, f64::INFINITY), (3, f64::NEG_INFINITY), (4, 1e308)] {
        let mut epoch = epoch(n);
        epoch.gradient_norm = bad;
        epoch.losses.insert("total".into(), bad);
        epoch.losses.insert("mask".into(), -bad);
        epoch.learning_rates.insert("predictor".into(), bad);
        let empty = Validation { dice: map(&[("nerve", bad)]), iou: map(&[]), mean_dice: bad };
        epoch.validation = Some(empty);
        journal.write(&epoch).unwrap();
    }
    let text = lines(dir.path());
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["losses"]["total"].is_null() || value["epoch"] == 4);
    }
    let svg = fs::read_to_string(dir.path().join("curves.svg")).unwrap();
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    // Read again, they are numbers that are none; the lines stay what they are.
    let journal = Journal::open(dir.path(), Some(4)).unwrap();
    assert!(journal.epochs()[1].losses["total"].is_nan() && journal.epochs()[1].gradient_norm.is_nan());
    assert_eq!(journal.best().unwrap().epoch, 4);
    assert_eq!(lines(dir.path()), text);
}

#[test]
fn curves_show_every_term_every_class_and_the_best_epoch() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), None, 1..=9);
    let svg = fs::read_to_string(dir.path().join("curves.svg")).unwrap();
    let texts = texts(&svg);
    for text in ["mask", "interim", "box", "presence", "total", "nerve", "vessel", "mean", "loss", "epoch"] {
        assert!(texts.iter().any(|t| t == text), "{text} of {texts:?}");
    }
    assert!(texts.iter().any(|t| t == "best: 0.800 at 7"), "{texts:?}");
    assert!(texts.iter().any(|t| t == "predictor and decoder"), "{texts:?}");
    assert!(
        texts.iter().any(|t| t == "0.01"),
        "losses that differ by a factor of 300 stand by factors: {texts:?}"
    );
}

fn texts(svg: &str) -> Vec<String> {
    let inside = svg.split("<text").skip(1).filter_map(|t| t.split_once('>')?.1.split_once("</text>"));
    inside.map(|(text, _)| text.trim().to_owned()).collect()
}

#[test]
fn a_curve_by_number_of_pictures_has_its_cases_evenly_and_its_band() {
    let cases = ["5", "10", "20", "50", "all"].map(str::to_owned).to_vec();
    let points: Vec<_> = (0..5).map(|i| (f64::from(i), 0.4 + 0.1 * f64::from(i))).collect();
    let band = points.iter().map(|(x, y)| (*x, y - 0.05, y + 0.05)).collect();
    let series = Series { name: "a < b & \"c\"".into(), points, band: Some(band), strong: false };
    let panel = Panel {
        x_label: "pictures".into(),
        y_label: "Dice".into(),
        x: XAxis::Cases(cases.clone()),
        series: vec![series],
        marks: vec![Mark { x: f64::NAN, text: "nowhere".into() }],
        ..Panel::default()
    };
    let chart = Chart { title: "few".into(), panels: vec![panel.clone()] };
    let svg = chart.svg(900, 600).unwrap();
    let found = texts(&svg);
    assert!(cases.iter().all(|case| found.contains(case)), "{found:?}");
    assert!(found.contains(&"a &lt; b &amp; &quot;c&quot;".to_owned()), "{found:?}");
    assert_eq!(svg.matches("<polygon").count(), 1);
    assert!(!found.contains(&"nowhere".to_owned()));
    let places: Vec<f64> =
        svg.split("<circle cx=\"").skip(1).map(|c| c.split('"').next().unwrap().parse().unwrap()).collect();
    let steps: Vec<f64> = places.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(steps.len() == 4 && steps.iter().all(|s| (s - steps[0]).abs() <= 1.0), "{places:?}");

    for (scale, y) in [(Scale::Log, -1.0), (Scale::Log, 1e-300), (Scale::Linear, 1e308), (Scale::Linear, 3.0)]
    {
        let series = Series { points: vec![(0.0, y), (2.0, y)], ..Series::default() };
        let panel = Panel { y_scale: scale, y_range: None, series: vec![series], ..Panel::default() };
        chart_of(panel).svg(900, 600).unwrap();
    }
    chart_of(Panel::default()).svg(320, 200).unwrap();
    Chart::default().svg(900, 600).unwrap();
    assert!(chart_of(panel).svg(10, 10).is_err());
}

fn chart_of(panel: Panel) -> Chart {
    Chart { title: String::new(), panels: vec![panel] }
}

/// One record of an event file: step, file version, status of a session, values by tag.
#[derive(Debug, Default, PartialEq)]
struct Event {
    step: u64,
    version: String,
    status: u64,
    values: Vec<(String, f32)>,
}

#[test]
fn tensorboard_reads_every_number_and_where_a_resumed_run_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), None, 1..=6);
    run(dir.path(), Some(4), 5..=6);
    let mut files: Vec<_> =
        fs::read_dir(dir.path().join("tensorboard")).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let [first, second] = &files[..] else { panic!("{files:?}") };
    let bytes = fs::read(first).unwrap();
    // The first record that TensorFlow itself writes has this length, and this checksum of it.
    assert_eq!(bytes[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);

    let first = events(&bytes);
    assert_eq!(first.iter().map(|e| e.step).collect::<Vec<_>>(), [0, 0, 25, 50, 75, 100, 125, 150]);
    assert_eq!((first[0].version.as_str(), first[1].status), ("brain.Event:2", 1));
    let has = |tag: &str, value: f64| first[4].values.contains(&(tag.to_owned(), value as f32));
    assert!(has("loss/total", 1.31) && has("loss/box", 0.3) && has("lr/predictor", 1e-4 / 3.0));
    assert!(has("dice/nerve", 0.54) && has("iou/vessel", 0.37) && has("dice_mean", 0.64));
    assert!(has("gradient_norm", 1.5) && has("seconds/train", 4.25));

    let second = events(&fs::read(second).unwrap());
    assert_eq!(second.iter().map(|e| e.step).collect::<Vec<_>>(), [0, 101, 125, 150]);
    assert_eq!((second[0].version.as_str(), second[1].status), ("brain.Event:2", 1));
    assert_eq!(second[2..], first[6..]);
}

/// Reads TFRecords as the format says, and of every event what is asked of it.
fn events(mut bytes: &[u8]) -> Vec<Event> {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the published check value");
    let masked = |data: &[u8]| crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8);
    let word = |data: &[u8]| u32::from_le_bytes(data.try_into().unwrap());
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(word(&bytes[8..12]), masked(&bytes[..8]));
        let message = &bytes[12..12 + length];
        assert_eq!(word(&bytes[12 + length..16 + length]), masked(message));
        bytes = &bytes[16 + length..];
        let mut event = Event::default();
        for (field, number, inner) in fields(message) {
            match field {
                1 => assert!(f64::from_bits(number) > 1.7e9, "seconds since 1970"),
                2 => event.step = number,
                3 => event.version = String::from_utf8(inner.to_vec()).unwrap(),
                5 => event.values = fields(inner).into_iter().map(|(_, _, value)| scalar(value)).collect(),
                7 => event.status = fields(inner)[0].1,
                other => panic!("field {other}"),
            }
        }
        events.push(event);
    }
    events
}

fn scalar(value: &[u8]) -> (String, f32) {
    let fields = fields(value);
    assert_eq!((fields[0].0, fields[1].0, fields.len()), (1, 2, 2));
    (String::from_utf8(fields[0].2.to_vec()).unwrap(), f32::from_bits(fields[1].1 as u32))
}

/// Number, value and content of every field of a protobuf message.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let length = bytes.iter().position(|b| b & 0x80 == 0).unwrap() + 1;
        let (value, rest) = bytes.split_at(length);
        *bytes = rest;
        value.iter().rev().fold(0, |sum, b| sum << 7 | u64::from(b & 0x7f))
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, varint(&mut bytes), &bytes[..0]));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (inner, rest) = bytes.split_at(length);
        bytes = rest;
        let number = inner.iter().take(8).rev().fold(0, |sum, b| sum << 8 | u64::from(*b));
        found.push((key >> 3, number, inner));
    }
    found
}

/// Castagnoli's polynomial as long division, with the bits the other way round than in the program.
fn crc32c(data: &[u8]) -> u32 {
    let mut rest = u32::MAX;
    for byte in data {
        rest ^= u32::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            rest = if rest >> 31 == 1 { rest << 1 ^ 0x1edc_6f41 } else { rest << 1 };
        }
    }
    (!rest).reverse_bits()
}

//! A report as Markdown: one table, and how its figures are formed.

use std::fmt::Write as _;

use super::{Evaluation, Report};
use crate::eval::{Compared, Difference, Figure, RULES, Scores, Spread};

/// Columns behind mode and class.
const SHARES: [&str; 6] = ["Dice", "IoU", "Dice micro", "IoU micro", "sensitivity", "specificity"];

impl Report {
    /// The table of all evaluations, and the rules.
    pub fn markdown(&self) -> String {
        let mut out = format!("# {}: {} images, {}\n\n", self.dataset, self.n, self.model.family);
        out.push_str(&self.table());
        out.push_str("\nIn brackets 95 % intervals. HD95 and centroid error: mean / median");
        out.push_str(" (images left out because nothing was drawn).\n\n");
        for rule in RULES {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "* {rule}");
        }
        let _ = writeln!(out, "\n{}", self.made_with());
        out
    }

    /// The table alone.
    pub fn table(&self) -> String {
        table(&self.evaluations, self.spacing_mm.is_some())
    }

    /// Which weights, on which machine, by which program.
    pub(super) fn made_with(&self) -> String {
        let ppn = self.model.ppn.as_ref().map_or_else(String::new, |ppn| {
            let sum = ppn.sha256.as_deref().map_or_else(String::new, |sum| format!(", SHA-256 {sum}"));
            format!("; prompt predictor {} of {:?}{sum}", ppn.form, ppn.dataset)
        });
        let versions: Vec<String> = crate::telemetry::versions()
            .into_iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        format!(
            "Weights SHA-256 {}{ppn}; {}, {}; {}. Research use only: not for diagnosis.",
            self.model.weights_sha256,
            self.model.precision,
            self.device,
            versions.join(", "),
        )
    }
}

/// The table of evaluations, with distances in millimetres where `calibrated`, else in pixels.
pub fn table(evaluations: &[Evaluation], calibrated: bool) -> String {
    let unit = if calibrated { "mm" } else { "px" };
    let mut heads = vec!["mode".to_owned(), "class".into(), "with / without".into()];
    heads.extend(SHARES.map(String::from));
    heads.push("presence AUC".into());
    heads.extend([format!("HD95, {unit}"), format!("centroid, {unit}")]);
    let mut out = row(&heads);
    out.push_str(&row(&vec!["---".to_owned(); heads.len()]));
    let listed = evaluations.iter().flat_map(|e| e.summaries().map(move |found| (e.mode.name(), found)));
    for (mode, (views, summary)) in listed {
        for class in &summary.classes {
            let counts = format!("{} / {}", class.n_present, class.n_absent);
            let mut cells = vec![mode.to_owned(), escaped(&named(&class.name, views)), counts];
            cells.extend(shares(&class.scores));
            cells.push(number(class.presence_auc));
            let of = |px, mm: Option<Spread>| spread(mm.filter(|_| calibrated).unwrap_or(px));
            cells.push(of(class.hd95_px, class.hd95_mm));
            cells.push(of(class.centroid_px, class.centroid_mm));
            out.push_str(&row(&cells));
        }
        let mut cells = vec![mode.to_owned(), format!("**{}**", named("mean", views)), String::new()];
        cells.extend(shares(&summary.mean));
        cells.extend([const { String::new() }; 3]);
        out.push_str(&row(&cells));
    }
    out
}

/// The table of differences.
pub fn difference_table(differences: &[Difference]) -> String {
    let heads =
        ["mode", "class", "pictures", "Dice", "against", "difference", "IoU", "against", "difference"];
    let mut out = row(&heads.map(String::from));
    out.push_str(&row(&heads.map(|_| "---".to_owned())));
    let signed = |compared: &Compared| match (compared.difference, compared.difference_ci95) {
        (Some(value), Some([low, high])) => format!("{value:+.3} [{low:+.3}, {high:+.3}]"),
        _ => "–".to_owned(),
    };
    for found in differences {
        let class = if found.class == "mean" { "**mean**".to_owned() } else { escaped(&found.class) };
        let mut cells = vec![found.mode.name().to_owned(), class, found.n.to_string()];
        for compared in [&found.dice, &found.iou] {
            cells.extend([number(compared.value), number(compared.against), signed(compared)]);
        }
        out.push_str(&row(&cells));
    }
    out
}

/// What a row is of.
pub fn named(class: &str, views: &str) -> String {
    if views.is_empty() { class.to_owned() } else { format!("{class}, {views}") }
}

/// A row of a table.
pub fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Text that may be anything, in a cell.
pub fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', " ")
}

fn shares(scores: &Scores) -> impl Iterator<Item = String> {
    scores.all().into_iter().map(|(_, figure)| share(figure))
}

/// A figure without an interval, or a dash.
pub(super) fn number(v: Option<f64>) -> String {
    v.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"))
}

/// A figure with its interval, or a dash.
pub(super) fn share(figure: Figure) -> String {
    figure.0.map_or_else(|| "–".into(), |i| format!("{:.3} [{:.3}, {:.3}]", i.mean, i.low, i.high))
}

/// Mean and median, and how many images have none.
pub(super) fn spread(of: Spread) -> String {
    let (Some(mean), Some(median)) = (of.mean, of.median) else { return format!("– ({})", of.left_out) };
    format!("{mean:.1} / {median:.1} ({})", of.left_out)
}

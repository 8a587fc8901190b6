//! A report as comma-separated values: the summary, and every case.

use super::Report;
use crate::csv::field;
use crate::eval::{Distances, Scores, Spread};

/// Values in a row, with a line's end.
pub fn line(cells: &[String]) -> String {
    let mut line = cells.iter().map(|cell| field(cell)).collect::<Vec<_>>().join(",");
    line.push('\n');
    line
}

/// A number, or nothing where there is none.
fn number(value: Option<f64>) -> String {
    value.filter(|v| v.is_finite()).map_or_else(String::new, |v| v.to_string())
}

/// Heads of [`score_cells`].
pub fn score_heads() -> impl Iterator<Item = String> {
    let heads = |name: &str| [name.to_owned(), format!("{name}_low"), format!("{name}_high")];
    Scores::default().all().into_iter().flat_map(move |(name, _)| heads(name))
}

/// Each figure with its interval.
pub fn score_cells(scores: &Scores) -> impl Iterator<Item = String> {
    scores.all().into_iter().flat_map(|(_, figure)| {
        let range = figure.range();
        [figure.value(), range.map(|r| r[0]), range.map(|r| r[1])].map(number)
    })
}

impl Report {
    /// One row for each mode and class, and one for each mode's mean.
    pub fn summary_csv(&self) -> String {
        let mut heads: Vec<String> =
            ["mode", "views", "class", "n_present", "n_absent"].map(String::from).into();
        heads.extend(score_heads());
        for name in ["hd95_px", "centroid_px", "hd95_mm", "centroid_mm"] {
            heads.extend(["mean", "median", "n", "left_out"].map(|what| format!("{name}_{what}")));
        }
        let spread = |spread: Option<Spread>| {
            let count =
                |of: fn(&Spread) -> usize| spread.as_ref().map_or_else(String::new, |s| of(s).to_string());
            let (mean, median) = (spread.and_then(|s| s.mean), spread.and_then(|s| s.median));
            [number(mean), number(median), count(|s| s.n), count(|s| s.left_out)]
        };
        let mut out = line(&heads);
        let listed =
            self.evaluations.iter().flat_map(|e| e.summaries().map(move |found| (e.mode.name(), found)));
        for (mode, (views, summary)) in listed {
            let views = if views.is_empty() { "plain" } else { views };
            for class in &summary.classes {
                let counts = [class.n_present, class.n_absent].map(|n| n.to_string());
                let mut cells = vec![mode.to_owned(), views.to_owned(), class.name.clone()];
                cells.extend(counts);
                cells.extend(score_cells(&class.scores));
                for distances in
                    [Some(class.hd95_px), Some(class.centroid_px), class.hd95_mm, class.centroid_mm]
                {
                    cells.extend(spread(distances));
                }
                out.push_str(&line(&cells));
            }
            let mut cells =
                vec![mode.to_owned(), views.to_owned(), "mean".into(), String::new(), String::new()];
            cells.extend(score_cells(&summary.mean));
            cells.resize(heads.len(), String::new());
            out.push_str(&line(&cells));
        }
        out
    }

    /// One row for each mode, picture and class. Dice and IoU are there where the truth has the class, distances where the mask
    /// has it as well.
    pub fn cases_csv(&self) -> String {
        let heads = [
            "mode",
            "image",
            "view",
            "class",
            "asked",
            "truth_px",
            "mask_px",
            "common_px",
            "regions",
            "dice",
            "iou",
            "hd95_px",
            "centroid_px",
            "hd95_mm",
            "centroid_mm",
            "score",
            "presence",
            "milliseconds",
        ];
        let mut out = line(&heads.map(String::from));
        for evaluation in &self.evaluations {
            for case in &evaluation.cases {
                let o = case.overlap;
                let distances =
                    |d: Option<Distances>| [number(d.map(|d| d.hd95)), number(d.map(|d| d.centroid))];
                let mut cells = vec![
                    evaluation.mode.name().to_owned(),
                    case.image.clone(),
                    case.view.to_string(),
                    self.names.get(case.class).cloned().unwrap_or_default(),
                    case.asked.to_string(),
                    (o.both + o.missed).to_string(),
                    (o.both + o.extra).to_string(),
                    o.both.to_string(),
                    case.regions.to_string(),
                    number(case.dice()),
                    number(case.iou()),
                ];
                cells.extend(distances(case.px));
                cells.extend(distances(case.mm));
                cells.extend(
                    [Some(case.score.into()), Some(case.presence.into()), case.milliseconds].map(number),
                );
                out.push_str(&line(&cells));
            }
        }
        out
    }
}

//! A report as one HTML file that needs nothing else: tables, distributions, and cases as pictures.

use std::fmt::Write as _;

use super::histogram::histogram;
use super::markdown::{named, number, share, spread};
use super::picture::{COLOURS, Picture};
use super::{Evaluation, Report};
use crate::chart::escaped;
use crate::eval::{ClassSummary, Figure, RULES, Scores};

/// How it looks.
const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#1c2024;background:#fff;max-width:1200px;margin:2rem auto;padding:0 1.5rem}\
h1{font-size:1.6rem;margin-bottom:.2rem}h2{margin-top:2.5rem;border-bottom:1px solid #d5dade;padding-bottom:.2rem}\
h3{margin:1.6rem 0 .4rem}.scroll{overflow-x:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.3rem .7rem;text-align:left;vertical-align:top}\
th{border-bottom:2px solid #1c2024;font-weight:600}td{border-bottom:1px solid #e3e6e9}tr.mean td{font-weight:600}\
small{display:block;color:#5b6570;font-weight:400;white-space:nowrap}.mark{color:#a3341f;font-weight:600}\
.cases{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;flex:1 1 300px;max-width:380px}figure img{width:100%;display:block}\
figcaption{font-size:.85rem;padding-top:.3rem}.chart{width:420px;max-width:100%;display:block;margin-bottom:.6rem}\
.chart rect{fill:#5a7fa8}.chart path{stroke:#1c2024;fill:none}.chart .median{stroke:#a3341f;stroke-width:2;stroke-dasharray:4 3}\
.chart text{font-size:10px;text-anchor:middle;fill:#3b444d}.key i{display:inline-block;width:1.4rem;height:.3rem;vertical-align:middle;\
margin:0 .35rem 0 .9rem}code{font-size:.85em;word-break:break-all}";

/// What every page says beside its figures.
const CAUTION: &str =
    "<span class=\"mark\">Research use only. Not a medical device; not for diagnosis.</span>";

/// The beginning of a page, up to its text: the name of its tab, its heading, and what it is about.
pub(in crate::eval) fn begun(tab: &str, heading: &str, about: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{}</h1>\n<p>{}<br>{CAUTION}</p>\n",
        escaped(tab),
        escaped(heading),
        escaped(about),
    )
}

/// How the figures are formed.
pub(in crate::eval) fn rules() -> String {
    let rules: String = RULES.iter().map(|rule| format!("<li>{}</li>\n", escaped(rule))).collect();
    format!("<h2>How the figures are formed</h2>\n<ul>\n{rules}</ul>\n")
}

/// The end of a page.
pub(in crate::eval) const ENDED: &str = "</body></html>\n";

impl Report {
    /// The report with `pictures`, one list for each evaluation and class.
    pub fn html(&self, pictures: &[Vec<Vec<Picture>>]) -> String {
        let predictor = if self.model.ppn.is_some() { " with a prompt predictor" } else { "" };
        let about = format!("{} images, {}{predictor}.", self.n, self.model.family);
        let mut out = begun(&format!("{}: evaluation", self.dataset), &self.dataset, &about);
        for (evaluation, pictures) in self.evaluations.iter().zip(pictures) {
            self.evaluation(&mut out, evaluation, pictures);
        }
        out.push_str(&rules());
        out.push_str("<h2>Settings</h2>\n<div class=\"scroll\"><table>\n");
        for (name, value) in self.facts() {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td><code>{}</code></td></tr>",
                escaped(&name),
                escaped(&value)
            );
        }
        out.push_str("</table></div>\n");
        out + ENDED
    }

    fn evaluation(&self, out: &mut String, evaluation: &Evaluation, pictures: &[Vec<Picture>]) {
        let mode = evaluation.mode;
        let _ = writeln!(out, "<h2>{mode}: {}</h2>", mode.explained());
        self.table_html(out, evaluation);
        if let Some(ms) = evaluation.milliseconds {
            let _ = writeln!(out, "<p>Median time for a picture with all its classes: {ms:.0} ms.</p>");
        }
        let _ = writeln!(out, "<p class=\"key\">In the pictures:{}{}</p>", key(0, "truth"), key(1, "answer"));
        for (class, (summary, pictures)) in evaluation.summary.classes.iter().zip(pictures).enumerate() {
            let _ = writeln!(out, "<h3>{}</h3>", escaped(&summary.name));
            let dice =
                evaluation.cases.iter().filter(|c| c.class == class && c.view == 0).filter_map(|c| c.dice());
            let label = "Histogram of the Dice coefficients of the images that have the class";
            out.push_str(&histogram(&dice.collect::<Vec<_>>(), summary.dice_median, label));
            out.push_str("<div class=\"cases\">\n");
            for picture in pictures {
                figure(out, picture);
            }
            out.push_str("</div>\n");
        }
    }

    fn table_html(&self, out: &mut String, evaluation: &Evaluation) {
        let unit = if self.spacing_mm.is_some() { "mm" } else { "px" };
        out.push_str("<div class=\"scroll\"><table>\n<tr>");
        let shares = ["Dice", "IoU", "Dice micro", "IoU micro", "Sensitivity", "Specificity"];
        let others = ["Presence AUC".to_owned(), format!("HD95, {unit}"), format!("Centroid, {unit}")];
        let heads = ["Class", "With / without"].into_iter().chain(shares);
        for head in heads.chain(others.iter().map(String::as_str)) {
            let _ = write!(out, "<th>{head}</th>");
        }
        out.push_str("</tr>\n");
        for (views, summary) in evaluation.summaries() {
            for class in &summary.classes {
                let several = match class.n_several_regions {
                    0 => String::new(),
                    n => format!("<small>{n} with several regions</small>"),
                };
                let name = escaped(&named(&class.name, views));
                let _ = write!(
                    out,
                    "<tr><td>{name}</td><td>{} / {}{several}</td>",
                    class.n_present, class.n_absent
                );
                scores(out, &class.scores);
                let _ = write!(out, "<td>{}</td>", number(class.presence_auc));
                distances_of(out, class);
                out.push_str("</tr>\n");
            }
            let _ = write!(out, "<tr class=\"mean\"><td>{}</td><td></td>", named("mean", views));
            scores(out, &summary.mean);
            out.push_str("<td></td><td></td><td></td></tr>\n");
        }
        out.push_str("</table></div>\n");
    }

    /// What the figures were made with.
    fn facts(&self) -> Vec<(String, String)> {
        let model = &self.model;
        let mut facts = vec![
            ("weights, SHA-256".to_owned(), model.weights_sha256.clone()),
            ("input".into(), format!("{0}x{0} pixels", model.input_size)),
            ("precision".into(), model.precision.clone()),
            ("device".into(), self.device.clone()),
        ];
        if let Some(ppn) = &model.ppn {
            let sum = ppn.sha256.as_deref().unwrap_or("in the weights");
            facts.push((
                "prompt predictor".into(),
                format!("{}, learned from {}: {sum}", ppn.form, ppn.dataset),
            ));
        }
        if let Some((x, y)) = self.spacing_mm {
            facts.push(("pixel, mm".into(), format!("{x} x {y}")));
        }
        if let Some(mark) = &self.patient {
            facts.push(("patient".into(), format!("the name up to {mark:?}")));
        }
        facts.extend(self.settings.clone());
        facts.extend(
            crate::telemetry::versions().into_iter().map(|(name, version)| (name.to_owned(), version)),
        );
        facts
    }
}

fn key(which: usize, name: &str) -> String {
    let [r, g, b] = COLOURS.get(which).copied().unwrap_or_default();
    format!("<i style=\"background:rgb({r},{g},{b})\"></i>{name}")
}

fn scores(out: &mut String, scores: &Scores) {
    for (_, figure) in scores.all() {
        let _ = write!(out, "<td>{}</td>", cell(figure));
    }
}

fn cell(figure: Figure) -> String {
    let text = share(figure);
    match text.split_once(' ') {
        Some((value, range)) => format!("{value}<small>{range}</small>"),
        None => text,
    }
}

fn distances_of(out: &mut String, class: &ClassSummary) {
    let (hd95, centroid) =
        (class.hd95_mm.unwrap_or(class.hd95_px), class.centroid_mm.unwrap_or(class.centroid_px));
    for distance in [hd95, centroid] {
        let _ = write!(out, "<td>{}<small>mean / median</small></td>", spread(distance));
    }
}

fn figure(out: &mut String, picture: &Picture) {
    let case = &picture.case;
    let hd95 = case.px.map_or_else(|| "nothing drawn".to_owned(), |d| format!("HD95 {:.1} px", d.hd95));
    let name = escaped(&case.image);
    let _ = writeln!(
        out,
        "<figure><img alt=\"{} case, image {name}\" src=\"data:image/png;base64,{}\"><figcaption><b>{}</b>: {name}, Dice {}, \
         IoU {}, {hd95}</figcaption></figure>",
        picture.rank,
        base64(&picture.png),
        picture.rank,
        number(case.dice()),
        number(case.iou()),
    );
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_standard() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }
}

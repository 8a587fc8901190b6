//! How a class's Dice coefficients are distributed, as SVG.

use std::fmt::Write as _;

/// Bars, of a twentieth each.
const BARS: usize = 20;
/// Size of the plot in SVG units, and room below and above it.
const PLOT: (f64, f64) = (400.0, 96.0);
const BELOW: f64 = 18.0;
const ABOVE: f64 = 16.0;

/// A histogram of `values` from 0 to 1 with the number of images over each bar, and a line at the median. `label` says what it
/// shows, for those who do not see it; it must need no escaping.
pub fn histogram(values: &[f64], median: Option<f64>, label: &str) -> String {
    let mut counts = [0usize; BARS];
    for value in values {
        // The bar of 1 is the last one's.
        let bar = ((value * BARS as f64) as usize).min(BARS - 1);
        counts[bar] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let (width, height) = PLOT;
    let step = width / BARS as f64;
    let mut out = format!(
        "<svg class=\"chart\" role=\"img\" aria-label=\"{label}\" viewBox=\"-10 -{ABOVE} {} {}\">",
        width + 20.0,
        height + ABOVE + BELOW,
    );
    for (i, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (x, tall) = (i as f64 * step, height * count as f64 / most);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\">{count}</text>",
            x + 1.0,
            height - tall,
            step - 2.0,
            x + step / 2.0,
            height - tall - 3.0,
        );
    }
    let _ = write!(out, "<path d=\"M0 {height}H{width}\"/>");
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let x = tick * width;
        let _ =
            write!(out, "<path d=\"M{x} {height}v4\"/><text x=\"{x}\" y=\"{}\">{tick}</text>", height + 15.0);
    }
    if let Some(x) = median.map(|m| m * width) {
        let _ = write!(out, "<path class=\"median\" d=\"M{x:.1} 0V{height}\"/>");
    }
    out.push_str("</svg>");
    out
}

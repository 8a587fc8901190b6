//! Panels drawn with plotters.

use std::io;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::{Chart, Mark, Panel, Series};

type Failed = DrawingAreaErrorKind<io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Okabe and Ito's colours (<https://jfly.uni-koeln.de/color/>) in an order in which neighbours differ most. Their yellow is too
/// pale for a line on white; grey stands in for it.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(128, 128, 128),
];
const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(110, 110, 110);
const GRID: RGBColor = RGBColor(228, 228, 228);
/// Heights of text, pixels.
const TITLE: i32 = 20;
const TEXT: i32 = 15;
/// Between rows of the legend, pixels.
const ROW: i32 = 20;
/// Width of a legend's line with the space around it, pixels.
const SWATCH: u32 = 44;
/// A letter's width where it is not known, pixels.
const LETTER: u32 = 9;
/// Room for the numbers beside an axis, pixels.
const NUMBERS: (u32, u32) = (44, 68);
/// Curves of up to so many points show each of them.
const DOTTED: usize = 40;

/// See [`Chart::svg`].
pub(super) fn svg(chart: &Chart, width: u32, height: u32) -> Result<String, Failed> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let titled = if chart.title.is_empty() {
            root.clone()
        } else {
            root.margin(8, 0, 0, 0).titled(&chart.title, text(TITLE, INK))?
        };
        // One width for all panels, so that their axes stand one above the other.
        let names = chart.panels.iter().flat_map(|p| &p.series).map(|s| s.name.chars().count());
        let letters = u32::try_from(names.max().unwrap_or(0)).unwrap_or(u32::MAX);
        let legend = letters.saturating_mul(LETTER).saturating_add(SWATCH).min(width / 3);
        for (panel, area) in chart.panels.iter().zip(titled.split_evenly((chart.panels.len().max(1), 1))) {
            let (plot, side) = area.split_horizontally(width - legend);
            draw_panel(&plot, panel)?;
            draw_legend(&side, &panel.series)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn text(height: i32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", height).into_font().color(&color)
}

fn anchored(height: i32, color: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    text(height, color).pos(Pos::new(h, v))
}

fn draw_panel(area: &Area<'_>, panel: &Panel) -> Result<(), Failed> {
    let (x, y) = (Axis::x(panel), Axis::y(panel));
    let mut plot = ChartBuilder::on(area)
        .margin_top(12)
        .margin_bottom(6)
        .margin_left(6)
        .margin_right(10)
        .x_label_area_size(NUMBERS.0)
        .y_label_area_size(NUMBERS.1)
        .build_cartesian_2d(x.clone(), y.clone())?;
    plot.configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(FAINT)
        .label_style(text(TEXT - 1, INK))
        .axis_desc_style(text(TEXT, INK))
        .x_desc(panel.x_label.as_str())
        .y_desc(panel.y_label.as_str())
        .draw()?;
    // Bands lie below every curve, and a strong curve above the others.
    for (at, series) in panel.series.iter().enumerate() {
        draw_band(&mut plot, (&x, &y), series, Look::of(&panel.series, at))?;
    }
    for mark in &panel.marks {
        draw_mark(&mut plot, (&x, &y), mark)?;
    }
    for strong in [false, true] {
        for (at, series) in panel.series.iter().enumerate().filter(|(_, s)| s.strong == strong) {
            draw_curve(&mut plot, (&x, &y), series, Look::of(&panel.series, at))?;
        }
    }
    Ok(())
}

/// How a curve looks, and its line in the legend.
#[derive(Clone, Copy)]
struct Look {
    color: RGBColor,
    width: u32,
    dashed: bool,
}

impl Look {
    fn of(series: &[Series], at: usize) -> Self {
        if series.get(at).is_some_and(|s| s.strong) {
            return Self { color: INK, width: 3, dashed: false };
        }
        let before = series.iter().take(at).filter(|s| !s.strong).count();
        let color = COLOURS[before % COLOURS.len()];
        Self { color, width: 2, dashed: (before / COLOURS.len()) % 2 == 1 }
    }

    fn style(self) -> ShapeStyle {
        self.color.stroke_width(self.width)
    }
}

fn draw_curve(
    plot: &mut Plot<'_, '_>,
    (x, y): (&Axis, &Axis),
    series: &Series,
    look: Look,
) -> Result<(), Failed> {
    let runs = runs(series.points.iter().map(|p| Some((x.place(p.0)?, y.place(p.1)?))));
    for run in runs {
        if series.points.len() <= DOTTED || run.len() == 1 {
            let dot = |p: &(f64, f64)| Circle::new(*p, look.width + 1, look.color.filled());
            plot.draw_series(run.iter().map(dot))?;
        }
        if look.dashed {
            plot.draw_series(DashedLineSeries::new(run, 6, 4, look.style()))?;
        } else {
            plot.draw_series([PathElement::new(run, look.style())])?;
        }
    }
    Ok(())
}

fn draw_band(
    plot: &mut Plot<'_, '_>,
    (x, y): (&Axis, &Axis),
    series: &Series,
    look: Look,
) -> Result<(), Failed> {
    let band = series.band.iter().flatten();
    for run in runs(band.map(|b| Some((x.place(b.0)?, y.place(b.1)?, y.place(b.2)?)))) {
        let low = run.iter().map(|b| (b.0, b.1));
        let high = run.iter().rev().map(|b| (b.0, b.2));
        plot.draw_series([Polygon::new(low.chain(high).collect::<Vec<_>>(), look.color.mix(0.16))])?;
    }
    Ok(())
}

fn draw_mark(plot: &mut Plot<'_, '_>, (x, y): (&Axis, &Axis), mark: &Mark) -> Result<(), Failed> {
    let Some(at) = x.place(mark.x) else { return Ok(()) };
    let (low, high) = (y.range.start, y.range.end);
    plot.draw_series(DashedLineSeries::new([(at, low), (at, high)], 3, 3, FAINT.stroke_width(1)))?;
    // Towards the middle, where there is room.
    let right = at > (x.range.start + x.range.end) / 2.0;
    let (side, dx) = if right { (HPos::Right, -5) } else { (HPos::Left, 5) };
    let style = anchored(TEXT - 1, INK, side, VPos::Top);
    plot.draw_series([EmptyElement::at((at, high)) + Text::new(mark.text.clone(), (dx, 3), style)])?;
    Ok(())
}

fn draw_legend(area: &Area<'_>, series: &[Series]) -> Result<(), Failed> {
    let rows = (area.dim_in_pixel().1 as i32 / ROW - 2).max(1) as usize;
    let style = anchored(TEXT, INK, HPos::Left, VPos::Center);
    for (at, one) in series.iter().enumerate().take(rows) {
        let y = 12 + ROW / 2 + at as i32 * ROW;
        let (look, ends) = (Look::of(series, at), [(2, y), (26, y)]);
        if look.dashed {
            area.draw(&DashedPathElement::new(ends, 6, 4, look.style()))?;
        } else {
            area.draw(&PathElement::new(ends, look.style()))?;
        }
        area.draw(&Text::new(one.name.clone(), (34, y), style.clone()))?;
    }
    if series.len() > rows {
        let y = 12 + ROW / 2 + rows as i32 * ROW;
        area.draw(&Text::new(format!("and {} more", series.len() - rows), (34, y), style))?;
    }
    Ok(())
}

/// The unbroken stretches between gaps.
fn runs<T>(items: impl Iterator<Item = Option<T>>) -> Vec<Vec<T>> {
    let mut runs = vec![Vec::new()];
    for item in items {
        match (item, runs.last_mut()) {
            (Some(item), Some(run)) => run.push(item),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

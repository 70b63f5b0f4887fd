//! Bars as SVG, to be put into a page as they are.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width of a chart, pixels.
const WIDTH: u32 = 720;
/// Height of one bar with its gap, pixels.
const ROW: u32 = 30;
/// Room for the names of the bars, pixels.
const NAMES: u32 = 190;
/// Room for the half of the last label that stands beyond the axis, pixels.
const AFTER: u32 = 30;
/// Characters of a name.
const NAME: usize = 26;
const BAR: RGBColor = RGBColor(47, 93, 138);
const INK: RGBColor = RGBColor(34, 40, 49);
const PALE: RGBColor = RGBColor(220, 225, 231);

/// One bar for each row, its value written beside it by `show`. Empty for no rows.
pub(super) fn bars(rows: &[(String, f64)], show: &dyn Fn(f64) -> String) -> String {
    let mut svg = String::new();
    if rows.is_empty() || draw(&mut svg, rows, show).is_err() {
        // Drawing into a string fails for no input; the tables say the same.
        return String::new();
    }
    svg
}

fn draw(
    svg: &mut String,
    rows: &[(String, f64)],
    show: &dyn Fn(f64) -> String,
) -> Result<(), Box<dyn Error>> {
    let count = u32::try_from(rows.len())?;
    let root = SVGBackend::with_string(svg, (WIDTH, ROW * count + 50)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = rows.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let most = if most > 0.0 { most * 1.18 } else { 1.0 };
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .margin_right(AFTER)
        .x_label_area_size(28)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..most, 0.0..f64::from(count))?;
    let text = ("sans-serif", 13).into_font().color(&INK);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_labels(5)
        .x_label_formatter(&|value| show(*value))
        .light_line_style(PALE)
        .bold_line_style(PALE)
        .axis_style(PALE)
        .label_style(text.clone())
        .draw()?;
    for (index, (name, value)) in rows.iter().enumerate() {
        // The first row is the topmost.
        let bottom = f64::from(count) - 1.0 - f64::from(u32::try_from(index)?);
        let bar = Rectangle::new([(0.0, bottom + 0.2), (*value, bottom + 0.8)], BAR.filled());
        chart.draw_series([bar])?;
        let (left, middle) = chart.backend_coord(&(0.0, bottom + 0.5));
        let (right, _) = chart.backend_coord(&(*value, bottom + 0.5));
        let name = shorten(name);
        let before = text.clone().pos(Pos::new(HPos::Right, VPos::Center));
        root.draw(&Text::new(name, (left - 8, middle), before))?;
        let after = text.clone().pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(show(*value), (right + 6, middle), after))?;
    }
    root.present()?;
    Ok(())
}

fn shorten(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.to_owned();
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}

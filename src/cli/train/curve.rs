//! The loss curve of a run as SVG.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::training::history::{History, HistoryRow, Validation};

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 540);
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Points = Vec<(f64, f64)>;

/// Draws loss and validation distance over the iterations, and below, if there are labelled parts,
/// their figures.
///
/// # Errors
/// What the drawing library says.
pub(super) fn draw(history: &History) -> Result<String, String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    let drawn = draw_panels(&root, history).and_then(|()| root.present().map_err(text));
    drop(root);
    drawn.map(|()| svg)
}

fn draw_panels(root: &Area<'_>, history: &History) -> Result<(), String> {
    root.fill(&WHITE).map_err(text)?;
    let distances = points(history, |row| row.validation?.distance);
    let losses = [
        ("training loss", points(history, |row| Some(row.loss)), BLUE),
        ("validation distance", distances, RED),
    ];
    let labelled = |figure: fn(&Validation) -> Option<f64>| {
        points(history, move |row| figure(row.validation.as_ref()?))
    };
    let figures = [
        ("part AUROC", labelled(|v| v.labelled.part_auroc), BLUE),
        ("pixel AUROC", labelled(|v| v.labelled.pixel_auroc), GREEN),
        ("AUPRO", labelled(|v| v.labelled.aupro), RED),
    ];
    let end = history.rows.last().map_or(1, |row| row.iteration.max(1)) as f64;
    let has_figures = figures.iter().any(|(_, points, _)| !points.is_empty());
    let (upper, lower) = match has_figures {
        true => root.split_vertically(SIZE.1 * 3 / 5),
        false => (root.clone(), root.clone()),
    };
    draw_panel(&upper, "loss", 0.0..end, &losses)?;
    match has_figures {
        true => draw_panel(&lower, "labelled parts", 0.0..end, &figures),
        false => Ok(()),
    }
}

fn draw_panel(
    area: &Area<'_>,
    name: &str,
    iterations: Range<f64>,
    lines: &[(&str, Points, RGBColor)],
) -> Result<(), String> {
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(iterations, range(lines))
        .map_err(text)?;
    chart
        .configure_mesh()
        .x_desc("iteration")
        .y_desc(name)
        .label_style((FONT, 14))
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|iteration| format!("{iteration:.0}"))
        .draw()
        .map_err(text)?;
    for (name, points, colour) in lines.iter().filter(|(_, points, _)| !points.is_empty()) {
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))
            .map_err(text)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font((FONT, 14))
        .draw()
        .map_err(text)
}

fn points(history: &History, value: impl Fn(&HistoryRow) -> Option<f64>) -> Points {
    let point = |row: &HistoryRow| Some((row.iteration as f64, value(row)?));
    history.rows.iter().filter_map(point).collect()
}

/// The values' range with a margin, at least a little wide; of no values that from 0 to 1.
fn range(lines: &[(&str, Points, RGBColor)]) -> Range<f64> {
    let values = || lines.iter().flat_map(|(_, points, _)| points).map(|p| p.1);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.05).max(1e-3);
    low - margin..high + margin
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::history::LabelledFigures;

    fn history(validation: Option<Validation>) -> History {
        let row = |number: u32| HistoryRow {
            iteration: u64::from(number) * 25,
            loss: 0.5 / f64::from(number),
            learning_rate: 1e-3,
            validation,
        };
        History {
            rows: (1..=8).map(row).collect(),
        }
    }

    #[test]
    fn the_curve_has_axes_with_numbers_and_names() {
        let svg = draw(&history(None)).unwrap();
        for word in ["iteration", "loss", "training loss", "200", "0.5"] {
            assert!(svg.contains(word), "`{word}` is missing");
        }
        assert!(svg.contains("<polyline") && !svg.contains("AUPRO"));
        assert!(!svg.contains("validation distance"));
    }

    #[test]
    fn validation_is_drawn_where_there_was_one() {
        let validation = Validation {
            distance: Some(0.2),
            labelled: LabelledFigures {
                part_auroc: Some(0.9),
                ..LabelledFigures::default()
            },
        };
        let svg = draw(&history(Some(validation))).unwrap();
        assert!(svg.contains("validation distance") && svg.contains("part AUROC"));
        assert!(!svg.contains("AUPRO"));
    }

    #[test]
    fn one_row_or_none_is_no_fault() {
        for rows in [0, 1] {
            let mut history = history(None);
            history.rows.truncate(rows);
            assert!(draw(&history).unwrap().contains("</svg>"));
        }
    }
}

//! Two models' scores as one picture: A's histogram upwards, B's downwards, over the same scores.

use maud::{Markup, html};

use super::table::height;
use crate::comparison::{ClassComparison, Histogram};

/// Width and half the height of the drawing, in its own units.
const WIDTH: f64 = 800.0;
const HALF: f64 = 100.0;

/// The class's histogram with both thresholds; nothing without a score.
pub(super) fn histogram(class: &ClassComparison) -> Markup {
    let Some(histogram) = &class.histogram else {
        return html! { p { "no part that both have has a score" } };
    };
    let most = histogram
        .a
        .iter()
        .chain(&histogram.b)
        .copied()
        .max()
        .unwrap_or(0);
    let threshold =
        |side: &crate::comparison::ClassSide| side.thresholds.first().map(|used| used.threshold);
    let edge = |index: usize| format!("{:.4}", histogram.edges[index]);
    html! {
        svg class="histogram" viewBox=(format!("0 0 {WIDTH} {}", 2.0 * HALF)) preserveAspectRatio="none" role="img" aria-label="score histograms" {
            (bars(histogram, &histogram.a, most, "a"))
            (bars(histogram, &histogram.b, most, "b"))
            line x1="0" x2=(WIDTH) y1=(HALF) y2=(HALF) {}
            (threshold_line(histogram, threshold(&class.a), "a"))
            (threshold_line(histogram, threshold(&class.b), "b"))
        }
        div class="axis" { span { (edge(0)) } span { "score" } span { (edge(histogram.edges.len() - 1)) } }
    }
}

fn bars(histogram: &Histogram, counts: &[u64], most: u64, side: &str) -> Markup {
    let width = WIDTH / counts.len() as f64;
    html! {
        @for (index, count) in counts.iter().enumerate() {
            @if *count > 0 {
                @let tall = HALF * height(*count, most);
                rect class=(side) x=(format!("{:.2}", width * index as f64)) width=(format!("{width:.2}"))
                    y=(format!("{:.2}", if side == "a" { HALF - tall } else { HALF })) height=(format!("{tall:.2}")) {
                    title { (format!("{}: {count} parts from {:.4} to {:.4}", side.to_uppercase(), histogram.edges[index], histogram.edges[index + 1])) }
                }
            }
        }
    }
}

/// A threshold in its model's half.
fn threshold_line(histogram: &Histogram, threshold: Option<f32>, side: &str) -> Markup {
    let Some(threshold) = threshold else {
        return Markup::default();
    };
    let (low, high) = (
        histogram.edges[0],
        histogram.edges[histogram.edges.len() - 1],
    );
    let x = format!("{:.2}", WIDTH * (f64::from(threshold) - low) / (high - low));
    let (top, bottom) = if side == "a" {
        (0.0, HALF)
    } else {
        (HALF, 2.0 * HALF)
    };
    html! {
        line class="threshold" x1=(x) x2=(x) y1=(top) y2=(bottom) {
            title { (format!("threshold of {}: {threshold:.4}", side.to_uppercase())) }
        }
    }
}

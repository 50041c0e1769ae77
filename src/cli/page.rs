//! What the HTML reports have in common: one file with everything inside, for any browser.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::domain::Decision;

const STYLE: &str = include_str!("page.css");

/// A whole page; `style` goes on top of the common one.
pub(super) fn document(title: &str, style: &'static str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(style)) }
            }
            body { (body) }
        }
    }
    .into_string()
}

/// Large figures with their meaning, side by side.
pub(super) fn figures(figures: impl IntoIterator<Item = (String, String)>) -> Markup {
    html! {
        section class="figures" {
            @for (figure, meaning) in figures {
                div class="figure" { strong { (figure) } span { (meaning) } }
            }
        }
    }
}

pub(super) fn badge(decision: Decision) -> Markup {
    html! { span class=(format!("badge {}", decision.as_str())) { (decision.as_str()) } }
}

/// A score, or a dash where there is none.
pub(super) fn number(value: Option<f32>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

/// The bytes as an address that holds them.
pub(super) fn data_uri(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

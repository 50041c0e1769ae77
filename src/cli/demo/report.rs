//! The demo's report: one HTML file with everything inside, to be opened in any browser.

use std::io::Cursor;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ExtendedColorType, ImageFormat};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::account::Account;
use super::scenario::{DemoPart, DemoView};
use super::table::{Tally, fate, truth};
use crate::cli::heat::overlay;
use crate::domain::{Decision, EncodedMap};
use crate::schema::result::{Map, PartResult, View, ViewStatus};
use crate::scoring::maps::decode_levels;

const STYLE: &str = include_str!("report.css");

/// The page.
pub(super) fn page(parts: &[DemoPart], account: &Account, took: Duration) -> String {
    let tally = Tally::of(parts, account);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Panoptes demo report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Panoptes demo" }
                    p { "A simulated line: " (parts.len()) " parts with five cameras each, read from Kafka topics, put together by part ID, scored and published, in " (took.as_secs()) " s." }
                }
                (summary(parts, &tally))
                (explanation(parts, account))
                (overview(parts, account))
                (faults(parts, account))
                section {
                    h2 { "Part by part" }
                    @for part in parts { (card(part, account)) }
                }
            }
        }
    }
    .into_string()
}

fn summary(parts: &[DemoPart], tally: &Tally) -> Markup {
    let figures = [
        (
            format!("{}", parts.len()),
            "parts, each with exactly one result".to_owned(),
        ),
        (
            format!("{} of {}", tally.defective_found, tally.defective),
            "defective parts found (ng)".to_owned(),
        ),
        (
            format!("{} of {}", tally.good_passed, tally.good),
            "good parts passed".to_owned(),
        ),
        (
            format!("{}", tally.review),
            "parts for a person to look at (review)".to_owned(),
        ),
    ];
    html! {
        section class="figures" {
            @for (figure, meaning) in figures {
                div class="figure" { strong { (figure) } span { (meaning) } }
            }
        }
    }
}

fn explanation(parts: &[DemoPart], account: &Account) -> Markup {
    let model = parts
        .iter()
        .find_map(|part| account.result(part))
        .map(|result| format!("{} {}", result.model.name, result.model.version))
        .unwrap_or_default();
    html! {
        section {
            h2 { "How to read this" }
            p {
                "Every view gets an " b { "anomaly map" } ": how far each place is from what the model ("
                (model) ") knows of good parts. A view's " b { "score" } " is the mean of the map's highest hundredth; "
                "a part's score is that of its worst view. At or above its class's " b { "threshold" }
                " a part is " (badge(Decision::Ng)) ", below it " (badge(Decision::Ok))
                "; where a view is missing or unreadable and the rest looks good it is " (badge(Decision::Review)) "."
            }
            p { "The heat shows the map from half the threshold on; boxes are the defect regions that the result names, in pixels of the camera's image. “Truth” is what was rendered; the model never sees it." }
        }
    }
}

fn overview(parts: &[DemoPart], account: &Account) -> Markup {
    html! {
        section {
            h2 { "All parts" }
            div class="scroll" {
                table {
                    thead { tr { th { "part" } th { "class" } th { "decision" } th { "score" } th { "threshold" } th { "worst view" } th { "truth" } } }
                    tbody {
                        @for part in parts {
                            tr {
                                td { a href=(format!("#{}", part.id)) { (part.id) } }
                                td { (part.class.as_str()) }
                                @match account.result(part) {
                                    Some(result) => {
                                        td { (badge(result.decision.into())) }
                                        td class="number" { (number(result.score)) }
                                        td class="number" { (number(result.threshold)) }
                                        td { (result.worst_view().map_or("-", |view| view.view.as_str())) }
                                    }
                                    None => { td colspan="4" { "no result" } }
                                }
                                td { (truth(part)) @if part.fault.is_some() { " (fault played)" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn faults(parts: &[DemoPart], account: &Account) -> Markup {
    html! {
        section {
            h2 { "Faults played on purpose" }
            div class="scroll" {
                table {
                    thead { tr { th { "part" } th { "what was done" } th { "what should become of it" } th { "what became of it" } } }
                    tbody {
                        @for part in parts {
                            @if let Some(fault) = part.fault {
                                tr {
                                    td { a href=(format!("#{}", part.id)) { (part.id) } }
                                    td { (fault.played()) }
                                    td { (fault.expected()) }
                                    td { (fate(part, account)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn card(part: &DemoPart, account: &Account) -> Markup {
    html! {
        article id=(part.id) {
            h3 {
                (part.id) " "
                @if let Some(result) = account.result(part) {
                    (badge(result.decision.into()))
                    small { " score " (number(result.score)) " / threshold " (number(result.threshold)) }
                }
                small { " truth: " (truth(part)) }
            }
            div class="views" {
                @for view in &part.views {
                    @let judged = account.result(part).and_then(|result| {
                        result.views.iter().find(|judged| judged.view == view.name)
                    });
                    (figure(view, judged, account.result(part)))
                }
            }
        }
    }
}

fn figure(view: &DemoView, judged: Option<&View>, result: Option<&PartResult>) -> Markup {
    let status = judged.map(|judged| judged.status);
    let threshold = result.and_then(|result| result.threshold);
    html! {
        figure class=(if status == Some(ViewStatus::Scored) { "scored" } else { "unscored" }) {
            // Nothing is void in SVG: an `image` left open would swallow what lies over it.
            svg viewBox=(format!("0 0 {} {}", view.width, view.height)) role="img" aria-label=(format!("view {}", view.name)) {
                image href=(data_uri("image/jpeg", &view.jpeg)) width=(view.width) height=(view.height) {}
                @if let Some(heat) = judged.and_then(|judged| judged.map.as_ref()).and_then(|map| heat(map, threshold)) {
                    image href=(data_uri("image/png", &heat)) width=(view.width) height=(view.height) preserveAspectRatio="none" {}
                }
                @for region in judged.map_or(&[][..], |judged| &judged.regions) {
                    rect x=(region.x) y=(region.y) width=(region.width) height=(region.height) {}
                }
            }
            figcaption {
                (view.name) " "
                @match status {
                    Some(ViewStatus::Scored) => { (number(judged.and_then(|judged| judged.score))) }
                    Some(ViewStatus::Missing) => { "missing" }
                    Some(ViewStatus::Failed) => { "failed" }
                    None => { "no result" }
                }
                @if view.defect_pixels > 0 { " · shows the defect" }
            }
        }
    }
}

fn badge(decision: Decision) -> Markup {
    html! { span class=(format!("badge {}", decision.as_str())) { (decision.as_str()) } }
}

fn number(value: Option<f32>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

fn data_uri(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

/// The map as a see-through picture; none where it cannot be decoded or nothing is hot.
fn heat(map: &Map, threshold: Option<f32>) -> Option<Vec<u8>> {
    let threshold = threshold.filter(|threshold| *threshold > 0.0)?;
    let levels = decode_levels(&EncodedMap::from(map)).ok()?;
    let mut is_hot = false;
    let mut pixels = Vec::with_capacity(levels.len() * 4);
    for level in levels {
        let pixel = overlay(map.offset + map.scale * f32::from(level), threshold);
        is_hot |= pixel[3] > 0;
        pixels.extend(pixel);
    }
    if !is_hot {
        return None;
    }
    let mut png = Cursor::new(Vec::new());
    let (width, height) = (map.width, map.height);
    let colour = ExtendedColorType::Rgba8;
    image::write_buffer_with_format(&mut png, &pixels, width, height, colour, ImageFormat::Png)
        .ok()?;
    Some(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::result::Region;
    use crate::synthetic::ClassKind;

    #[test]
    fn a_hostile_part_id_stays_text() {
        let part = DemoPart {
            id: "<script>alert(1)</script>\"".into(),
            class: ClassKind::ALL[0],
            defect: None,
            fault: None,
            views: Vec::new(),
            second_image: None,
        };
        let page = page(&[part], &Account::default(), Duration::from_secs(1));
        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;"));
    }

    #[test]
    fn heat_and_boxes_lie_over_the_picture_and_not_within_it() {
        let view = DemoView {
            name: "top",
            jpeg: vec![1],
            width: 4,
            height: 4,
            defect_pixels: 1,
        };
        let judged = View {
            view: "top".into(),
            status: ViewStatus::Scored,
            score: Some(0.2),
            source: None,
            captured_at: None,
            map: None,
            regions: vec![Region {
                x: 1,
                y: 1,
                width: 2,
                height: 2,
                area: 4,
                peak: 0.3,
            }],
            error: None,
        };
        let figure = figure(&view, Some(&judged), None).into_string();
        let (picture, above) = figure.split_once("</image>").unwrap();
        assert!(
            picture.contains("<image") && !picture.contains("<rect"),
            "{figure}"
        );
        assert!(above.contains("<rect"), "{figure}");
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        let page = page(&[], &Account::default(), Duration::ZERO);
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("url("));
    }
}

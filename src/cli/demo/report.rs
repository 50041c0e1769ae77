//! The demo's report: one HTML file with everything inside, to be opened in any browser.

use std::time::Duration;

use maud::{Markup, html};

use super::account::Account;
use super::scenario::{DemoPart, DemoView};
use super::table::{Tally, fate, truth};
use crate::cli::heat::overlay_picture;
use crate::cli::page::{self, badge, data_uri, number};
use crate::domain::{Decision, EncodedMap};
use crate::schema::result::{PartResult, View, ViewStatus};

/// The page.
pub(super) fn page(parts: &[DemoPart], account: &Account, took: Duration) -> String {
    let tally = Tally::of(parts, account);
    let body = html! {
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
    };
    page::document("Panoptes demo report", "", &body)
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
    page::figures(figures)
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
                @if let Some(heat) = judged.and_then(|judged| overlay_picture(&EncodedMap::from(judged.map.as_ref()?), threshold?)) {
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

//! A comparison as one HTML file: the tables, both histograms of each class, and the parts that flipped
//! with their old and new heat maps side by side.

use maud::{Markup, html};

use super::chart::histogram;
use super::details::{Details, FlipDetails, Picture};
use super::notices::described;
use super::table;
use crate::cli::heat::overlay_picture;
use crate::cli::page::{badge, data_uri, document, figures, number};
use crate::comparison::{Comparison, Flip, Judgement, ViewChange, ViewJudgement};
use crate::domain::{Decision, EncodedMap, SourceOffset};
use crate::evaluation::sheet::{Sheet, Side};
use crate::schema::result::{Map, PartResult};

const STYLE: &str = include_str!("page.css");

/// How many flips the page lists; the JSON has them all.
const LISTED_FLIPS: usize = 1000;

/// The page; `notices` are what else a person should know.
pub(super) fn page(found: &Comparison, details: &Details, notices: &[String]) -> String {
    let body = html! {
        header {
            h1 { "What changed" }
            p { span class="key a" {} " " b { "A" } ", decided then: " (described(&found.a)) }
            p { span class="key b" {} " " b { "B" } ", decided now: " (described(&found.b)) }
        }
        (summary(found))
        @if !notices.is_empty() {
            section {
                h2 { "To be known" }
                ul class="notices" { @for notice in notices { li { (notice) } } }
            }
        }
        section { h2 { "Decisions" } (sheet(&table::decisions(found))) }
        section { h2 { "What became of A's decisions" } (sheet(&table::changes(&found.changes))) }
        (scores(found))
        section {
            h2 { "Thresholds" }
            p { "In this table " (table::ADVICE_RULE) "." }
            (sheet(&table::thresholds(found)))
        }
        (flips(found, details))
    };
    document("Panoptes: what changed", STYLE, &body)
}

fn summary(found: &Comparison) -> Markup {
    let changed = |a, b| found.changes.of(a).of(b).to_string();
    let alone = [&found.a, &found.b].map(|side| side.unpaired.only_here.count.to_string());
    let [only_a, only_b] = alone;
    figures([
        (found.joined.to_string(), "parts in both".to_owned()),
        (
            found.flipped.to_string(),
            "of them are decided differently".to_owned(),
        ),
        (
            changed(Decision::Ng, Decision::Ok),
            "were ng and are ok".to_owned(),
        ),
        (
            changed(Decision::Ok, Decision::Ng),
            "were ok and are ng".to_owned(),
        ),
        (only_a, "parts only in A".to_owned()),
        (only_b, "parts only in B".to_owned()),
    ])
}

/// A table of the terminal's as one of the page's; its title is told by the heading over it.
fn sheet(sheet: &Sheet) -> Markup {
    let side = |index: usize| match sheet.columns[index].side {
        Side::Left => "left",
        Side::Right => "right",
    };
    let last = sheet.rows.len().saturating_sub(1);
    html! {
        div class="scroll" {
            table {
                thead {
                    @if sheet.columns.iter().any(|column| !column.group.is_empty()) {
                        tr { @for group in sheet.columns.chunk_by(|one, other| one.group == other.group) {
                            th class="group" colspan=(group.len()) { (group[0].group) }
                        } }
                    }
                    tr { @for (index, column) in sheet.columns.iter().enumerate() {
                        th class=(side(index)) { (column.name) }
                    } }
                }
                tbody {
                    @for (row, cells) in sheet.rows.iter().enumerate() {
                        tr class=[(sheet.has_summary && row == last).then_some("summary")] {
                            @for (index, cell) in cells.iter().enumerate() { td class=(side(index)) { (cell) } }
                        }
                    }
                }
            }
        }
    }
}

fn scores(found: &Comparison) -> Markup {
    html! {
        section {
            h2 { "Scores" }
            p {
                "The parts that both have, A " span class="key a" {} " upwards and B " span class="key b" {}
                " downwards, over the same scores. Heights are logarithmic, so that a few parts beside many can be seen; dashed lines are the thresholds that most results were held against."
            }
            div class="charts" {
                @for class in &found.classes {
                    div { h3 { (table::class_name(class)) } (histogram(class)) }
                }
            }
        }
    }
}

fn flips(found: &Comparison, details: &Details) -> Markup {
    let shown = details.flips().len();
    html! {
        section {
            h2 { "Parts that flipped" }
            @if found.flips.is_empty() {
                p { "None: every part that both have is decided as it was." }
            } @else {
                p {
                    (shown) " of " (found.flips.len()) " are shown with their views, of each kind of change those first whose score moved the most. "
                    "Heat is each model's own map, stretched over the image, from half of its own threshold on; boxes are the regions that its result names. "
                    "Where A judged another record of a view than B, B's image is shown, and A's heat lies over none."
                }
                @for (index, (flip, details)) in found.flips.iter().zip(details.flips()).enumerate() {
                    (card(index, flip, details))
                }
                h3 { "All of them" }
                @if found.flips.len() > LISTED_FLIPS { p { "The first " (LISTED_FLIPS) " of " (found.flips.len()) "; the JSON has them all." } }
                (sheet(&table::flips(found, LISTED_FLIPS)))
            }
        }
    }
}

fn card(index: usize, flip: &Flip, details: &FlipDetails) -> Markup {
    let class = flip.b.class.as_deref().unwrap_or("no class");
    let judged = |name: &str, judged: &Judgement| {
        html! {
            (badge(judged.decision)) " "
            small { (name) ": " (number(judged.score)) " / threshold " (number(judged.threshold)) @if judged.is_partial { ", partial" } " " }
        }
    };
    html! {
        article id=(format!("flip-{index}")) {
            h3 { (flip.line) " / " (flip.part_id) " " small { (class) } }
            p { (judged("A", &flip.a)) " → " (judged("B", &flip.b)) }
            @match &flip.views {
                None => p { "Its results could not be read again." }
                Some(views) => div class="compared" {
                    @for (view_index, view) in views.iter().enumerate() {
                        (compared(&format!("flip-{index}-{view_index}"), view, details))
                    }
                }
            }
        }
    }
}

/// One view: its image, and the heat of both models over it.
fn compared(id: &str, view: &ViewChange, details: &FlipDetails) -> Markup {
    let picture = details.pictures.get(&view.view);
    let other = details.other_record_of_a(&view.view);
    let picture_of_a = picture.filter(|_| other.is_none());
    let map = |side: usize| {
        let result = details.results[side].as_ref()?;
        let judged = result
            .views
            .iter()
            .find(|judged| judged.view == view.view)?;
        Some((judged.map.as_ref()?, result))
    };
    html! {
        div {
            h4 { (view.view) }
            div class="three" {
                (image(id, picture, if other.is_some() { "image that B judged" } else { "image" }))
                (heat("A", (id, picture_of_a), view.a.as_ref(), map(0), other.as_ref()))
                (heat("B", (id, picture), view.b.as_ref(), map(1), None))
            }
        }
    }
}

fn image(id: &str, picture: Option<&Picture>, caption: &str) -> Markup {
    html! {
        figure {
            @match picture {
                Some(picture) => svg viewBox=(format!("0 0 {} {}", picture.width, picture.height)) role="img" aria-label="image" {
                    image id=(id) href=(data_uri("image/jpeg", &picture.bytes)) width=(picture.width) height=(picture.height) {}
                }
                None => svg viewBox="0 0 4 3" role="img" aria-label="no image" {}
            }
            figcaption { @if picture.is_some() { (caption) } @else { "image not shown" } }
        }
    }
}

/// The heat of one side; `other` is the record that it judged, if it is not the one whose image is shown.
fn heat(
    name: &str,
    (id, picture): (&str, Option<&Picture>),
    judged: Option<&ViewJudgement>,
    map: Option<(&Map, &PartResult)>,
    other: Option<&SourceOffset>,
) -> Markup {
    let (width, height) = match (picture, map) {
        (Some(picture), _) => (picture.width, picture.height),
        (None, Some((map, _))) => (map.width, map.height),
        (None, None) => (4, 3),
    };
    let threshold = map.and_then(|(_, result)| result.threshold);
    let heat =
        map.and_then(|(map, result)| overlay_picture(&EncodedMap::from(map), result.threshold?));
    let regions = judged.map_or(&[][..], |judged| &judged.regions);
    html! {
        figure class=(if judged.is_some_and(|judged| judged.score.is_some()) { "scored" } else { "unscored" }) {
            svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(format!("heat of {name}")) {
                @if picture.is_some() { use href=(format!("#{id}")) {} }
                @if let Some(heat) = heat {
                    image href=(data_uri("image/png", &heat)) width=(width) height=(height) preserveAspectRatio="none" {}
                }
                // Regions are in pixels of an image whose size is not known without it.
                @if picture.is_some() {
                    @for region in regions {
                        rect x=(region.x) y=(region.y) width=(region.width) height=(region.height) vector-effect="non-scaling-stroke" {}
                    }
                }
            }
            figcaption {
                b { (name) } " " (table::judged_words(judged))
                @if !regions.is_empty() { ", " (regions.len()) @if regions.len() == 1 { " region" } @else { " regions" } }
                @if let Some(other) = other { ", judged another record: " (other.to_string()) }
                @if map.is_none() { ", no map" } @else if threshold.is_none() { ", no threshold and so no heat" }
            }
        }
    }
}

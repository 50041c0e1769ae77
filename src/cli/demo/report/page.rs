//! The page's HTML.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::picture::{CLEAR_BELOW, FULL_ABOVE, data_uri, heat_color, heat_overlay, mask_outline};
use super::{
    Agreement, FaultEntry, PartEntry, Picture, Report, Truth, ViewEntry, parts_with_pictures,
};
use crate::domain::{Decision, Region, ViewStatus};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(super) fn compose(report: &Report) -> anyhow::Result<String> {
    let shown = parts_with_pictures(&report.parts);
    let mut details = Vec::with_capacity(report.parts.len());
    for (number, (part, &with_pictures)) in report.parts.iter().zip(&shown).enumerate() {
        details.push(part_details(number, part, with_pictures)?);
    }
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Panoptes report: " (report.summary.line) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(report))
                main {
                    (cards(report))
                    (outcome_table(report))
                    (faults(&report.faults))
                    (explanation())
                    // Targets of the filter links; they come first so that style can reach the rest.
                    @for filter in FILTERS { span.filter id=(filter.id) {} }
                    (parts_table(&report.parts))
                    section.details {
                        h2 { "Every part, every view" }
                        (switches())
                        @for part in &details { (part) }
                    }
                }
                footer {
                    "Written by panoptes demo. This page is complete in itself: it loads nothing."
                }
            }
        }
    };
    Ok(page.into_string())
}

/// A link that narrows the list of parts, through the style's `:target` rules.
struct Filter {
    id: &'static str,
    label: &'static str,
}

const FILTERS: [Filter; 6] = [
    Filter {
        id: "all",
        label: "All",
    },
    Filter {
        id: "ng",
        label: "Rejected (ng)",
    },
    Filter {
        id: "ok",
        label: "Passed (ok)",
    },
    Filter {
        id: "review",
        label: "For review",
    },
    Filter {
        id: "defective",
        label: "Really defective",
    },
    Filter {
        id: "disputed",
        label: "Missed or false alarm",
    },
];

fn header(report: &Report) -> Markup {
    let summary = &report.summary;
    let is_sound = summary.lost == 0 && summary.doubled == 0;
    html! {
        header {
            p.brand { "Panoptes" }
            h1 { "What the line saw" }
            p.lead {
                "Line " strong { (summary.line) } ", model " strong { (summary.model) } ". "
                (summary.finished_at)
            }
            @if is_sound {
                p.verdict.good {
                    "✓ Every part is accounted for: " (report.parts.len())
                    " parts, none lost, none doubled."
                }
            } @else {
                p.verdict.bad {
                    "✗ " (summary.lost) " parts lost and " (summary.doubled)
                    " doubled: this must not happen."
                }
            }
        }
    }
}

fn cards(report: &Report) -> Markup {
    let count = |wanted: Agreement| {
        report
            .parts
            .iter()
            .filter(|it| it.agreement() == wanted)
            .count()
    };
    let decided = |wanted: Decision| {
        report
            .parts
            .iter()
            .filter(|it| it.decision == wanted)
            .count()
    };
    let (caught, missed) = (count(Agreement::Caught), count(Agreement::Missed));
    let (passed, alarms) = (count(Agreement::Passed), count(Agreement::FalseAlarm));
    let summary = &report.summary;
    let rate = report.parts.len() as f64 / summary.elapsed.as_secs_f64().max(1e-3);
    html! {
        section.cards aria-label="Summary" {
            (card("Parts", report.parts.len(), html! {
                (decided(Decision::Ok)) " ok, " (decided(Decision::Ng)) " ng, "
                (decided(Decision::Review)) " review"
            }))
            (card("Defects caught", format!("{caught} of {}", caught + missed), html! {
                "of the defective parts that got a decision"
            }))
            (card("False alarms", format!("{alarms} of {}", alarms + passed), html! {
                "of the good parts that got a decision"
            }))
            (card("Speed", format!("{rate:.1} parts/s"), html! {
                (summary.records) " pictures in " (seconds(summary.elapsed))
            }))
            @if let Some(latency) = summary.median_latency {
                (card("Answer after", seconds(latency), html! { "median, from a part's last picture" }))
            }
            (card("Dead letters", summary.dead_letters, html! { "records set aside, with the reason" }))
        }
    }
}

fn card(label: &str, value: impl std::fmt::Display, note: Markup) -> Markup {
    html! {
        div.card {
            p.label { (label) }
            p.value { (value.to_string()) }
            p.note { (note) }
        }
    }
}

/// Truth against decision, by class.
fn outcome_table(report: &Report) -> Markup {
    let mut classes: Vec<&str> = report
        .parts
        .iter()
        .map(|part| part.class.as_str())
        .collect();
    classes.sort_unstable();
    classes.dedup();
    let count = |class: &str, wanted: Agreement| {
        report
            .parts
            .iter()
            .filter(|part| part.class == class && part.agreement() == wanted)
            .count()
    };
    html! {
        section {
            h2 { "Result by class" }
            div.scroll { table.numbers {
                thead { tr {
                    th scope="col" { "Class" }
                    @for column in AGREEMENTS { th scope="col" { (agreement_label(column)) } }
                } }
                tbody { @for class in classes { tr {
                    th scope="row" { (class) }
                    @for column in AGREEMENTS {
                        @let number = count(class, column);
                        td class=(if number == 0 { "zero" } else { agreement_class(column) }) { (number) }
                    }
                } } }
            } }
        }
    }
}

const AGREEMENTS: [Agreement; 5] = [
    Agreement::Passed,
    Agreement::Caught,
    Agreement::FalseAlarm,
    Agreement::Missed,
    Agreement::ForReview,
];

fn faults(faults: &[FaultEntry]) -> Markup {
    html! {
        section {
            h2 { "Faults played on purpose" }
            @if faults.is_empty() {
                p { "None were played in this run." }
            } @else {
                div.scroll { table {
                    thead { tr {
                        th scope="col" { "What was done" }
                        th scope="col" { "Part" }
                        th scope="col" { "View" }
                        th scope="col" { "What should happen" }
                        th scope="col" { "What happened" }
                        th scope="col" { "" }
                    } }
                    tbody { @for fault in faults { tr {
                        td { (fault.played) }
                        td.mono { (fault.part_id) }
                        td { (fault.view) }
                        td { (fault.expected) }
                        td { (fault.outcome) }
                        td { @if fault.is_as_expected {
                            span.badge.ok { "as it should" }
                        } @else {
                            span.badge.ng { "not as it should" }
                        } }
                    } } }
                } }
            }
        }
    }
}

fn explanation() -> Markup {
    html! {
        section.explanation {
            h2 { "What the numbers mean" }
            dl {
                div { dt { "Score" } dd {
                    "How unlike a good part the picture looks. The model has only ever seen good parts; "
                    "a part's score is that of its worst view."
                } }
                div { dt { "Threshold" } dd {
                    "The score from which a part is rejected. Each class has its own, set from good parts alone. "
                    "1.0× is exactly at the threshold."
                } }
                div { dt { "ok" } dd { "All views came and none reached the threshold: the part may go on." } }
                div { dt { "ng" } dd { "At least one view reached the threshold: take the part out." } }
                div { dt { "review" } dd {
                    "A view is missing or unreadable, so no honest ok is possible: a person must look."
                } }
                div { dt { "Heat map" } dd {
                    "Where in the picture the model is surprised. A defect shows only to the cameras that face it, "
                    "so the other views of a bad part rightly stay clear."
                } }
                div { dt { "Dead letter" } dd {
                    "A record that could not be used, kept whole with the reason. Nothing is thrown away in silence."
                } }
            }
            (legend())
        }
    }
}

fn legend() -> Markup {
    let stops: Vec<String> = (0..=10)
        .map(|step| {
            let [red, green, blue, opacity] = heat_color(step as f32 / 10.0);
            let opacity = f32::from(opacity) / 255.0;
            format!("rgb({red} {green} {blue} / {opacity:.2}) {}%", step * 10)
        })
        .collect();
    let threshold = 100.0 * (1.0 - CLEAR_BELOW) / (FULL_ABOVE - CLEAR_BELOW);
    html! {
        div.legend {
            div.ramp style={ "background:linear-gradient(90deg," (stops.join(",")) "),#777" } {
                i style={ "left:" (format!("{threshold:.1}")) "%" } {}
            }
            p.scale {
                span { (CLEAR_BELOW) "× threshold or less" }
                span style={ "left:" (format!("{threshold:.1}")) "%" } { "threshold" }
                span { (FULL_ABOVE) "× or more" }
            }
        }
    }
}

fn parts_table(parts: &[PartEntry]) -> Markup {
    html! {
        section {
            h2 { "Parts" }
            nav.filters aria-label="Show" {
                @for filter in FILTERS { a href={ "#" (filter.id) } { (filter.label) } }
            }
            div.scroll { table.parts {
                thead { tr {
                    th scope="col" { "Part" }
                    th scope="col" { "Class" }
                    th scope="col" { "Decision" }
                    th scope="col" { "Score" }
                    th scope="col" { "Worst view" }
                    th scope="col" { "In truth" }
                    th scope="col" { "" }
                } }
                tbody { @for (number, part) in parts.iter().enumerate() { (part_row(number, part)) } }
            } }
        }
    }
}

fn part_row(number: usize, part: &PartEntry) -> Markup {
    let agreement = part.agreement();
    html! {
        tr.part class=(filter_classes(part)) {
            td.mono { a href={ "#part-" (number) } { (part.part_id) } }
            td { (part.class) }
            td { (decision_badge(part.decision)) }
            td { (score_bar(part.score, part.threshold)) }
            td { @match part.worst_view() { Some(view) => (view.view), None => "–" } }
            td { (truth_label(&part.truth)) }
            td .(agreement_class(agreement)) { (agreement_label(agreement)) }
        }
    }
}

/// Classes that the filter rules in the style look at.
fn filter_classes(part: &PartEntry) -> String {
    let mut classes = vec![format!("is-{}", part.decision.as_str())];
    if part.truth != Truth::Good {
        classes.push("is-defective".to_owned());
    }
    if matches!(part.agreement(), Agreement::Missed | Agreement::FalseAlarm) {
        classes.push("is-disputed".to_owned());
    }
    classes.join(" ")
}

/// A score as a bar that ends at twice the threshold, and in figures.
fn score_bar(score: Option<f32>, threshold: Option<f32>) -> Markup {
    let Some(score) = score else {
        return html! { span.muted { "not scored" } };
    };
    let Some(share) = threshold
        .filter(|&it| it > 0.0)
        .map(|threshold| score / threshold)
    else {
        return html! { (format!("{score:.4}")) };
    };
    let width = (share * 50.0).clamp(0.0, 100.0);
    let title = format!(
        "score {score:.4}, threshold {:.4}",
        threshold.unwrap_or_default()
    );
    html! {
        span.score title=(title) {
            svg.bar viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                rect.track width="100" height="10" {}
                rect class=(if share >= 1.0 { "over" } else { "under" }) width=(format!("{width:.1}")) height="10" {}
                rect.limit x="49.4" width="1.2" height="10" {}
            }
            span.figure { (format!("{share:.2}×")) }
        }
    }
}

fn switches() -> Markup {
    html! {
        fieldset.switches {
            legend { "Show on the pictures" }
            label { input type="checkbox" id="show-heat" checked; " heat map" }
            label { input type="checkbox" id="show-regions" checked; " regions found" }
            label { input type="checkbox" id="show-truth" checked; " true defect (outline)" }
        }
    }
}

fn part_details(number: usize, part: &PartEntry, with_pictures: bool) -> anyhow::Result<Markup> {
    let agreement = part.agreement();
    let mut views = Vec::with_capacity(part.views.len());
    if with_pictures {
        let worst = part.worst_view().map(|view| view.view.as_str());
        for view in &part.views {
            views.push(view_figure(
                view,
                part.threshold,
                worst == Some(view.view.as_str()),
            )?);
        }
    }
    Ok(html! {
        article.part id={ "part-" (number) } class=(filter_classes(part)) {
            h3 {
                span.mono { (part.part_id) } " "
                span.muted { (part.class) } " "
                (decision_badge(part.decision)) " "
                (score_bar(part.score, part.threshold))
                span.truth .(agreement_class(agreement)) {
                    (agreement_label(agreement)) ": in truth " (truth_label(&part.truth))
                }
            }
            @if with_pictures {
                div.views { @for view in &views { (view) } }
            } @else {
                p.muted { "Pictures left out to keep this page small." }
            }
        }
    })
}

fn view_figure(view: &ViewEntry, threshold: Option<f32>, is_worst: bool) -> anyhow::Result<Markup> {
    let drawn = match (&view.picture, view.status) {
        (Some(picture), ViewStatus::Scored) => Some(drawn_picture(view, picture, threshold)?),
        _ => None,
    };
    Ok(html! {
        figure.worst[is_worst] {
            @match drawn {
                Some(picture) => (picture),
                None => div.absent { (absence(view.status)) },
            }
            figcaption {
                span { (view.view) @if is_worst { " · worst" } }
                span { (view_score(view, threshold)) }
            }
        }
    })
}

fn absence(status: ViewStatus) -> &'static str {
    match status {
        ViewStatus::Missing => "this view never came",
        ViewStatus::Failed => "this picture could not be read",
        ViewStatus::Scored => "scored; no picture kept",
    }
}

fn view_score(view: &ViewEntry, threshold: Option<f32>) -> String {
    match (view.score, threshold.filter(|&it| it > 0.0)) {
        (Some(score), Some(threshold)) => format!("{:.2}×", score / threshold),
        (Some(score), None) => format!("{score:.4}"),
        (None, _) => "–".to_owned(),
    }
}

fn drawn_picture(
    view: &ViewEntry,
    picture: &Picture,
    threshold: Option<f32>,
) -> anyhow::Result<Markup> {
    let heat = match &view.map {
        Some(map) => Some(heat_overlay(map, threshold)?),
        None => None,
    };
    let outline = match &view.mask {
        Some(mask) => mask_outline(mask, picture.width, picture.height)?,
        None => None,
    };
    Ok(html! {
        div.picture {
            img src=(data_uri("image/jpeg", &picture.jpeg)) alt={ "camera picture, view " (view.view) };
            @if let Some(uri) = heat { img.heat src=(uri) alt=""; }
            @if let Some(uri) = outline { img.mask src=(uri) alt=""; }
            @if !view.regions.is_empty() {
                svg.regions viewBox={ "0 0 " (picture.width) " " (picture.height) } preserveAspectRatio="none" {
                    @for region in &view.regions { (region_box(region)) }
                }
            }
        }
    })
}

fn region_box(region: &Region) -> Markup {
    html! {
        rect x=(region.x) y=(region.y) width=(region.width) height=(region.height) {
            title { (format!("area {} pixels, peak score {:.4}", region.area, region.peak)) }
        }
    }
}

fn decision_badge(decision: Decision) -> Markup {
    html! { span.badge .(decision.as_str()) { (decision.as_str()) } }
}

fn truth_label(truth: &Truth) -> Markup {
    html! {
        @match truth {
            Truth::Good => "good",
            Truth::Defective(kind) => (kind),
        }
    }
}

fn agreement_label(agreement: Agreement) -> &'static str {
    match agreement {
        Agreement::Passed => "rightly passed",
        Agreement::Caught => "caught",
        Agreement::FalseAlarm => "false alarm",
        Agreement::Missed => "missed",
        Agreement::ForReview => "for review",
    }
}

fn agreement_class(agreement: Agreement) -> &'static str {
    match agreement {
        Agreement::Passed | Agreement::Caught => "right",
        Agreement::FalseAlarm | Agreement::Missed => "wrong",
        Agreement::ForReview => "open",
    }
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.1} s")
    }
}

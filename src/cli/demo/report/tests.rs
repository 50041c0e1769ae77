use super::*;

const HOSTILE: &str = "<script>alert(\"1\")</script>&'";

fn view(name: &str, score: f32) -> ViewEntry {
    ViewEntry {
        view: name.to_owned(),
        status: ViewStatus::Scored,
        score: Some(score),
        picture: Some(Picture {
            jpeg: vec![0xff, 0xd8, 0xff],
            width: 8,
            height: 4,
        }),
        map: Some(AnomalyMap {
            width: 2,
            height: 2,
            values: vec![0.1, 0.2, 0.3, 0.9],
        }),
        regions: vec![Region {
            x: 4,
            y: 2,
            width: 4,
            height: 2,
            area: 8,
            peak: 0.9,
        }],
        mask: Some((0..32).map(|index| index == 20).collect()),
    }
}

fn entry(id: &str, decision: Decision, truth: Truth) -> PartEntry {
    let mut missing = view("left", 0.0);
    missing.status = ViewStatus::Missing;
    missing.score = None;
    missing.picture = None;
    PartEntry {
        part_id: id.to_owned(),
        class: "gear".to_owned(),
        truth,
        decision,
        score: Some(0.9),
        threshold: Some(0.6),
        views: vec![view("top", 0.9), missing],
    }
}

fn report() -> Report {
    Report {
        parts: vec![
            entry("gear-1", Decision::Ok, Truth::Good),
            entry("gear-2", Decision::Ng, Truth::Defective("dent".to_owned())),
            entry(HOSTILE, Decision::Review, Truth::Good),
        ],
        faults: vec![FaultEntry {
            played: "corrupt JPEG".to_owned(),
            part_id: HOSTILE.to_owned(),
            view: "top".to_owned(),
            expected: "dead letter `decode`".to_owned(),
            outcome: "dead letter `decode`".to_owned(),
            is_as_expected: true,
        }],
        ..Report::default()
    }
}

/// Checks that tags open and close in order; void elements need no end.
fn assert_balanced(page: &str) {
    const VOID: [&str; 4] = ["meta", "img", "input", "br"];
    let body = page.split_once("<!DOCTYPE html>").expect("a doctype").1;
    let mut open: Vec<&str> = Vec::new();
    for piece in body.split('<').skip(1) {
        let tag = piece.split_once('>').expect("a closed tag").0;
        let name = tag
            .trim_start_matches('/')
            .split_whitespace()
            .next()
            .unwrap_or_default();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "wrong end tag near `{tag}`");
        } else if !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[test]
fn escapes_hostile_part_ids() {
    let page = compose_report(&report()).unwrap();
    assert!(!page.contains("<script"), "a part ID became markup");
    assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)"));
}

#[test]
fn tags_open_and_close_in_order() {
    assert_balanced(&compose_report(&report()).unwrap());
}

#[test]
fn shows_every_part_once_in_the_table_and_once_in_detail() {
    let page = compose_report(&report()).unwrap();
    for number in 0..3 {
        assert_eq!(page.matches(&format!("id=\"part-{number}\"")).count(), 1);
        assert_eq!(page.matches(&format!("href=\"#part-{number}\"")).count(), 1);
    }
    assert_eq!(page.matches("gear-2").count(), 2);
}

#[test]
fn loads_nothing_and_runs_nothing() {
    let page = compose_report(&report()).unwrap();
    for forbidden in [
        "http://",
        "https://",
        "<link",
        "@import",
        "url(",
        "onclick",
        "javascript:",
    ] {
        assert!(!page.contains(forbidden), "page contains `{forbidden}`");
    }
}

#[test]
fn an_empty_run_makes_a_page_too() {
    assert_balanced(&compose_report(&Report::default()).unwrap());
}

#[test]
fn leaves_out_pictures_of_good_parts_first() {
    let mut parts: Vec<PartEntry> = (0..10)
        .map(|_| entry("p", Decision::Ok, Truth::Good))
        .collect();
    parts.push(entry("n", Decision::Ng, Truth::Good));
    for part in &mut parts {
        part.views[0].picture.as_mut().unwrap().jpeg = vec![0; 1_000_000];
    }
    let shown = parts_with_pictures(&parts);
    assert!(shown[10], "a rejected part lost its pictures");
    assert_eq!(shown.iter().filter(|&&it| it).count(), 4);
}

#[test]
fn a_map_of_the_wrong_size_is_an_error() {
    let mut report = report();
    report.parts[0].views[0].map = Some(AnomalyMap {
        width: 3,
        height: 3,
        values: vec![0.0],
    });
    let error = compose_report(&report).unwrap_err().to_string();
    assert!(error.contains("3x3"), "{error}");
}

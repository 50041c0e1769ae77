use std::slice::from_ref;

use clap::Parser;

use super::details::{FlipDetails, Picture};
use super::*;
use crate::comparison::testing::{compare, result};
use crate::comparison::view_changes;
use crate::domain::{AnomalyMap, MapCodec};
use crate::kafka::client::BusSettings;
use crate::schema::result::{Decision, Map, PartResult, Region, View, ViewStatus};
use crate::scoring::{MapSettings, encode_map};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    compare: CompareArguments,
}

/// One part that was good and is bad: the view `left` failed then, `right` is missing in both.
fn flipped() -> [PartResult; 2] {
    let mut a = result("p-1", 1, Decision::Ok, 0.125);
    let top = a.views[0].clone();
    a.views.push(View {
        view: "left".to_owned(),
        status: ViewStatus::Failed,
        score: None,
        error: Some("jpeg ends early".to_owned()),
        ..top.clone()
    });
    a.views.push(View {
        view: "right".to_owned(),
        status: ViewStatus::Missing,
        score: None,
        source: None,
        ..top
    });
    a.is_partial = true;
    let mut b = a.clone();
    b.decision = Decision::Ng;
    b.score = Some(0.75);
    b.model.version = "2".to_owned();
    let map = AnomalyMap {
        width: 2,
        height: 1,
        values: vec![0.0, 0.75],
    };
    let settings = MapSettings {
        codec: MapCodec::Zstd,
        side: 8,
    };
    b.views[0].score = Some(0.75);
    b.views[0].map = Some(Map::from(&encode_map(&map, settings)));
    b.views[0].regions = vec![Region {
        x: 10,
        y: 20,
        width: 30,
        height: 40,
        area: 900,
        peak: 0.75,
    }];
    [a, b]
}

/// The comparison of one part's results, read again; the view `top` has its image.
fn compared(results: [PartResult; 2]) -> (Comparison, Details) {
    let [a, b] = results;
    let mut found = compare(from_ref(&a), from_ref(&b), &[]);
    found.flips[0].views = Some(view_changes(&a, &b));
    let picture = Picture {
        bytes: vec![0xff, 0xd8, 0xff],
        width: 640,
        height: 480,
    };
    let details = FlipDetails {
        results: [Some(a), Some(b)],
        pictures: [("top".to_owned(), picture)].into(),
    };
    (found, Details::of(vec![details]))
}

fn page_of(results: [PartResult; 2]) -> String {
    let (found, details) = compared(results);
    page::page(&found, &details, &notices::notices(&found))
}

#[test]
fn the_terminal_shows_who_decided_what_and_which_parts_flipped() {
    let (found, _) = compared(flipped());
    let text = table::text(&found, &notices::notices(&found));
    let expected = "\
A: a, 1 result by demo 1
B: b, 1 result by demo 2
parts in both: 1, decided differently: 1

decisions

         A                 B                 both
class    ok  ng  review    ok  ng  review    parts  flipped
-----------------------------------------------------------
bolt      1   0       0     0   1       0        1        1
";
    assert!(text.starts_with(expected), "{text}");
    for line in [
        "ok         0   1       0",
        "bolt   B       1  0.7500  0.7500   0.7500  |                                       █|",
        "bolt      0   0       0.5000         0         0            -         -         -    none: too few, 10 of each needed",
        "line1  p-1   bolt     ok  0.1250     0.5000    ng  0.7500     0.5000    top 0.1250 > 0.7500, left failed (jpeg ends early) in both, right missing in both",
    ] {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }
}

#[test]
fn the_page_shows_image_and_heat_of_both_and_what_has_none() {
    let page = page_of(flipped());
    // The image is there once and drawn three times.
    assert_eq!(page.matches("data:image/jpeg").count(), 1);
    assert_eq!(page.matches("<use href=\"#flip-0-0\">").count(), 2);
    // Only B has a map.
    assert_eq!(page.matches("data:image/png").count(), 1);
    assert!(page.contains(r#"<th class="group" colspan="3">A</th>"#));
    assert!(page.contains(r#"<rect x="10" y="20" width="30" height="40""#));
    assert_eq!(
        page.matches("failed (jpeg ends early)").count(),
        3,
        "{page}"
    );
    assert_eq!(page.matches("image not shown").count(), 2);
}

#[test]
fn heat_lies_over_no_image_that_its_model_did_not_judge() {
    let [mut a, b] = flipped();
    a.views[0].map = b.views[0].map.clone();
    a.views[0].regions = b.views[0].regions.clone();
    let same = page_of([a.clone(), b.clone()]);
    assert_eq!(same.matches("<use href=\"#flip-0-0\">").count(), 2);
    assert_eq!(same.matches("<rect x=\"10\" y=\"20\"").count(), 2);
    assert!(!same.contains("judged another record:"));

    // The part's first image under `first_wins`, where B took the last.
    a.views[0].source.as_mut().unwrap().offset = 0;
    let page = page_of([a, b]);
    // Both maps are shown, and the image under B's alone.
    assert_eq!(page.matches("data:image/png").count(), 2);
    assert_eq!(page.matches("<use href=\"#flip-0-0\">").count(), 1);
    assert_eq!(page.matches("<rect x=\"10\" y=\"20\"").count(), 1);
    assert_eq!(page.matches("judged another record: cam[0]@0").count(), 1);
    assert!(page.contains("<figcaption>image that B judged</figcaption>"));
}

#[test]
fn names_of_others_stay_text_and_reach_no_terminal_as_commands() {
    let hostile = "<script>alert(1)</script>\"\x1b[2J";
    let results = flipped().map(|mut result| {
        result.part_id = hostile.to_owned();
        result.line = hostile.to_owned();
        result.class = Some(hostile.to_owned());
        result.model.name = hostile.to_owned();
        result.views[0].view = hostile.to_owned();
        result.views[1].error = Some(hostile.to_owned());
        result
    });
    let (mut found, details) = compared(results);
    found.b.topic = hostile.to_owned();
    found.class_differs.first = vec![hostile.to_owned()];
    found.class_differs.count = 2;
    let notices = notices::notices(&found);
    let text = table::text(&found, &notices);
    assert!(!text.contains('\x1b'), "{text:?}");
    let page = page::page(&found, &details, &notices);
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;"));
}

#[test]
fn the_page_asks_for_nothing_from_outside() {
    let page = page_of(flipped());
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("url("));
}

#[test]
fn what_stands_beside_the_tables_is_told_in_sentences() {
    let results = |parts: &[&str]| -> Vec<PartResult> {
        let numbered = parts.iter().zip(0..);
        numbered
            .map(|(part, at)| result(part, at, Decision::Ok, 0.1))
            .collect()
    };
    let mut b = results(&["p-0"]);
    b[0].threshold = Some(0.25);
    b.push(result("p-1", 70, Decision::Ok, 0.1));
    let found = compare(&results(&["p-0", "p-1", "p-2"]), &b, &[]);
    assert_eq!(
        notices::notices(&found),
        [
            "parts only in A: 1 (line1/p-2)",
            "parts of A whose ID B has from other records: 1 (line1/p-1)",
            "parts of B whose ID A has from other records: 1 (line1/p-1)",
            "B judged class `bolt` by several thresholds: 0.5 (1), 0.25 (1)",
        ]
    );
    let found = compare(&results(&["p-0"]), &results(&["p-0", "p-1"]), &[]);
    let expected = "parts only in B, 1 from before A's first part or after its last: 1 (line1/p-1)";
    assert_eq!(notices::notices(&found), [expected]);
    assert!(table::text(&found, &[]).contains("decided differently: 0"));
}

#[test]
fn numbers_are_told_though_results_cannot_be_read_again_and_a_file_not_be_written() {
    let [a, b] = flipped();
    let mut found = compare(from_ref(&a), from_ref(&b), &[]);
    let refused = ("no.such.property".to_owned(), "1".to_owned());
    let topics = ComparedTopics {
        bus: BusSettings {
            brokers: "kafka:9092".to_owned(),
            properties: [refused].into(),
        },
        a: "a".into(),
        b: "b".into(),
        wanted: [Wanted::default(), Wanted::default()],
        classes: Vec::new(),
    };
    let folder = tempfile::tempdir().unwrap();
    let [json, page] = ["x.json", "x.html"].map(|name| folder.path().join(name));
    let mut report = ReportArguments {
        save_json: Some(json.clone()),
        html: Some(page.clone()),
        pictures: 5,
    };
    let written = report.write(&mut found, &topics);
    written.files.unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    for side in ["a", "b"] {
        let absent = format!("flipped parts that could not be read again: 1 of topic `{side}`");
        assert!(written.text.contains(&absent), "{}", written.text);
        assert!(page.contains(&absent), "{page}");
    }
    assert!(page.contains("Its results could not be read again."));

    // A disk that is full.
    report.html = Some("/dev/full".into());
    std::fs::remove_file(&json).unwrap();
    let written = report.write(&mut found, &topics);
    let error = format!("{:#}", written.files.unwrap_err());
    assert!(error.starts_with("cannot write `/dev/full`: "), "{error}");
    assert!(
        written
            .text
            .contains("parts in both: 1, decided differently: 1")
    );
    assert_eq!(std::fs::read_to_string(&json).unwrap(), to_json(&found));
    report.save_json = Some("/dev/full".into());
    let error = report.write(&mut found, &topics).files.unwrap_err();
    assert_eq!(
        error.to_string().matches("cannot write").count(),
        2,
        "{error}"
    );
}

#[test]
fn nothing_in_common_is_an_error_that_tells_what_there_is() {
    let a = [result("p", 1, Decision::Ok, 0.1)];
    let b = [result("p", 2, Decision::Ok, 0.1)];
    let error = check_common(&compare(&a, &b, &[])).unwrap_err().to_string();
    assert_eq!(
        error,
        "expected results of the same parts in `a` and `b`, found none: `a` has 1 result; \
         `b` has 1 result; and no two of them from the same records"
    );
    assert!(check_common(&compare(&a, &a, &[])).is_ok());
    let none = compare(&a, &a, &["nut".to_owned()]);
    let error = check_common(&none).unwrap_err().to_string();
    assert!(
        error.contains("found none: `a` has 1 result, none of a class that is compared; `b` "),
        "{error}"
    );
}

#[test]
fn flags_are_read_as_they_are_written() {
    let line =
        "compare a b --class bolt --class nut --line l --pictures 3 -X security.protocol=ssl";
    let read = Command::try_parse_from(line.split(' ')).unwrap().compare;
    assert_eq!((read.class.len(), read.line.len()), (2, 1));
    assert_eq!(read.report.pictures, 3);
    assert!(Command::try_parse_from(["compare", "a"]).is_err());
}

use clap::Parser;

use super::*;
use crate::domain::{AnomalyMap, Header, MapCodec, Reject, RejectReason, SourceOffset, Timestamp};
use crate::schema::dead_letter;
use crate::schema::result::{
    Map, Model, PartResult, Region, Run, RunKind, Source, Timing, View, ViewStatus,
};
use crate::scoring::{MapSettings, encode_map};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    tail: TailArguments,
}

fn args(more: &[&str]) -> TailArguments {
    let all = ["tail", "--topic", "line1.results"].iter().chain(more);
    Command::try_parse_from(all).unwrap().tail
}

fn view(name: &str, score: f32) -> View {
    let map = AnomalyMap {
        width: 2,
        height: 1,
        values: vec![0.0, score],
    };
    let settings = MapSettings {
        codec: MapCodec::Png,
        side: 8,
    };
    View {
        view: name.to_owned(),
        status: ViewStatus::Scored,
        score: Some(score),
        source: Some(Source {
            topic: name.to_owned(),
            partition: 0,
            offset: 3,
        }),
        captured_at: Some(0),
        map: Some(Map::from(&encode_map(&map, settings))),
        regions: vec![Region {
            x: 0,
            y: 0,
            width: 1,
            height: 1,
            area: 1,
            peak: score,
        }],
        error: None,
    }
}

fn result() -> PartResult {
    PartResult {
        schema_version: 1,
        result_id: "0".repeat(32),
        part_id: "p-0001".to_owned(),
        line: "line1".to_owned(),
        class: Some("bolt".to_owned()),
        decision: Decision::Ng,
        score: Some(0.8125),
        threshold: Some(0.5),
        is_partial: false,
        is_simulated: false,
        model: Model {
            name: "demo".to_owned(),
            version: "1".to_owned(),
        },
        views: vec![view("top", 0.25), view("left", 0.8125)],
        duplicates: Vec::new(),
        maps_dropped: false,
        traceparent: None,
        timing: Timing {
            first_view_at: 1_700_000_000_000,
            last_view_at: 1_700_000_000_000,
            scored_at: 1_700_000_000_250,
        },
        run: Run {
            kind: RunKind::Live,
            id: "panoptes".to_owned(),
        },
    }
}

fn record(value: Vec<u8>, headers: Vec<Header>) -> Record {
    Record {
        source: SourceOffset {
            topic: "line1.results".into(),
            partition: 1,
            offset: 5,
        },
        generation: 0,
        key: Some(b"p-0001".to_vec()),
        value: Some(value),
        headers,
        timestamp: Some(Timestamp(1_700_000_000_000)),
        lease: None,
    }
}

fn printed(more: &[&str], record: &Record) -> String {
    let mut output = Vec::new();
    print_record(&args(more), record, &mut output, Colours::None).unwrap();
    String::from_utf8(output).unwrap()
}

fn printed_result(more: &[&str], result: &PartResult) -> String {
    printed(more, &record(result.to_msgpack().unwrap(), vec![]))
}

#[test]
fn prints_one_line_a_part() {
    assert_eq!(
        printed_result(&[], &result()),
        "2023-11-14T22:13:20.250Z  p-0001            bolt        ng         0.8125 / 0.5000   \
         left        2 regions\n"
    );
}

#[test]
fn names_what_was_not_as_it_should_be() {
    let mut result = result();
    result.decision = Decision::Review;
    result.is_partial = true;
    result.maps_dropped = true;
    result.is_simulated = true;
    result.run.id = "r-1".to_owned();
    result.duplicates = vec!["top".to_owned()];
    result.score = None;
    result.threshold = None;
    result.class = None;
    result.views[0].regions.clear();
    result.views[1] = View {
        status: ViewStatus::Failed,
        score: None,
        map: None,
        regions: Vec::new(),
        error: Some("jpeg ends early".to_owned()),
        ..result.views[1].clone()
    };
    let line = printed_result(&[], &result);
    assert!(line.contains("review"), "{line}");
    assert!(line.contains("- / -"), "{line}");
    assert!(
        line.ends_with(
            "failed left (jpeg ends early); duplicate top; partial; maps dropped; replay r-1\n"
        ),
        "{line}"
    );
}

#[test]
fn reads_json_results_too() {
    let json = record(result().to_json().unwrap(), vec![]);
    assert_eq!(printed(&[], &json), printed_result(&[], &result()));
}

#[test]
fn prints_only_the_chosen_decisions() {
    assert_eq!(printed_result(&["--decision", "ok"], &result()), "");
    let chosen = ["--decision", "ok", "--decision", "ng"];
    assert!(!printed_result(&chosen, &result()).is_empty());
}

#[test]
fn prints_whole_results_as_json() {
    let line = printed_result(&["--json"], &result());
    assert_eq!(
        PartResult::from_json(line.trim_end().as_bytes()).unwrap(),
        result()
    );
}

#[test]
fn prints_dead_letters() {
    let reject = Reject {
        record: record(b"x".to_vec(), vec![]).into(),
        reason: RejectReason::Decode,
        error: "jpeg ends early".to_owned(),
    };
    let letter = dead_letter::outbound_dead_letter(&reject, &"dead".into());
    let letter = record(b"x".to_vec(), letter.headers);
    let line = printed(&[], &letter);
    assert!(
        line.contains("dead      decode: jpeg ends early (line1.results[1]@5)"),
        "{line}"
    );
    assert_eq!(printed(&["--decision", "ng"], &letter), "");
    assert!(printed(&["--json"], &letter).contains(r#""reason":"decode""#));
}

#[test]
fn goes_on_past_what_it_cannot_read() {
    let line = printed(&[], &record(b"hello".to_vec(), vec![]));
    assert!(line.contains("unread"), "{line}");
    assert!(line.contains("line1.results[1]@5"), "{line}");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let mut result = result();
    result.part_id = "p\x1b[2J\n".to_owned();
    let line = printed_result(&[], &result);
    assert!(!line.contains('\x1b'), "{line:?}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn colours_surround_the_decision_alone() {
    let mut output = Vec::new();
    let record = record(result().to_msgpack().unwrap(), vec![]);
    print_record(&args(&[]), &record, &mut output, Colours::Ansi).unwrap();
    let text = String::from_utf8(output).unwrap();
    let plain = text.replace("\x1b[1;31m", "").replace("\x1b[0m", "");
    assert_eq!(plain, printed_result(&[], &result()));
    assert_ne!(plain, text);
}

#[test]
fn saves_each_map_as_png() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    printed_result(&["--save-maps", path], &result());
    let heat = image::open(folder.path().join("p-0001/left.png"))
        .unwrap()
        .into_rgb8();
    assert_eq!(heat.dimensions(), (2, 1));
    assert_eq!(
        (heat[(0, 0)].0, heat[(1, 0)].0),
        ([0, 0, 0], [255, 255, 255])
    );
    printed_result(&["--save-maps", path, "--map-colours", "grey"], &result());
    let grey = image::open(folder.path().join("p-0001/top.png")).unwrap();
    assert_eq!(grey.color(), image::ColorType::L8);
}

#[test]
fn reads_the_last_results_unless_told_otherwise() {
    let arguments = args(&["-X", "security.protocol=ssl"]);
    let settings = reader_settings(&arguments, arguments.bus.settings().unwrap());
    assert_eq!(settings.from, ReadFrom::Last(10));
    assert_eq!(settings.until, ReadUntil::EndOfTopic);
    assert_eq!(settings.bus.properties["security.protocol"], "ssl");
    let arguments = args(&["--from-beginning", "--follow"]);
    let settings = reader_settings(&arguments, arguments.bus.settings().unwrap());
    assert_eq!(settings.from, ReadFrom::Beginning);
    assert_eq!(settings.until, ReadUntil::Forever);
}

#[test]
fn refuses_a_property_without_a_value() {
    let parsed = Command::try_parse_from(["tail", "--topic", "t", "-X", "nonsense"]);
    let error = parsed.map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("a property is `NAME=VALUE`, found `nonsense`"),
        "{error}"
    );
}

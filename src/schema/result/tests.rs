use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::{
    ClassName, EncodedMap, MapCodec, OutboundRecord, PartKey, SourceOffset, Timestamp, ViewId,
};

fn model() -> ModelIdentity {
    ModelIdentity {
        name: "demo".to_owned(),
        version: "1.2.0".to_owned(),
    }
}

fn live() -> Run {
    Run {
        kind: RunKind::Live,
        id: "panoptes".to_owned(),
    }
}

fn replay(id: &str) -> Run {
    Run {
        kind: RunKind::Replay,
        id: id.to_owned(),
    }
}

fn scored_view(name: &str, offset: i64) -> ViewVerdict {
    ViewVerdict {
        view: ViewId::from(name),
        status: domain::ViewStatus::Scored,
        score: Some(0.25),
        source: Some(SourceOffset {
            topic: "line1.cam".into(),
            partition: 3,
            offset,
        }),
        captured_at: Some(Timestamp(1_700_000_000_000)),
        map: Some(EncodedMap {
            codec: MapCodec::Png,
            width: 2,
            height: 2,
            scale: 0.001,
            offset: 0.1,
            data: vec![0, 1, 254, 255],
        }),
        regions: vec![domain::Region {
            x: 10,
            y: 20,
            width: 30,
            height: 40,
            area: 900,
            peak: 0.7,
        }],
        error: None,
    }
}

fn missing_view(name: &str) -> ViewVerdict {
    ViewVerdict {
        view: ViewId::from(name),
        status: domain::ViewStatus::Missing,
        score: None,
        source: None,
        captured_at: None,
        map: None,
        regions: Vec::new(),
        error: None,
    }
}

fn verdict() -> PartVerdict {
    PartVerdict {
        part: PartKey {
            line: "line1".into(),
            part: "p-1".into(),
        },
        class: Some(ClassName::from("bolt")),
        decision: domain::Decision::Review,
        score: Some(0.25),
        threshold: Some(0.5),
        is_partial: true,
        closed_by: crate::domain::CloseCause::StreamTime,
        views: vec![scored_view("top", 7), missing_view("left")],
        duplicates: Vec::new(),
        maps_dropped: false,
        first_view_at: Timestamp(1_700_000_000_000),
        last_view_at: Timestamp(1_700_000_000_120),
        scored_at: Timestamp(1_700_000_000_250),
        traceparent: None,
    }
}

fn result() -> PartResult {
    PartResult::new(&verdict(), &model(), &live())
}

fn id(verdict: &PartVerdict) -> String {
    result_id(verdict, &model(), &live())
}

fn record(verdict: &PartVerdict, format: ResultFormat) -> OutboundRecord {
    let context = ResultContext {
        topic: "line1.results".into(),
        format,
        run: live(),
    };
    outbound_result(verdict, &model(), &context).unwrap()
}

fn header(record: &OutboundRecord, name: &str) -> Option<String> {
    let header = record.headers.iter().find(|header| header.name == name)?;
    Some(String::from_utf8(header.value.clone()?).unwrap())
}

#[test]
fn json_has_the_promised_keys_and_types() {
    let value: serde_json::Value = serde_json::from_slice(&result().to_json().unwrap()).unwrap();
    let expected = json!({
        "schema_version": 1,
        "result_id": id(&verdict()),
        "part_id": "p-1",
        "line": "line1",
        "class": "bolt",
        "decision": "review",
        "score": 0.25,
        "threshold": 0.5,
        "is_partial": true,
        "is_simulated": false,
        "model": { "name": "demo", "version": "1.2.0" },
        "views": [
            {
                "view": "top",
                "status": "scored",
                "score": 0.25,
                "source": { "topic": "line1.cam", "partition": 3, "offset": 7 },
                "captured_at": 1_700_000_000_000_i64,
                "map": {
                    "codec": "png", "width": 2, "height": 2,
                    "scale": 0.001, "offset": 0.1, "data": "AAH+/w==",
                },
                "regions": [{ "x": 10, "y": 20, "width": 30, "height": 40, "area": 900, "peak": 0.7 }],
            },
            {
                "view": "left", "status": "missing", "score": null, "source": null,
                "captured_at": null, "map": null, "regions": [],
            },
        ],
        "timing": {
            "first_view_at": 1_700_000_000_000_i64,
            "last_view_at": 1_700_000_000_120_i64,
            "scored_at": 1_700_000_000_250_i64,
        },
        "run": { "kind": "live", "id": "panoptes" },
    });
    assert_eq!(value, expected);
}

#[test]
fn msgpack_is_a_map_with_bytes_as_bin() {
    let bytes = result().to_msgpack().unwrap();
    // fixmap of 14 or map16, then the first key as a string.
    assert_eq!(bytes[0] & 0xf0, 0x80, "found {:#x}", bytes[0]);
    let bin = [0xc4, 4, 0, 1, 254, 255];
    assert!(bytes.windows(bin.len()).any(|window| window == bin));
}

#[test]
fn optional_additions_appear_when_there_is_something_to_say() {
    let mut verdict = verdict();
    verdict.duplicates = vec!["top".into()];
    verdict.maps_dropped = true;
    verdict.traceparent = Some("00-aa-bb-01".to_owned());
    verdict.views[1].status = domain::ViewStatus::Failed;
    verdict.views[1].error = Some("jpeg ends early".to_owned());
    let result = PartResult::new(&verdict, &model(), &live());
    let value: serde_json::Value = serde_json::from_slice(&result.to_json().unwrap()).unwrap();
    assert_eq!(value["duplicates"], json!(["top"]));
    assert_eq!(value["maps_dropped"], json!(true));
    assert_eq!(value["traceparent"], json!("00-aa-bb-01"));
    assert_eq!(value["views"][1]["error"], json!("jpeg ends early"));
    assert_eq!(value["views"][1]["status"], json!("failed"));
}

#[test]
fn comes_back_from_either_format() {
    for format in [ResultFormat::Msgpack, ResultFormat::Json] {
        let bytes = result().to_bytes(format).unwrap();
        assert_eq!(PartResult::from_bytes(&bytes).unwrap(), result());
    }
}

#[test]
fn skips_fields_of_a_later_version() {
    let mut value = serde_json::to_value(result()).unwrap();
    value["schema_version"] = json!(2);
    value["station"] = json!("s-4");
    value["views"][0]["map"] = json!(null);
    let json = PartResult::from_json(value.to_string().as_bytes()).unwrap();
    assert_eq!(json.schema_version, 2);
    let msgpack = PartResult::from_msgpack(&rmp_serde::to_vec_named(&value).unwrap()).unwrap();
    assert_eq!(msgpack, json);
}

#[test]
fn refuses_what_is_no_result() {
    for bytes in [&b""[..], b"{", b"{}", b"\x80", b"hello", b"[1,2]", b"\xc1"] {
        assert!(PartResult::from_bytes(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn the_id_is_the_documented_hash() {
    // Made with Python's hashlib from the documented fields.
    assert_eq!(id(&verdict()), "9264d2123643c9a134db11e54e1c3a31");
    assert_eq!(
        result_id(&verdict(), &model(), &replay("r-1")),
        "b3e114e03e0ff296abaed10d4890f048"
    );
}

#[test]
fn the_id_depends_on_part_records_model_and_replay_alone() {
    let original = id(&verdict());
    let mut other = verdict();
    other.decision = domain::Decision::Ng;
    other.scored_at = Timestamp(0);
    other.views.push(scored_view("right", 9));
    assert_eq!(
        id(&other),
        original,
        "a later offset of the same partition changes nothing"
    );
    let second_group = Run {
        id: "other".to_owned(),
        ..live()
    };
    assert_eq!(result_id(&verdict(), &model(), &second_group), original);

    other.views.push(scored_view("back", 6));
    let mut other_part = verdict();
    other_part.part.part = "p-2".into();
    let mut other_line = verdict();
    other_line.part.line = "line2".into();
    let newer = ModelIdentity {
        version: "1.3.0".to_owned(),
        ..model()
    };
    let ids = [
        original,
        id(&other),
        id(&other_part),
        id(&other_line),
        result_id(&verdict(), &newer, &live()),
        result_id(&verdict(), &model(), &replay("a")),
        result_id(&verdict(), &model(), &replay("b")),
    ];
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
}

#[test]
fn a_replay_differs_from_live_only_in_id_and_run() {
    let live = result();
    let replayed = PartResult::new(&verdict(), &model(), &replay("r-1"));
    assert!(replayed.is_simulated);
    let as_live = PartResult {
        result_id: live.result_id.clone(),
        is_simulated: false,
        run: live.run.clone(),
        ..replayed
    };
    assert_eq!(as_live, live);
}

#[test]
fn the_record_is_a_cloud_event_with_headers_to_filter_by() {
    let mut verdict = verdict();
    verdict.traceparent = Some("00-aa-bb-01".to_owned());
    let record = record(&verdict, ResultFormat::Msgpack);
    assert_eq!(record.topic.as_str(), "line1.results");
    assert_eq!(record.key.as_deref(), Some(&b"p-1"[..]));
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", &id(&verdict)),
        ("ce_source", "/panoptes/line1"),
        ("ce_type", "panoptes.result.v1"),
        ("ce_subject", "p-1"),
        ("ce_time", "2023-11-14T22:13:20.250Z"),
        ("ce_dataschema", "urn:panoptes:schema:result:v1:msgpack"),
        ("content-type", "application/msgpack"),
        ("decision", "review"),
        ("class", "bolt"),
        ("model-version", "1.2.0"),
        ("closed-by", "stream_time"),
        ("traceparent", "00-aa-bb-01"),
    ];
    assert_eq!(record.headers.len(), expected.len());
    for (name, value) in expected {
        assert_eq!(header(&record, name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn headers_without_a_value_are_left_out() {
    let mut verdict = verdict();
    verdict.class = None;
    verdict.scored_at = Timestamp(i64::MAX);
    let record = record(&verdict, ResultFormat::Json);
    for name in ["class", "traceparent", "ce_time"] {
        assert_eq!(header(&record, name), None, "{name}");
    }
    assert_eq!(
        header(&record, "content-type").as_deref(),
        Some("application/json")
    );
}

#[test]
fn the_source_is_a_uri_whatever_the_line_is_called() {
    let mut verdict = verdict();
    verdict.part.line = "Halle 3/Süd".into();
    let record = record(&verdict, ResultFormat::Json);
    assert_eq!(
        header(&record, "ce_source").as_deref(),
        Some("/panoptes/Halle%203%2FS%C3%BCd")
    );
}

proptest! {
    #[test]
    fn any_map_and_text_comes_back_from_both_formats(
        data in prop::collection::vec(any::<u8>(), 0..300),
        part in ".{0,40}",
        score in prop::option::of(-1e30f32..1e30),
        error in prop::option::of(".{0,40}"),
    ) {
        let mut verdict = verdict();
        verdict.part.part = part.as_str().into();
        verdict.score = score;
        verdict.views[0].error = error;
        if let Some(map) = &mut verdict.views[0].map {
            map.data = data;
        }
        let result = PartResult::new(&verdict, &model(), &live());
        for format in [ResultFormat::Msgpack, ResultFormat::Json] {
            let bytes = result.to_bytes(format).unwrap();
            prop_assert_eq!(&PartResult::from_bytes(&bytes).unwrap(), &result);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(PartResult::from_bytes(&bytes).is_err());
    }
}

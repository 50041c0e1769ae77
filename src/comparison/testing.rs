//! Results and comparisons for tests.

use super::{Comparison, Side, Wanted};
use crate::domain::{CloseCause, Header, Record, SourceOffset};
use crate::schema::result::{
    CLOSED_BY, Decision as Word, Model, PartResult, Run, RunKind, Source, Timing, View, ViewStatus,
};

/// A part of class `bolt` with one view, made from the record at this offset of `cam`.
pub(crate) fn result(part: &str, record: i64, decision: Word, score: f32) -> PartResult {
    PartResult {
        schema_version: 1,
        result_id: format!("{part}-{record}"),
        part_id: part.to_owned(),
        line: "line1".to_owned(),
        class: Some("bolt".to_owned()),
        decision,
        score: Some(score),
        threshold: Some(0.5),
        is_partial: false,
        is_simulated: false,
        model: Model {
            name: "demo".to_owned(),
            version: "1".to_owned(),
        },
        views: vec![View {
            view: "top".to_owned(),
            status: ViewStatus::Scored,
            score: Some(score),
            source: Some(Source {
                topic: "cam".to_owned(),
                partition: 0,
                offset: record,
            }),
            captured_at: Some(record),
            map: None,
            regions: Vec::new(),
            error: None,
        }],
        duplicates: Vec::new(),
        maps_dropped: false,
        traceparent: None,
        timing: Timing {
            first_view_at: record,
            last_view_at: record,
            scored_at: record,
        },
        run: Run {
            kind: RunKind::Live,
            id: "panoptes".to_owned(),
        },
    }
}

/// A record of a results topic.
pub(crate) fn record(offset: i64, value: Option<Vec<u8>>) -> Record {
    Record {
        source: SourceOffset {
            topic: "results".into(),
            partition: 0,
            offset,
        },
        generation: 0,
        key: None,
        value,
        headers: Vec::new(),
        timestamp: None,
        lease: None,
    }
}

/// The side that these results are, one behind the other.
pub(crate) fn side_of(results: &[PartResult]) -> Side {
    let mut side = Side::default();
    for (result, offset) in results.iter().zip(0..) {
        side.add(&record(offset, Some(result.to_msgpack().unwrap())));
    }
    side
}

/// Topics `a` and `b` with these results, compared.
pub(crate) fn compare(a: &[PartResult], b: &[PartResult], classes: &[String]) -> Comparison {
    let [a, b] = [("a", a), ("b", b)].map(|(topic, all)| (topic.to_owned(), side_of(all)));
    Comparison::new(a, b, classes)
}

/// As [`side_of`], each record with the cause for which its part was closed, as results are published.
pub(crate) fn side_closed_by(results: &[(PartResult, CloseCause)], wanted: Wanted) -> Side {
    let mut side = Side::of(wanted);
    for ((result, cause), offset) in results.iter().zip(0..) {
        let mut record = record(offset, Some(result.to_msgpack().unwrap()));
        record.headers.push(Header {
            name: CLOSED_BY.to_owned(),
            value: Some(cause.as_str().into()),
        });
        side.add(&record);
    }
    side
}

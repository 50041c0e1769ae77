//! A line of two views a part, as the stages see it, for the benches of single stages.

use std::sync::Arc;

use panoptes::decode::{EnvelopeDecoder, EnvelopeSettings, ImageLimits};
use panoptes::domain::{
    AnomalyMap, CloseCause, Decision, EncodedMap, Group, Header, LineId, MapCodec, MapFootprint,
    ModelIdentity, PartKey, PartVerdict, Record, SourceOffset, Timestamp, Topic, TopicPartition,
    View, ViewId, ViewStatus, ViewVerdict,
};
use panoptes::reassembly::{Event, ExpectedViews, ReassemblyBuffer, ReassemblySettings};
use panoptes::schema::result::{Run, RunKind};

/// The cameras.
pub(crate) const VIEWS: [&str; 2] = ["top", "left"];
/// The assignment of all partitions.
pub(crate) const GENERATION: u64 = 1;
const EPOCH_MS: i64 = 1_767_225_600_000;
/// From one part to the next.
const TAKT_MS: i64 = 200;

/// The topic of a camera.
pub(crate) fn topic(view: usize) -> Topic {
    Topic::new(format!("line1.cam.{}", VIEWS[view]))
}

/// The only partition of a camera's topic.
pub(crate) fn partition(view: usize) -> TopicPartition {
    TopicPartition {
        topic: topic(view),
        partition: 0,
    }
}

/// When a part is on the line.
pub(crate) fn time_of(part: usize) -> Timestamp {
    Timestamp(EPOCH_MS + part as i64 * TAKT_MS)
}

/// A record as the poll thread copies it out of the fetch buffer.
pub(crate) fn record(part: usize, view: usize, image: &[u8]) -> Record {
    let header = |name: &str, value: &str| Header {
        name: name.to_owned(),
        value: Some(value.into()),
    };
    Record {
        source: SourceOffset {
            topic: topic(view),
            partition: 0,
            offset: part as i64,
        },
        generation: GENERATION,
        key: Some(format!("part-{part:09}").into_bytes()),
        value: Some(image.to_vec()),
        headers: vec![
            header("content-type", "image/jpeg"),
            header("class", "bolt"),
        ],
        timestamp: Some(time_of(part)),
        lease: None,
    }
}

/// The decoder of the line.
pub(crate) fn decoder() -> EnvelopeDecoder {
    EnvelopeDecoder::new(EnvelopeSettings {
        default_line: LineId::from("line1"),
        default_class: None,
        limits: ImageLimits::default(),
    })
}

/// A sound record's view.
pub(crate) fn decode(decoder: &EnvelopeDecoder, record: Record, now: Timestamp) -> View {
    decoder
        .decode(Arc::new(record), now)
        .expect("the envelope is sound")
}

/// The buffer of the line.
pub(crate) fn buffer() -> ReassemblyBuffer {
    let buffer = ReassemblyBuffer::new(ReassemblySettings {
        expected: ExpectedViews::for_all(VIEWS.map(ViewId::from)),
        ..ReassemblySettings::default()
    });
    buffer.assign(&[partition(0), partition(1)], GENERATION, time_of(0));
    buffer
}

/// The group that an event closed.
pub(crate) fn closed(events: Vec<Event>) -> Option<Group> {
    events.into_iter().find_map(|event| match event {
        Event::Closed(group, _) => Some(group),
        _ => None,
    })
}

/// A map of so many pixels a side, smooth and never twice the same row.
pub(crate) fn map(side: usize) -> AnomalyMap {
    let value = |pixel: usize| {
        let (x, y) = ((pixel % side) as f32, (pixel / side) as f32);
        0.1 + 0.05 * (0.07 * x).sin() * (0.05 * y).cos()
    };
    AnomalyMap {
        width: side,
        height: side,
        values: (0..side * side).map(value).collect(),
    }
}

/// What a map of the whole image covers.
pub(crate) fn footprint() -> MapFootprint {
    MapFootprint {
        x: 0.0,
        y: 0.0,
        width: 1024.0,
        height: 1024.0,
    }
}

/// The model that results name.
pub(crate) fn model() -> ModelIdentity {
    ModelIdentity {
        name: "demo".to_owned(),
        version: "3".to_owned(),
    }
}

/// The run that results name.
pub(crate) fn run() -> Run {
    Run {
        kind: RunKind::Live,
        id: "bench".to_owned(),
    }
}

/// A verdict on five views, with maps of some 8 KB.
pub(crate) fn verdict() -> PartVerdict {
    let view = |number: usize| ViewVerdict {
        view: ViewId::new(format!("view{number}")),
        status: ViewStatus::Scored,
        score: Some(0.1),
        source: Some(SourceOffset {
            topic: topic(0),
            partition: 0,
            offset: number as i64,
        }),
        captured_at: Some(time_of(number)),
        map: Some(EncodedMap {
            codec: MapCodec::Png,
            width: 128,
            height: 128,
            scale: 0.001,
            offset: 0.0,
            data: vec![7; 8 << 10],
        }),
        regions: Vec::new(),
        error: None,
    };
    PartVerdict {
        part: PartKey {
            line: LineId::from("line1"),
            part: "part-1".into(),
        },
        class: Some("bolt".into()),
        decision: Decision::Ok,
        score: Some(0.1),
        threshold: Some(0.2),
        is_partial: false,
        closed_by: CloseCause::Complete,
        views: (0..5).map(view).collect(),
        duplicates: Vec::new(),
        maps_dropped: false,
        first_view_at: time_of(0),
        last_view_at: time_of(4),
        scored_at: time_of(5),
        traceparent: None,
    }
}

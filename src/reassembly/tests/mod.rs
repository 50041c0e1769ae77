//! Tests of the buffer, and what they build views with.

mod adversity;
mod assignment;
mod concurrency;
mod fleet;
mod fleet_costs;
mod grouping;
mod late;
mod pressure;
mod properties;
mod read_order;
mod simulation;
mod time;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::group::fingerprint_of;
use super::*;
use crate::domain::{
    ClassName, CloseCause, Group, ImageEncoding, LineId, PartId, Record, RejectReason,
    ScoringOrder, TimeoutPolicy, Topic, View,
};

/// Wall time at the start of every test, in epoch milliseconds; so that event times can be small
/// offsets around it.
const START: i64 = 1_700_000_000_000;

fn at(millis: i64) -> Timestamp {
    Timestamp(START + millis)
}

fn partition(topic: &str, number: i32) -> TopicPartition {
    TopicPartition {
        topic: Topic::from(topic),
        partition: number,
    }
}

/// A view to be built; topic and view have the same name unless said otherwise.
#[derive(Clone, Debug)]
struct Shot {
    part: &'static str,
    line: &'static str,
    view: &'static str,
    topic: &'static str,
    partition: i32,
    offset: i64,
    generation: u64,
    captured_at: i64,
    written_at: Option<i64>,
    class: Option<&'static str>,
    count: Option<usize>,
    bytes: Vec<u8>,
}

/// The view `view` of part `part`, at event time 0, generation 1, partition 0.
fn shot(part: &'static str, view: &'static str, offset: i64) -> Shot {
    Shot {
        part,
        line: "line1",
        view,
        topic: view,
        partition: 0,
        offset,
        generation: 1,
        captured_at: 0,
        written_at: None,
        class: None,
        count: None,
        bytes: format!("image of {part} from {view}").into_bytes(),
    }
}

impl Shot {
    fn taken_at(self, millis: i64) -> Self {
        Self {
            captured_at: millis,
            ..self
        }
    }

    fn written_at(self, millis: i64) -> Self {
        Self {
            written_at: Some(millis),
            ..self
        }
    }

    fn class(self, class: &'static str) -> Self {
        Self {
            class: Some(class),
            ..self
        }
    }

    fn count(self, count: usize) -> Self {
        Self {
            count: Some(count),
            ..self
        }
    }

    fn bytes(self, bytes: &str) -> Self {
        Self {
            bytes: bytes.into(),
            ..self
        }
    }

    fn build(self, budget: Option<&MemoryBudget>) -> View {
        let length = self.bytes.len();
        let mut record = Record {
            source: SourceOffset {
                topic: Topic::from(self.topic),
                partition: self.partition,
                offset: self.offset,
            },
            generation: self.generation,
            key: Some(self.part.into()),
            value: Some(self.bytes),
            headers: Vec::new(),
            timestamp: self.written_at.map(at),
            lease: None,
        };
        record.lease = budget.map(|budget| budget.lease(record.size_bytes()));
        View {
            record: Arc::new(record),
            part: PartKey {
                line: LineId::from(self.line),
                part: PartId::from(self.part),
            },
            view: ViewId::from(self.view),
            class: self.class.map(ClassName::from),
            expected_views: self.count,
            captured_at: at(self.captured_at),
            traceparent: None,
            encoding: ImageEncoding::Png,
            image: 0..length,
        }
    }
}

fn views(names: &[&'static str]) -> Vec<ViewId> {
    names.iter().copied().map(ViewId::from).collect()
}

/// Views top, left and right; timeout 5 s, idle after 2 s, wall grace 3 s, reuse after 60 s.
fn settings() -> ReassemblySettings {
    ReassemblySettings {
        expected: ExpectedViews::for_all(views(&["top", "left", "right"])),
        idle_after: Duration::from_secs(2),
        wall_grace: Some(Duration::from_secs(3)),
        reuse_after: Duration::from_secs(60),
        ..ReassemblySettings::default()
    }
}

/// A name for each part of a log.
fn part_name(index: usize) -> &'static str {
    static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let names = (0..1_000).map(|index| &*format!("p{index}").leak());
        names.collect()
    });
    NAMES[index]
}

const TOPICS: [&str; 3] = ["top", "left", "right"];

/// A buffer that has partitions 0 and 1 of the three camera topics, under generation 1.
fn buffer(settings: ReassemblySettings) -> ReassemblyBuffer {
    let buffer = ReassemblyBuffer::new(settings);
    let partitions: Vec<_> = TOPICS
        .iter()
        .flat_map(|topic| [partition(topic, 0), partition(topic, 1)])
        .collect();
    buffer.assign(&partitions, 1, at(0));
    buffer
}

/// A buffer that has partition 0 of the three camera topics, under generation 1.
fn small_buffer(settings: ReassemblySettings) -> ReassemblyBuffer {
    let buffer = ReassemblyBuffer::new(settings);
    buffer.assign(&TOPICS.map(|topic| partition(topic, 0)), 1, at(0));
    buffer
}

/// Gives a view to the buffer, at wall time = event time.
fn accept(buffer: &ReassemblyBuffer, shot: Shot) -> Vec<Event> {
    let now = at(shot.captured_at.max(0));
    buffer.accept(shot.build(None), now)
}

/// Moves stream time by views of other parts, one a topic. Returns what that closed.
fn move_stream_time(buffer: &ReassemblyBuffer, millis: i64, part: &'static str) -> Vec<Event> {
    TOPICS
        .iter()
        .flat_map(|topic| {
            let offset = 1_000_000 + millis;
            accept(buffer, shot(part, topic, offset).taken_at(millis))
        })
        .filter(
            |event| !matches!(event, Event::Closed(group, _) if group.part.part.as_str() == part),
        )
        .collect()
}

/// Tells the buffer that a partition is read to its end, and lets it look at the clock.
fn reach_end(buffer: &ReassemblyBuffer, partition: &TopicPartition, now: Timestamp) -> Vec<Event> {
    buffer.end_of_partition(partition, now);
    buffer.tick(now)
}

fn closed(events: &[Event]) -> &Group {
    match events {
        [Event::Closed(group, _)] => group,
        other => panic!("expected one closed group, found {other:?}"),
    }
}

fn rejected(events: &[Event]) -> &Reject {
    match events {
        [Event::Rejected(reject)] => reject,
        other => panic!("expected one reject, found {other:?}"),
    }
}

fn names(group: &Group) -> Vec<&str> {
    group.views.iter().map(|view| view.view.as_str()).collect()
}

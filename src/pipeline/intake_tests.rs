//! The stage between a poll thread and stages that the test plays.

use std::ops::Range;
use std::time::Duration;

use super::*;
use crate::decode::{EnvelopeSettings, ImageLimits};
use crate::domain::{
    LineId, Record, RejectReason, SourceOffset, TimeoutPolicy, TopicPartition, ViewId,
};
use crate::pipeline::output::tests::output;
use crate::reassembly::{ExpectedViews, ReassemblySettings};

const PATIENCE: Duration = Duration::from_secs(20);

/// The channels around a running intake.
struct Bench {
    events: mpsc::Sender<ConsumerEvent>,
    in_flight: InFlight,
    publications: mpsc::Receiver<Publication<Receipt>>,
    _groups: mpsc::Receiver<BatchMessage>,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
}

/// An intake before channels that the test plays.
struct Parts {
    intake: Intake,
    groups: mpsc::Receiver<BatchMessage>,
    publications: mpsc::Receiver<Publication<Receipt>>,
}

fn parts(reassembly: ReassemblySettings) -> Parts {
    let (groups, to_batch) = mpsc::channel(8);
    let (publications, to_publish) = mpsc::channel(8);
    let (consumer, _) = ConsumerHandle::to_test();
    let intake = Intake {
        decoder: EnvelopeDecoder::new(EnvelopeSettings {
            default_line: LineId::from("line1"),
            default_class: None,
            limits: ImageLimits::default(),
        }),
        reassembly: Arc::new(ReassemblyBuffer::new(reassembly)),
        budget: MemoryBudget::new(1 << 20),
        output: output(),
        in_flight: InFlight::default(),
        consumer,
        poll: SharedPollReport::default(),
        readiness: Readiness::default(),
        groups,
        publications,
        generation: 0,
        counted: ReassemblyCounts::default(),
        keyed: KeyedTopics::default(),
        told_mismatch: None,
        selection: Selection::default(),
    };
    Parts {
        intake,
        groups: to_batch,
        publications: to_publish,
    }
}

fn record(offset: i64, key: &str, timestamp: i64) -> Record {
    Record {
        source: SourceOffset {
            topic: "cam".into(),
            partition: 0,
            offset,
        },
        generation: 1,
        key: Some(key.as_bytes().to_vec()),
        value: Some(b"\xff\xd8\xff image".to_vec()),
        headers: Vec::new(),
        timestamp: Some(Timestamp(timestamp)),
        lease: None,
    }
}

impl Bench {
    fn start() -> Self {
        let (events, to_take_in) = mpsc::channel(8);
        let Parts {
            intake,
            groups,
            publications,
        } = parts(ReassemblySettings::default());
        Self {
            events,
            in_flight: intake.in_flight.clone(),
            publications,
            _groups: groups,
            running: tokio::spawn(intake.run(to_take_in)),
        }
    }

    /// Revokes a partition; the receiver hears when the work in flight is published.
    async fn revoke(&self) -> std::sync::mpsc::Receiver<()> {
        let (done, answered) = std::sync::mpsc::channel();
        let partitions = vec![TopicPartition {
            topic: "cam".into(),
            partition: 0,
        }];
        self.events
            .send(ConsumerEvent::Revoked {
                partitions,
                is_all: true,
                done,
            })
            .await
            .unwrap();
        answered
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_after_the_drain_waits_for_what_is_in_flight() {
    let bench = Bench::start();
    let token = bench.in_flight.enter();
    bench.events.send(ConsumerEvent::Drained).await.unwrap();
    let answered = bench.revoke().await;
    bench.running.await.unwrap().unwrap();
    assert_eq!(
        answered.recv_timeout(Duration::from_millis(20)),
        Err(std::sync::mpsc::RecvTimeoutError::Timeout),
    );
    drop(token);
    answered.recv_timeout(PATIENCE).unwrap();
    // The one that comes when the consumer closes.
    let answered = Bench::start_drained().await.revoke().await;
    answered.recv_timeout(PATIENCE).unwrap();
}

impl Bench {
    async fn start_drained() -> Self {
        let bench = Self::start();
        bench.events.send(ConsumerEvent::Drained).await.unwrap();
        bench
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_whole_is_a_dead_letter() {
    let mut bench = Bench::start();
    let reject = Reject {
        record: Arc::new(record(3, "part", 0)),
        reason: RejectReason::Decode,
        error: "expected header names in UTF-8".to_owned(),
    };
    let event = ConsumerEvent::Unreadable(reject);
    bench.events.send(event).await.unwrap();
    let publication = bench.publications.recv().await.unwrap();
    assert_eq!(publication.records[0].record.topic.as_str(), "dead");
    assert_eq!(publication.finishes[0].source.offset, 3);
}

#[test]
fn groups_that_end_in_dead_letters_are_counted_too() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let views = ["cam", "side"].map(ViewId::from);
    let mut settings = ReassemblySettings {
        expected: ExpectedViews::for_all(views),
        ..ReassemblySettings::default()
    };
    settings.line.on_timeout = TimeoutPolicy::DeadLetter;
    let mut intake = parts(settings).intake;
    let now = Timestamp(1_000_000);
    metrics::with_local_recorder(&recorder, || {
        let assigned = ConsumerEvent::Assigned {
            partitions: vec![record(0, "", 0).source.topic_partition()],
            generation: 1,
            count: Some(1),
            closed: Vec::new(),
        };
        intake.apply(assigned, now);
        intake.apply(ConsumerEvent::Record(record(0, "first", 0)), now);
        let later = record(1, "second", 900_000);
        let events = intake.apply(ConsumerEvent::Record(later), now);
        let [Event::Expired { rejects, .. }] = &events[..] else {
            panic!("expected one part, found {events:?}");
        };
        assert_eq!(rejects[0].reason, RejectReason::Expired);
        let mut stale = record(2, "third", 900_000);
        stale.generation = 7;
        intake.apply(ConsumerEvent::Record(stale), now);
        intake.count();
        intake.count();
    });
    let text = recorder.handle().render();
    for sample in [
        "panoptes_groups_closed_total{cause=\"stream_time\"} 1",
        "panoptes_stale_views_total 1",
    ] {
        assert!(text.contains(sample), "`{sample}` is not in {text}");
    }
}

#[test]
fn a_replay_that_reads_no_faster_than_it_may_evicts_no_part_for_that() {
    let views = ["cam", "side"].map(ViewId::from);
    let mut intake = parts(ReassemblySettings {
        expected: ExpectedViews::for_all(views),
        wall_grace: None, // as in a replay
        ..ReassemblySettings::default()
    })
    .intake;
    let at = |seconds: i64| Timestamp(1_000_000 + 1_000 * seconds);
    let assigned = ConsumerEvent::Assigned {
        partitions: vec![record(0, "", 0).source.topic_partition()],
        generation: 1,
        count: Some(1),
        closed: Vec::new(),
    };
    intake.apply(assigned, at(0));
    // As much as makes partitions that run ahead wait, and no part give way.
    for offset in 0..9 {
        let mut view = record(offset, &offset.to_string(), 1_000_000);
        let image = [b"\xff\xd8\xff image".as_slice(), &[0; 104_000]];
        view.value = Some(image.concat());
        view.lease = Some(intake.budget.lease(view.size_bytes()));
        let events = intake.apply(ConsumerEvent::Record(view), at(0));
        assert!(events.is_empty(), "{events:?}");
    }
    lock(&intake.poll).reading = Reading::Throttled;
    for seconds in 0..100 {
        let events = intake.look_at_the_clock(at(seconds));
        assert!(events.is_empty(), "{events:?} after {seconds} s");
    }
    lock(&intake.poll).reading = Reading::Running;
    let mut look = |seconds: Range<i64>| {
        let events = seconds.flat_map(|second| intake.look_at_the_clock(at(second)));
        events.count()
    };
    assert_eq!(look(100..106), 0);
    assert_ne!(look(106..116), 0);
}

#[tokio::test]
async fn a_revocation_waits_no_longer_for_work_that_is_abandoned() {
    let in_flight = InFlight::default();
    let _token = in_flight.enter();
    let (done, answered) = std::sync::mpsc::channel();
    let answering = tokio::spawn(answer_once_empty(in_flight.clone(), done));
    tokio::task::yield_now().await;
    assert!(!answering.is_finished());
    in_flight.abandon();
    answering.await.unwrap();
    // No answer means that it is not drained.
    let answer = answered.try_recv();
    assert_eq!(answer, Err(std::sync::mpsc::TryRecvError::Disconnected));
}

/// Cameras `cam` and `side`; a part waits for `side`, and both partitions are at their ends at 0 s.
fn waiting_for_side() -> Intake {
    let views = ["cam", "side"].map(ViewId::from);
    let mut intake = parts(ReassemblySettings {
        expected: ExpectedViews::for_all(views),
        ..ReassemblySettings::default()
    })
    .intake;
    let now = Timestamp(0);
    let cam = record(0, "", 0).source.topic_partition();
    let side = TopicPartition {
        topic: "side".into(),
        partition: 0,
    };
    let assigned = ConsumerEvent::Assigned {
        partitions: vec![cam.clone(), side.clone()],
        generation: 1,
        count: Some(1),
        closed: Vec::new(),
    };
    intake.apply(assigned, now);
    intake.apply(ConsumerEvent::Record(record(0, "part", 0)), now);
    tell_ends(&mut intake, now);
    intake
}

fn tell_ends(intake: &mut Intake, now: Timestamp) {
    for topic in ["cam", "side"] {
        let end = TopicPartition {
            topic: topic.into(),
            partition: 0,
        };
        intake.apply(ConsumerEvent::EndOfPartition(end), now);
    }
}

/// Looks at the clock at these times, the ends told each time; what was closed.
fn look_often(intake: &mut Intake, millis: Range<i64>) -> Vec<Event> {
    let mut events = Vec::new();
    for now in millis.step_by(100).map(Timestamp) {
        tell_ends(intake, now);
        events.extend(intake.look_at_the_clock(now));
    }
    events
}

#[test]
fn a_part_waits_for_what_was_written_while_the_process_was_frozen() {
    let mut intake = waiting_for_side();
    assert!(look_often(&mut intake, 0..6_900).is_empty());
    // The first to come after it is the tick, or what was told before it.
    assert!(look_often(&mut intake, 600_000..601_500).is_empty());
    let mut view = record(0, "part", 0);
    view.source.topic = "side".into();
    let events = intake.apply(ConsumerEvent::Record(view), Timestamp(601_500));
    let [Event::Closed(group, _)] = &events[..] else {
        panic!("expected one part, found {events:?}");
    };
    assert_eq!(group.cause, CloseCause::Complete);
}

#[test]
fn time_in_which_the_poll_thread_does_not_come_round_is_not_quiet() {
    let mut intake = waiting_for_side();
    assert!(look_often(&mut intake, 0..6_900).is_empty());
    // The clock of the test does not move meanwhile.
    let long_ago = std::time::Instant::now() - Duration::from_secs(5);
    lock(&intake.poll).turned_at = long_ago;
    assert!(look_often(&mut intake, 6_900..60_000).is_empty());
    lock(&intake.poll).turned_at = std::time::Instant::now() + Duration::from_secs(3_600);
    assert!(look_often(&mut intake, 60_000..62_000).is_empty());
    let events = look_often(&mut intake, 62_000..70_000);
    let [Event::Closed(group, _)] = &events[..] else {
        panic!("expected one part, found {events:?}");
    };
    assert_eq!(group.cause, CloseCause::WallClock);
}

//! The thread between records that the test plays and stages that it plays, with a job on librdkafka's mock
//! cluster.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use tokio::sync::mpsc;

use super::*;
use crate::domain::{MemoryBudget, Record, SourceOffset, Topic};
use crate::kafka::client::BusSettings;
use crate::kafka::closed_parts::ClosedPartsTopic;
use crate::kafka::consumer::{CameraConsumer, SharedLedger};
use crate::kafka::embedded::EmbeddedBroker;
use crate::kafka::job_offsets::{Job, JobPartition, JobProgress, JobRange};
use crate::kafka::stored_records::{StoredError, StoredRecords};

const PATIENCE: Duration = Duration::from_secs(60);

fn partition() -> TopicPartition {
    TopicPartition {
        topic: Topic::from("cam"),
        partition: 0,
    }
}

/// A record at every offset of the range, but for one, up to one that is damaged.
struct Played {
    next: i64,
    end: i64,
    hole_at: i64,
    damaged_at: i64,
}

impl StoredRecords for Played {
    fn begin(&mut self, ranges: Vec<(TopicPartition, Range<i64>)>) -> Result<(), StoredError> {
        (self.next, self.end) = (ranges[0].1.start, ranges[0].1.end);
        Ok(())
    }

    fn next(
        &mut self,
        may_read: &dyn Fn(&TopicPartition) -> bool,
        _patience: Duration,
    ) -> Result<StoredReading, StoredError> {
        if !may_read(&partition()) {
            return Ok(StoredReading::Nothing);
        }
        if self.next == self.hole_at {
            self.next += 1;
        }
        if self.next == self.damaged_at {
            return Err("`cam/00000/0.tar` is damaged".into());
        }
        if self.next == self.end {
            return Ok(StoredReading::End(partition()));
        }
        self.next += 1;
        Ok(StoredReading::Record(Box::new(RecordCopy {
            record: Record {
                source: at(self.next - 1),
                generation: 0,
                key: None,
                value: None,
                headers: Vec::new(),
                timestamp: None,
                lease: None,
            },
            timestamp_kind: None,
            fault: (self.next == 4).then(|| "a header".to_owned()),
        })))
    }

    fn ahead(&self) -> HashSet<TopicPartition> {
        HashSet::new()
    }
}

fn at(offset: i64) -> SourceOffset {
    let TopicPartition { topic, partition } = partition();
    SourceOffset {
        topic,
        partition,
        offset,
    }
}

struct Bench {
    _broker: EmbeddedBroker,
    bus: BusSettings,
    job: Arc<Job>,
    made: JobRange,
    range: Arc<ReadRange>,
    /// An offset without a record.
    hole_at: i64,
}

struct Running {
    consumer: CameraConsumer,
    ledger: SharedLedger,
    events: mpsc::Receiver<ConsumerEvent>,
}

impl Bench {
    /// With a job of offsets 0 to 6.
    fn start() -> Self {
        let broker = EmbeddedBroker::start().unwrap();
        for topic in ["cam", "closed"] {
            broker.create_topic(&Topic::from(topic), 1).unwrap();
        }
        let bus = BusSettings {
            brokers: broker.brokers(),
            ..BusSettings::default()
        };
        let job = Job::connect(&bus, "job", vec![partition()]).unwrap();
        let of_partition = JobPartition {
            end: 6,
            ..JobPartition::default()
        };
        let made = JobRange([(partition(), of_partition)].into());
        job.make(&made, "task").unwrap();
        Self {
            _broker: broker,
            bus,
            job: Arc::new(job),
            range: Arc::new(made.ends()),
            made,
            hole_at: -1,
        }
    }

    fn progress(&self) -> JobProgress {
        self.job.progress(&self.made, &BTreeSet::new()).unwrap()
    }

    fn run(&self, damaged_at: i64) -> Running {
        self.run_at(None, damaged_at)
    }

    fn run_at(&self, most_bytes_per_second: Option<u64>, damaged_at: i64) -> Running {
        let settings = ConsumerSettings {
            bus: self.bus.clone(),
            group_id: "job".to_owned(),
            subscription: Vec::new(),
            commits: Commits::Every(Duration::from_millis(50)),
            closed_parts: ClosedPartsTopic::new(Topic::from("closed"), "job"),
            max_closed_parts: 100,
            drain_timeout: Duration::from_millis(200),
            crowd_patience: Duration::from_secs(1),
            prefetch_bytes: 1 << 20,
            range: Some(Arc::clone(&self.range)),
            most_bytes_per_second,
        };
        let (sender, events) = mpsc::channel(64);
        let ledger = SharedLedger::default();
        let source = StoredSource {
            job: Arc::clone(&self.job),
            partitions: vec![partition()],
            partition_count: 1,
            records: Box::new(Played {
                next: 0,
                end: 0,
                hole_at: self.hole_at,
                damaged_at,
            }),
        };
        let link = StoredLink {
            ledger: Arc::clone(&ledger),
            budget: MemoryBudget::new(1 << 20),
            events: sender,
            publisher_is_initialised: Arc::new(AtomicBool::new(true)),
        };
        Running {
            consumer: source.start(&settings, link).unwrap(),
            ledger,
            events,
        }
    }
}

impl Running {
    /// What comes up to the range's end, or the thread's.
    async fn events(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .expect("events in time")
        {
            told.push(match event {
                ConsumerEvent::Assigned { count, .. } => format!("{count:?}"),
                ConsumerEvent::Record(record) => record.source.offset.to_string(),
                ConsumerEvent::Finished(record) => format!("{} again", record.source.offset),
                ConsumerEvent::Unreadable(reject) => reject.error,
                ConsumerEvent::EndOfRange(_) => return told,
                ConsumerEvent::Expected(_) => continue,
                other => panic!("{other:?}"),
            });
        }
        told
    }

    fn finish(&self, offsets: &[i64]) {
        for offset in offsets {
            assert!(lock(&self.ledger).finish(&at(*offset), GENERATION));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_gone_on_with_where_it_was_and_what_was_finished_is_told_as_that() {
    let bench = Bench::start();
    let mut first = bench.run(i64::MAX);
    let told = ["Some(1)", "0", "1", "2", "a header", "4", "5"];
    assert_eq!(first.events().await, told);
    first.finish(&[0, 1, 4]);
    first.consumer.close().unwrap();
    assert_eq!(bench.progress().left, 4);

    let mut second = bench.run(i64::MAX);
    let told = ["Some(1)", "2", "a header", "4 again", "5"];
    assert_eq!(second.events().await, told);
    second.finish(&[2, 3, 5]);
    second.consumer.close().unwrap();
    assert!(bench.progress().is_complete);

    let mut third = bench.run(i64::MAX);
    assert_eq!(third.events().await, ["Some(1)"]);
    third.consumer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_ends_the_thread_with_its_name_and_nothing_behind_it_counts_as_read() {
    let bench = Bench::start();
    let mut running = bench.run(2);
    assert_eq!(running.events().await, ["Some(1)", "0", "1"]);
    let error = running.consumer.close().unwrap_err();
    assert_eq!(error.to_string(), "`cam/00000/0.tar` is damaged");
    assert_eq!(bench.progress().left, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_between_the_records_are_not_kept() {
    let bench = Bench {
        hole_at: 3,
        ..Bench::start()
    };
    let mut running = bench.run(i64::MAX);
    let told = ["Some(1)", "0", "1", "2", "4", "5"];
    assert_eq!(running.events().await, told);
    let settled = async {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        while lock(&running.ledger).unsettled_gaps() > 0 {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled)
        .await
        .expect("gaps are settled with a report");
    running.consumer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_positions_are_forgotten_is_not_begun_anew() {
    let bench = Bench::start();
    let other = Job::connect(&bench.bus, "other", vec![partition()]).unwrap();
    let bench = Bench {
        job: Arc::new(other),
        ..bench
    };
    let mut running = bench.run(i64::MAX);
    assert!(running.events().await.is_empty());
    let error = running.consumer.close().unwrap_err();
    assert!(
        matches!(error, ConsumerError::Job(JobError::NoPosition { .. })),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_rate_is_told_from_what_waits_for_room() {
    let bench = Bench::start();
    // Even an empty record counts for more than a hundred bytes.
    let mut running = bench.run_at(Some(1), i64::MAX);
    let is_record = |event: ConsumerEvent| matches!(event, ConsumerEvent::Record(_));
    while !is_record(running.events.recv().await.unwrap()) {}
    let started = Instant::now();
    let reading = loop {
        let reading = lock(&running.consumer.report()).reading;
        if reading != Reading::Running {
            break reading;
        }
        assert!(started.elapsed() < PATIENCE, "it reads on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(reading, Reading::Throttled);
    running.consumer.close().unwrap();
}

//! What the poll thread and the pipeline say to each other, and why the thread may end.

use rdkafka::error::KafkaError;

use super::closed_parts::ClosedPartsError;
use super::job_offsets::JobError;
use super::stored_records::StoredError;
use crate::domain::{PartClosure, Record, Reject, TopicPartition};

/// What the poll thread says, in the order in which it happened.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// These partitions are ours from now on.
    Assigned {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Counts assignments; records carry it.
        generation: u64,
        /// Partitions of every camera topic, if that is known.
        count: Option<usize>,
        /// What earlier owners have closed of their parts, as far as it was not told before.
        closed: Vec<PartClosure>,
    },
    /// Partitions are known to hold records up to these offsets; where that is `i64::MAX`, until the end of
    /// their range is told.
    Expected(Vec<(TopicPartition, i64)>),
    /// A record was read and entered into the ledger.
    Record(Record),
    /// A record was read again that was finished under an earlier assignment.
    Finished(Record),
    /// A record was read and entered into the ledger, but not all of it can be had.
    Unreadable(Reject),
    /// Everything that the partition holds was read.
    EndOfPartition(TopicPartition),
    /// What a replay was to read of the partition is read: nothing follows.
    EndOfRange(TopicPartition),
    /// More may be written to the partition than can be seen: its leader is away. Told again and again.
    OutOfSight(TopicPartition),
    /// Too much of the partition is unfinished for it to be read on. Told again and again.
    Crowded {
        /// The partition.
        partition: TopicPartition,
        /// With how many unfinished records it is read again.
        few_enough: usize,
    },
    /// Too much of the partition is unfinished for it to be read on, and nothing of it finishes: its
    /// oldest parts must make way.
    Stuck {
        /// The partition.
        partition: TopicPartition,
        /// How many of its records may go on waiting for other views.
        may_wait: usize,
    },
    /// These partitions are lost; the thread waits (bounded) for `done` before it commits.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Whether none is left.
        is_all: bool,
        /// Answer here once the work in flight is published; dropped, when it will not be.
        done: std::sync::mpsc::Sender<()>,
    },
    /// No record will follow: the answer to [`ConsumerCommand::Drain`].
    Drained,
}

/// What the poll thread can be told.
#[derive(Debug)]
pub enum ConsumerCommand {
    /// Stop fetching from partitions of an assignment. It ends with the assignment.
    Pause {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// The assignment; under a later one this is out of date and nothing happens.
        generation: u64,
    },
    /// Fetch from partitions of an assignment again.
    Resume {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// As above.
        generation: u64,
    },
    /// Read no more records, but stay in the group.
    Drain,
    /// Commit, leave the group and end the thread.
    Close,
    /// The same where the producer was fenced; but first wait whether the consumer is as well.
    CloseFenced,
}

/// Why the poll thread ended early.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The consumer could not be made or subscribed.
    #[error("failed to subscribe group `{group_id}` to `{subscription}`: {source}")]
    Subscribe {
        /// Consumer group.
        group_id: String,
        /// What was subscribed to.
        subscription: String,
        /// librdkafka's reason.
        source: Box<KafkaError>,
    },
    /// The views of one part cannot meet.
    #[error(
        "expected all camera topics to have as many partitions as each other, found {0}; the views \
         of one part must lie on one partition number"
    )]
    UnequalPartitions(String),
    /// There is no place to start reading from.
    #[error(
        "a partition of the camera topics has no committed offset for this group, or one that is \
         no longer there, and the property `auto.offset.reset` is `error`; expected an offset to \
         be committed for the group, or the property to be `earliest` or `latest`"
    )]
    NoOffset,
    /// Nobody may go on from where the last owner is not known to have come.
    #[error("failed to learn what the group has committed: {0}")]
    UnknownCommits(KafkaError),
    /// Nobody may tell new parts from late views without.
    #[error(transparent)]
    UnknownClosedParts(#[from] ClosedPartsError),
    /// Two instances have one name.
    #[error(
        "another instance of group `{group_id}` has taken the `group.instance.id` `{instance_id}` of \
         this one; expected each running instance to have one of its own in `bus.properties`"
    )]
    FencedInstance {
        /// Consumer group.
        group_id: String,
        /// The name.
        instance_id: String,
    },
    /// The brokers keep the name for who had it last.
    #[error(
        "group `{group_id}` still has an instance with the `group.instance.id` `{instance_id}`; \
         expected no other to run with it, and the brokers' `group.consumer.session.timeout.ms` to be \
         over since one was killed"
    )]
    UnreleasedInstance {
        /// Consumer group.
        group_id: String,
        /// The name.
        instance_id: String,
    },
    /// A replay's job cannot be gone on with.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Records that are kept outside the brokers cannot be read.
    #[error(transparent)]
    Stored(StoredError),
    /// librdkafka says that the client instance is beyond repair.
    #[error("kafka consumer failed for good: {0}")]
    Fatal(String),
    /// The thread could not be started.
    #[error("failed to start the poll thread: {0}")]
    Thread(#[from] std::io::Error),
}

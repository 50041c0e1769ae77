//! The topic of closed parts: what one owner of a partition has closed, the next one learns.
//!
//! A view that comes after its part was closed is late, whoever reads it. So that a part is closed is
//! written down together with its result, and learnt when partitions are assigned, before anything
//! of them is read. In a transaction it is written after the offsets: once the brokers tell the
//! group's offsets, none of these transactions is undecided but for markers on their way, and those
//! are waited for.
//!
//! The topic is made when it is missing. What is learnt is bounded: the last records of a partition,
//! as many as reassembly remembers parts, and after the first time only what came since.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use tokio::runtime::Handle;

use super::client::BusSettings;
use super::consumer::POLL_INTERVAL;
use super::end_offsets::EndOffsets;
use super::topic_admin::{TopicAdminError, create_topics};
use super::topic_reader::{TopicReader, TopicReaderError};
use crate::domain::{OutboundRecord, PartClosure, SourceOffset, Topic, TopicPartition};
use crate::schema::closed_part::{ClosedPartRecord, SharedNames};

/// How long one question is waited for: brokers that go leave some unanswered.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Which topic, whose, and how many partitions it has. Clones share the number, which is told with
/// the first assignment.
#[derive(Clone, Debug)]
pub struct ClosedPartsTopic {
    name: Topic,
    group_id: String,
    partitions: Arc<AtomicI32>,
}

impl ClosedPartsTopic {
    /// The topic `name`, as the group uses it.
    pub fn new(name: Topic, group_id: &str) -> Self {
        Self {
            name,
            group_id: group_id.to_owned(),
            partitions: Arc::new(AtomicI32::new(1)),
        }
    }

    /// The record that says that a part is closed.
    pub fn record(&self, closure: &PartClosure) -> OutboundRecord {
        OutboundRecord {
            topic: self.name.clone(),
            partition: Some(self.partition_for(closure.opened_by.partition)),
            key: Some(closure.part.part.as_str().into()),
            value: Some(ClosedPartRecord::of(closure, &self.group_id).to_bytes()),
            headers: Vec::new(),
        }
    }

    /// Where the parts of a partition number of the camera topics are told of. It need not have as
    /// many partitions as they.
    fn partition_for(&self, number: i32) -> i32 {
        number % self.partitions.load(Ordering::Relaxed)
    }

    /// The closed part that a record's value tells of, if it is one of this group's.
    fn read(
        &self,
        value: &[u8],
        source: &SourceOffset,
        names: &mut SharedNames,
    ) -> Option<PartClosure> {
        match ClosedPartRecord::from_bytes(value) {
            Ok(record) if record.group_id == self.group_id => Some(record.into_closure(names)),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%error, record = %source, "no closed part: record skipped");
                None
            }
        }
    }
}

/// Why it is not known which parts are closed.
#[derive(Debug, thiserror::Error)]
pub enum ClosedPartsError {
    /// The brokers do not tell of the topic.
    #[error("topic `{topic}` of closed parts: {source}")]
    Brokers {
        /// The topic.
        topic: Topic,
        /// The client's own words.
        source: KafkaError,
    },
    /// The topic is missing and cannot be made.
    #[error(
        "topic `{topic}` of closed parts is not there, and could not be made: {source}; expected the \
         right to create it, or the topic"
    )]
    Create {
        /// The topic.
        topic: Topic,
        /// What came of it.
        source: TopicAdminError,
    },
    /// It cannot be read.
    #[error("failed to learn which parts are closed: {0}")]
    Read(#[from] TopicReaderError),
    /// Not in time.
    #[error("topic `{topic}` of closed parts: {what} did not come in time")]
    Late {
        /// The topic.
        topic: Topic,
        /// What did not come.
        what: &'static str,
    },
    /// The instance is stopping.
    #[error("stopped while it was learnt which parts are closed")]
    Stopping,
}

impl ClosedPartsError {
    /// Whether brokers would say the same to another client with these settings.
    pub(crate) fn is_for_good(&self) -> bool {
        let refused = |source: &TopicAdminError| matches!(source, TopicAdminError::Refused { .. });
        matches!(self, Self::Create { source, .. } if refused(source))
    }
}

/// Learns which parts are closed.
pub(super) struct ClosedParts {
    topic: ClosedPartsTopic,
    bus: BusSettings,
    max_parts: usize,
    /// Tells how much is written.
    written: EndOffsets,
    /// Tells how much of it is decided.
    decided: EndOffsets,
    /// Up to where each partition has been read.
    read_to: HashMap<i32, i64>,
}

impl ClosedParts {
    /// Makes the clients; `max_parts` is the most that reassembly remembers.
    pub(super) fn connect(
        bus: &BusSettings,
        topic: ClosedPartsTopic,
        max_parts: usize,
    ) -> Result<Self, KafkaError> {
        let with = |isolation: &str| {
            let mut bus = bus.clone();
            let mut set = |name: &str, value: &str| {
                bus.properties.insert(name.to_owned(), value.to_owned());
            };
            set("isolation.level", isolation);
            // The end of a partition is told by a fetch that finds nothing.
            set("fetch.wait.max.ms", "10");
            // A follower may not know yet what its leader has told.
            bus.properties.remove("client.rack");
            bus
        };
        Ok(Self {
            written: EndOffsets::connect(&with("read_uncommitted"))?,
            decided: EndOffsets::connect(&with("read_committed"))?,
            bus: with("read_committed"),
            topic,
            max_parts,
            read_to: HashMap::new(),
        })
    }

    /// What is closed of the parts of these partition numbers, as far as it was not learnt before, in
    /// order. A topic that is missing is made, with `count` partitions. What brokers do not tell, as
    /// of a topic that was just made, they are asked again until `deadline`.
    pub(super) fn learn(
        &mut self,
        numbers: &BTreeSet<i32>,
        count: usize,
        deadline: Instant,
        runtime: &Handle,
        is_ending: &AtomicBool,
    ) -> Result<Vec<PartClosure>, ClosedPartsError> {
        let started = Instant::now();
        let mut written = None;
        let error = loop {
            let ends = self.decided_ends(numbers, count, &mut written, runtime);
            let closures = ends.and_then(|ends| self.read_up_to(ends));
            match closures {
                Ok(closures) => {
                    let (parts, took) = (closures.len(), started.elapsed());
                    tracing::info!(parts, ?took, "learnt which parts are closed");
                    return Ok(closures);
                }
                Err(error) if error.is_for_good() || Instant::now() >= deadline => break error,
                Err(error) => {
                    tracing::debug!(%error, "closed parts are not told yet; asking again")
                }
            }
            if is_ending.load(Ordering::Relaxed) {
                break ClosedPartsError::Stopping;
            }
            thread::sleep(POLL_INTERVAL);
        };
        Err(error)
    }

    fn read_up_to(
        &mut self,
        ends: BTreeMap<i32, i64>,
    ) -> Result<Vec<PartClosure>, ClosedPartsError> {
        let ranges = self.unread(ends);
        let mut closures = Vec::new();
        if ranges.is_empty() {
            return Ok(closures);
        }
        let mut reader = TopicReader::open_ranges(&self.bus, &self.topic.name, &ranges)?;
        let (topic, mut names) = (&self.topic, SharedNames::default());
        reader.read_to_end(ANSWER_PATIENCE, |record| {
            let value = record.value.unwrap_or_default();
            closures.extend(topic.read(&value, &record.source, &mut names));
        })?;
        let read_to = ranges
            .iter()
            .map(|(partition, range)| (*partition, range.end));
        self.read_to.extend(read_to);
        Ok(closures)
    }

    /// Where the numbers' partitions end, once what was `written` to them when it was first asked is
    /// committed or aborted.
    fn decided_ends(
        &self,
        numbers: &BTreeSet<i32>,
        count: usize,
        written: &mut Option<BTreeMap<i32, i64>>,
        runtime: &Handle,
    ) -> Result<BTreeMap<i32, i64>, ClosedPartsError> {
        self.find(count, runtime)?;
        let partitions: BTreeSet<i32> = numbers
            .iter()
            .map(|number| self.topic.partition_for(*number))
            .collect();
        let written = match written {
            Some(written) => written,
            None => written.insert(self.ends(&self.written, &partitions)?),
        };
        let decided = self.ends(&self.decided, &partitions)?;
        let is_decided = |(partition, end): (&i32, &i64)| decided[partition] >= *end;
        match written.iter().all(is_decided) {
            true => Ok(decided),
            false => Err(self.late("the end of its open transactions")),
        }
    }

    /// Learns how many partitions the topic has; makes it, if it is not there.
    fn find(&self, count: usize, runtime: &Handle) -> Result<(), ClosedPartsError> {
        let name = &self.topic.name;
        let found = self.decided.partitions(name, ANSWER_PATIENCE);
        let found = found.map_err(|source| self.of_brokers(source))?;
        let count = match found {
            0 => self.create(count, runtime)?,
            found => found,
        };
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        self.topic.partitions.store(count.max(1), Ordering::Relaxed);
        Ok(())
    }

    /// Makes the topic, unless another instance is quicker; tells how many partitions it has.
    fn create(&self, count: usize, runtime: &Handle) -> Result<usize, ClosedPartsError> {
        let count = u16::try_from(count.max(1)).unwrap_or(u16::MAX);
        let topics = [self.topic.name.clone()];
        tracing::info!(topic = %self.topic.name, partitions = count, "topic of closed parts is made");
        let creation = create_topics(&self.bus, &topics, count);
        // A timer is made inside the runtime only.
        let in_time = async { tokio::time::timeout(ANSWER_PATIENCE, creation).await };
        match runtime.block_on(in_time) {
            Ok(Ok(())) => Ok(usize::from(count)),
            Ok(Err(TopicAdminError::PartitionCount { found, .. })) => Ok(found),
            Ok(Err(source)) => Err(ClosedPartsError::Create {
                topic: self.topic.name.clone(),
                source,
            }),
            Err(_) => Err(self.late("its creation")),
        }
    }

    fn ends(
        &self,
        client: &EndOffsets,
        partitions: &BTreeSet<i32>,
    ) -> Result<BTreeMap<i32, i64>, ClosedPartsError> {
        let asked: Vec<TopicPartition> = partitions
            .iter()
            .map(|partition| TopicPartition {
                topic: self.topic.name.clone(),
                partition: *partition,
            })
            .collect();
        let ends = client.of(&asked, ANSWER_PATIENCE);
        let ends = ends.map_err(|source| self.of_brokers(source))?;
        let ends: BTreeMap<i32, i64> = ends
            .into_iter()
            .map(|(partition, end)| (partition.partition, end))
            .collect();
        match ends.len() == partitions.len() {
            true => Ok(ends),
            false => Err(self.late("the ends of its partitions")),
        }
    }

    /// What is to be read up to these ends: no more than is remembered, were there a transaction for
    /// each part, whose marker takes an offset.
    fn unread(&self, ends: BTreeMap<i32, i64>) -> BTreeMap<i32, Range<i64>> {
        let most = 2 * self.max_parts / ends.len().max(1);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        ends.into_iter()
            .filter_map(|(partition, end)| {
                let read_to = self.read_to.get(&partition).copied();
                // One that ends before what was read was made anew.
                let read_to = read_to.filter(|read_to| *read_to <= end).unwrap_or(0);
                let start = read_to.max(end.saturating_sub(most));
                (start < end).then_some((partition, start..end))
            })
            .collect()
    }

    fn of_brokers(&self, source: KafkaError) -> ClosedPartsError {
        ClosedPartsError::Brokers {
            topic: self.topic.name.clone(),
            source,
        }
    }

    fn late(&self, what: &'static str) -> ClosedPartsError {
        ClosedPartsError::Late {
            topic: self.topic.name.clone(),
            what,
        }
    }
}

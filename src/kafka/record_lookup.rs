//! Reads single records again by their place, from outside any consumer group.
//!
//! A record that is there no more is no error: the log forgets, and whoever asks is told what became
//! of it. Whether it was committed is asked as `bus.properties` say: who names a place has read it so. One
//! offset of each partition of a topic is read at a time, so that nothing between two of
//! them is transferred but what the client fetches ahead. Blocking: for command-line tools and tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::BusSettings;
use super::topic_reader::{
    ReaderConsumer, TopicReaderError, create_client, passes, record, whole_config,
};
use crate::domain::{Record, SourceOffset, Topic};

/// The longest single wait for the client; it says nothing of how long a record may take.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Why a record cannot be read again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    /// The topic is not there.
    #[error("topic `{0}` does not exist")]
    NoSuchTopic(Topic),
    /// The topic has no such partition.
    #[error("the topic has no partition `{0}`")]
    NoSuchPartition(i32),
    /// It was deleted with all before it.
    #[error("deleted by retention: the partition begins at offset `{first}`")]
    Deleted {
        /// The first offset that is still there.
        first: i64,
    },
    /// The partition ends before it: the topic was deleted and made anew.
    #[error("the partition ends before it, at offset `{end}`")]
    BehindTheEnd {
        /// Where the next record will be.
        end: i64,
    },
    /// The log goes on without it.
    #[error("not in the log any more (compacted, or never committed)")]
    Skipped,
}

/// A client that reads single records.
pub struct RecordLookup {
    consumer: ReaderConsumer,
    bus: BusSettings,
    patience: Duration,
}

/// The wanted offsets of one topic that are within its partitions.
type Wanted = BTreeMap<i32, BTreeSet<i64>>;

impl RecordLookup {
    /// Makes the client; it connects when it first reads. `patience` is how long the brokers may
    /// take to answer, and to give the next record.
    ///
    /// # Errors
    /// When a property is refused.
    pub fn connect(bus: &BusSettings, patience: Duration) -> Result<Self, TopicReaderError> {
        let mut config = whole_config(bus);
        // What is fetched ahead is thrown away, and the next place must not wait for it.
        config
            .set("queued.min.messages", "1")
            .set("fetch.queue.backoff.ms", "0")
            .set("fetch.wait.max.ms", "10");
        Ok(Self {
            consumer: create_client(bus, config)?,
            bus: bus.clone(),
            patience,
        })
    }

    /// Reads the records at these places, each once, and gives them to `take` in no order.
    ///
    /// # Errors
    /// When the brokers do not answer, or give nothing for too long.
    pub fn read(
        &self,
        places: impl IntoIterator<Item = SourceOffset>,
        mut take: impl FnMut(SourceOffset, Result<Record, Absence>),
    ) -> Result<(), TopicReaderError> {
        let mut topics: BTreeMap<Topic, Wanted> = BTreeMap::new();
        for place in places {
            let partitions = topics.entry(place.topic).or_default();
            partitions
                .entry(place.partition)
                .or_default()
                .insert(place.offset);
        }
        for (topic, wanted) in topics {
            let mut wanted = self.within(&topic, wanted, &mut take)?;
            while !wanted.is_empty() {
                let round = wanted.iter_mut();
                let round = round
                    .filter_map(|(partition, offsets)| Some((*partition, offsets.pop_first()?)));
                self.read_round(&topic, round.collect(), &mut take)?;
                wanted.retain(|_, offsets| !offsets.is_empty());
            }
        }
        self.consumer
            .unassign()
            .map_err(|source| self.error("", source))
    }

    /// The offsets that lie within the topic's partitions; the others are told at once.
    fn within(
        &self,
        topic: &Topic,
        wanted: Wanted,
        take: &mut impl FnMut(SourceOffset, Result<Record, Absence>),
    ) -> Result<Wanted, TopicReaderError> {
        let partitions = self.partitions(topic)?;
        let mut within = Wanted::new();
        for (partition, offsets) in wanted {
            let mut refuse = |offset, why| take(place(topic, partition, offset), Err(why));
            let outside = match (partitions.is_empty(), partitions.contains(&partition)) {
                (true, _) => Some(Absence::NoSuchTopic(topic.clone())),
                (false, false) => Some(Absence::NoSuchPartition(partition)),
                (false, true) => None,
            };
            if let Some(why) = outside {
                offsets
                    .into_iter()
                    .for_each(|offset| refuse(offset, why.clone()));
                continue;
            }
            let (first, end) = self
                .consumer
                .fetch_watermarks(topic.as_str(), partition, self.patience)
                .map_err(|source| self.error(topic.as_str(), source))?;
            for offset in offsets {
                if offset < first {
                    refuse(offset, Absence::Deleted { first });
                } else if offset >= end {
                    refuse(offset, Absence::BehindTheEnd { end });
                } else {
                    within.entry(partition).or_default().insert(offset);
                }
            }
        }
        Ok(within)
    }

    /// The topic's partitions; none where it does not exist.
    fn partitions(&self, topic: &Topic) -> Result<BTreeSet<i32>, TopicReaderError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic.as_str()), self.patience)
            .map_err(|source| self.error(topic.as_str(), source))?;
        let found = metadata
            .topics()
            .iter()
            .filter(|found| found.error().is_none());
        Ok(found
            .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
            .collect())
    }

    /// Reads one record of each of these partitions.
    fn read_round(
        &self,
        topic: &Topic,
        mut unread: HashMap<i32, i64>,
        take: &mut impl FnMut(SourceOffset, Result<Record, Absence>),
    ) -> Result<(), TopicReaderError> {
        let mut assignment = TopicPartitionList::new();
        let fault = |source| self.error(topic.as_str(), source);
        for (partition, offset) in &unread {
            assignment
                .add_partition_offset(topic.as_str(), *partition, Offset::Offset(*offset))
                .map_err(fault)?;
        }
        self.consumer.assign(&assignment).map_err(fault)?;
        let mut heard = Instant::now();
        while !unread.is_empty() {
            if heard.elapsed() >= self.patience {
                return Err(TopicReaderError::Stalled {
                    topic: topic.clone(),
                    waited: self.patience,
                });
            }
            let (partition, found) = match self.consumer.poll(POLL_INTERVAL.min(self.patience)) {
                None => continue,
                Some(Ok(message)) => {
                    let record = record(&message);
                    (record.source.partition, Some(record))
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => (partition, None),
                Some(Err(error)) if passes(&error) => continue,
                Some(Err(source)) => {
                    return Err(TopicReaderError::Read {
                        topic: topic.clone(),
                        source,
                    });
                }
            };
            // The client may fetch on behind the one that was wanted.
            let Some(offset) = unread.remove(&partition) else {
                continue;
            };
            heard = Instant::now();
            let found = found.filter(|record| record.source.offset == offset);
            take(
                place(topic, partition, offset),
                found.ok_or(Absence::Skipped),
            );
        }
        Ok(())
    }

    fn error(&self, topic: &str, source: KafkaError) -> TopicReaderError {
        TopicReaderError::Metadata {
            brokers: self.bus.brokers.clone(),
            topic: topic.into(),
            source,
        }
    }
}

fn place(topic: &Topic, partition: i32, offset: i64) -> SourceOffset {
    SourceOffset {
        topic: topic.clone(),
        partition,
        offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::topic_reader::tests::Bus;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn look_up(
        bus: &Bus,
        places: &[SourceOffset],
    ) -> BTreeMap<SourceOffset, Result<String, Absence>> {
        let lookup = RecordLookup::connect(&bus.settings_of_bus(), PATIENCE).unwrap();
        let mut found = BTreeMap::new();
        let take = |place: SourceOffset, record: Result<Record, Absence>| {
            let key = record.map(|record| {
                assert_eq!(record.source, place);
                String::from_utf8(record.key.unwrap()).unwrap()
            });
            assert!(found.insert(place, key).is_none());
        };
        lookup.read(places.iter().cloned(), take).unwrap();
        found
    }

    #[test]
    fn records_are_found_by_their_places_and_each_once() {
        let bus = Bus::start();
        // Even keys are on partition 0, odd ones on partition 1.
        bus.produce(0..40);
        let topic = "results".into();
        let wanted = [(0, 0), (0, 19), (1, 3), (0, 7), (1, 3), (1, 19)];
        let places = wanted.map(|(partition, offset)| place(&topic, partition, offset));
        let found = look_up(&bus, &places);
        assert_eq!(found.len(), 5);
        for (place, key) in found {
            let number = place.offset * 2 + i64::from(place.partition);
            assert_eq!(key, Ok(format!("p-{number}")));
        }
    }

    #[test]
    fn what_is_not_there_is_told_apart() {
        let bus = Bus::start();
        bus.produce(0..4);
        let (topic, unknown) = ("results".into(), Topic::from("unknown"));
        let places = [
            place(&topic, 0, 1),
            place(&topic, 0, 2),
            place(&topic, 2, 0),
            place(&topic, 3, 0),
            place(&unknown, 0, 0),
        ];
        let found = look_up(&bus, &places);
        let outcomes = places.map(|place| found[&place].clone());
        let expected = [
            Ok("p-2".to_owned()),
            Err(Absence::BehindTheEnd { end: 2 }),
            Err(Absence::BehindTheEnd { end: 0 }),
            Err(Absence::NoSuchPartition(3)),
            Err(Absence::NoSuchTopic(unknown)),
        ];
        assert_eq!(outcomes, expected);
    }
}

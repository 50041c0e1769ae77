//! Which of the known partitioners the cameras' producers seem to use.
//!
//! The views of one part meet only where all producers turn its key into the same partition number.
//! Java's clients use murmur2 by default, librdkafka's CRC32, Sarama's FNV-1a. Which one a topic's
//! records were placed by shows after some keys: another one agrees by chance now and then, but not
//! many times in a row.

use std::collections::BTreeMap;

use crate::domain::{Record, Topic};

/// So many keys in a row are no chance: with two partitions, one in a million.
const ENOUGH: u32 = 20;

/// A way from a key to a partition number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Partitioner {
    /// `murmur2_random`, the default of Java's clients.
    Murmur2,
    /// `consistent_random`, the default of librdkafka's clients.
    Crc32,
    /// `fnv1a_random`, the default of Sarama.
    Fnv1a,
}

impl Partitioner {
    const ALL: [Self; 3] = [Self::Murmur2, Self::Crc32, Self::Fnv1a];

    /// Its name, and whose default it is.
    pub fn name(self) -> &'static str {
        match self {
            Self::Murmur2 => "murmur2, the default of Java's clients",
            Self::Crc32 => "CRC32, the default of librdkafka's clients",
            Self::Fnv1a => "FNV-1a, the default of Sarama",
        }
    }

    /// The partition of `count` that a record with this key is placed on.
    pub fn partition(self, key: &[u8], count: u32) -> i32 {
        let hash = match self {
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Self::Crc32 => crc32fast::hash(key),
            Self::Fnv1a => fnv1a(key),
        };
        (hash % count.max(1)) as i32
    }
}

/// MurmurHash2 as Kafka's Java clients compute it (Austin Appleby; seed `0x9747b28c`).
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        let mut word = [0; 4];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u32::from_le_bytes(word)).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// FNV-1a of 32 bits, without its sign, as Sarama takes it.
fn fnv1a(key: &[u8]) -> u32 {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    (hash as i32).unsigned_abs()
}

/// What the keys of each topic have shown.
#[derive(Debug, Default)]
pub(crate) struct KeyedTopics {
    /// Partitions of every camera topic.
    count: u32,
    topics: BTreeMap<Topic, Tally>,
}

/// How many records in a row agree with each partitioner, and how many there were.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    agreed: [u32; Partitioner::ALL.len()],
    records: u32,
}

/// What a topic's records were placed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Placed {
    By(Partitioner),
    OtherwiseThanKnown,
}

impl KeyedTopics {
    /// Begins anew, with topics of so many partitions.
    pub(crate) fn begin(&mut self, count: usize) {
        self.count = u32::try_from(count).unwrap_or_default();
        self.topics.clear();
    }

    /// Looks at a record's key and place.
    pub(crate) fn observe(&mut self, record: &Record) {
        let Some(key) = record.key.as_deref().filter(|_| self.count > 1) else {
            return;
        };
        let topic = &record.source.topic;
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.clone(), Tally::default());
        }
        let Some(tally) = self.topics.get_mut(topic) else {
            return;
        };
        tally.records = tally.records.saturating_add(1);
        for (partitioner, agreed) in Partitioner::ALL.into_iter().zip(&mut tally.agreed) {
            let agrees = partitioner.partition(key, self.count) == record.source.partition;
            *agreed = if agrees { agreed.saturating_add(1) } else { 0 };
        }
    }

    /// What the topics' records were placed by, as far as it shows; empty when nothing does.
    pub(crate) fn describe(&self) -> String {
        let by = self.by_placement().into_iter().map(|(placed, topics)| {
            let topics: Vec<String> = topics.iter().map(|topic| format!("`{topic}`")).collect();
            let topics = topics.join(", ");
            match placed {
                Placed::By(partitioner) => {
                    format!(
                        "the keys of {topics} seem to be placed by {}",
                        partitioner.name()
                    )
                }
                Placed::OtherwiseThanKnown => {
                    format!("those of {topics} by none of murmur2, CRC32 and FNV-1a")
                }
            }
        });
        by.collect::<Vec<_>>().join("; ")
    }

    /// The description, if the topics' records were placed in several ways.
    pub(crate) fn mismatch(&self) -> Option<String> {
        (self.by_placement().len() > 1).then(|| self.describe())
    }

    fn by_placement(&self) -> BTreeMap<Placed, Vec<&Topic>> {
        let mut found: BTreeMap<Placed, Vec<&Topic>> = BTreeMap::new();
        for (topic, tally) in &self.topics {
            if let Some(placed) = tally.placed() {
                found.entry(placed).or_default().push(topic);
            }
        }
        found
    }
}

impl Tally {
    fn placed(self) -> Option<Placed> {
        let agreeing = Partitioner::ALL.into_iter().zip(self.agreed);
        let mut sure = agreeing.filter(|(_, agreed)| *agreed >= ENOUGH);
        match (sure.next(), sure.next()) {
            (Some((partitioner, _)), None) => Some(Placed::By(partitioner)),
            (None, _) if self.records >= 2 * ENOUGH => Some(Placed::OtherwiseThanKnown),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{
        BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer,
    };
    use rdkafka::{ClientContext, Message as _};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::domain::SourceOffset;

    /// A key and its partition.
    type KeyPlace = (Vec<u8>, i32);

    /// Notes where librdkafka has placed which key.
    #[derive(Clone, Default)]
    struct Places(Arc<Mutex<Vec<KeyPlace>>>);

    impl ClientContext for Places {}

    impl ProducerContext for Places {
        type DeliveryOpaque = ();

        fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
            let message = result.as_ref().unwrap();
            let key = message.key().unwrap().to_vec();
            self.0.lock().unwrap().push((key, message.partition()));
        }
    }

    #[test]
    fn keys_are_placed_as_librdkafka_places_them() {
        const COUNT: u32 = 7;
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("cam", COUNT as i32, 1).unwrap();
        for (name, partitioner) in [
            ("murmur2_random", Partitioner::Murmur2),
            ("consistent_random", Partitioner::Crc32),
            ("fnv1a_random", Partitioner::Fnv1a),
        ] {
            let places = Places::default();
            let producer: ThreadedProducer<Places> = ClientConfig::new()
                .set("bootstrap.servers", cluster.bootstrap_servers())
                .set("partitioner", name)
                .create_with_context(places.clone())
                .unwrap();
            for length in 1..120_usize {
                let key: String = (0..length)
                    .map(|at| char::from(b'a' + (at * length % 26) as u8))
                    .collect();
                producer
                    .send(BaseRecord::to("cam").key(&key).payload(""))
                    .unwrap();
            }
            producer.flush(Duration::from_secs(30)).unwrap();
            let places = places.0.lock().unwrap();
            assert_eq!(places.len(), 119);
            for (key, partition) in places.iter() {
                assert_eq!(
                    partitioner.partition(key, COUNT),
                    *partition,
                    "{name} {key:?}"
                );
            }
        }
    }

    fn record(topic: &str, key: &str, partition: i32) -> Record {
        Record {
            source: SourceOffset {
                topic: Topic::from(topic),
                partition,
                offset: 0,
            },
            generation: 1,
            key: Some(key.as_bytes().to_vec()),
            value: None,
            headers: Vec::new(),
            timestamp: None,
            lease: None,
        }
    }

    fn observe(keyed: &mut KeyedTopics, topic: &str, place: impl Fn(&[u8]) -> i32) {
        for number in 0..60 {
            let key = format!("part-{number}");
            keyed.observe(&record(topic, &key, place(key.as_bytes())));
        }
    }

    #[test]
    fn topics_that_are_placed_in_several_ways_are_told() {
        let mut keyed = KeyedTopics::default();
        keyed.begin(4);
        observe(&mut keyed, "cam.top", |key| {
            Partitioner::Murmur2.partition(key, 4)
        });
        observe(&mut keyed, "cam.left", |key| {
            Partitioner::Murmur2.partition(key, 4)
        });
        assert_eq!(keyed.mismatch(), None);
        observe(&mut keyed, "cam.right", |key| {
            Partitioner::Crc32.partition(key, 4)
        });
        observe(&mut keyed, "cam.back", |key| i32::from(key.len() == 6));
        assert_eq!(
            keyed.mismatch().unwrap(),
            "the keys of `cam.left`, `cam.top` seem to be placed by murmur2, the default of Java's \
             clients; the keys of `cam.right` seem to be placed by CRC32, the default of librdkafka's \
             clients; those of `cam.back` by none of murmur2, CRC32 and FNV-1a"
        );
        // The producer is set right.
        observe(&mut keyed, "cam.right", |key| {
            Partitioner::Murmur2.partition(key, 4)
        });
        observe(&mut keyed, "cam.back", |key| {
            Partitioner::Murmur2.partition(key, 4)
        });
        assert_eq!(keyed.mismatch(), None);
    }

    #[test]
    fn few_keys_and_a_single_partition_show_nothing() {
        let mut keyed = KeyedTopics::default();
        keyed.begin(4);
        keyed.observe(&record("cam.top", "part", 3));
        assert_eq!(keyed.describe(), "");
        keyed.begin(1);
        observe(&mut keyed, "cam.top", |_| 0);
        assert_eq!(keyed.describe(), "");
    }
}

//! What the brokers hold: logs that grow, what is committed of them, and which records ended.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::super::*;
use crate::kafka::commit_metadata::{MAX_BYTES, decode, encode};
use crate::kafka::offsets::CommitPosition;

/// A partition: what will be written to it, and how much is.
#[derive(Debug)]
struct Log {
    shots: Vec<Shot>,
    written: usize,
    committed: i64,
    metadata: String,
}

pub(super) struct Brokers {
    logs: BTreeMap<TopicPartition, Log>,
    /// The records whose fate is in a committed transaction.
    ended: HashSet<SourceOffset>,
    /// The topic of closed parts.
    closures: Vec<PartClosure>,
}

impl Brokers {
    pub(super) fn new(logs: BTreeMap<TopicPartition, Vec<Shot>>) -> Self {
        let empty = |shots| Log {
            shots,
            written: 0,
            committed: 0,
            metadata: String::new(),
        };
        Self {
            logs: logs
                .into_iter()
                .map(|(partition, shots)| (partition, empty(shots)))
                .collect(),
            ended: HashSet::new(),
            closures: Vec::new(),
        }
    }

    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        self.logs.keys().cloned().collect()
    }

    pub(super) fn records(&self) -> usize {
        self.logs.values().map(|log| log.shots.len()).sum()
    }

    /// The cameras write more; false when they have written all.
    pub(super) fn write(&mut self, partition: &TopicPartition, records: usize) -> bool {
        let log = self.logs.get_mut(partition).unwrap();
        log.written = (log.written + records).min(log.shots.len());
        log.written < log.shots.len()
    }

    pub(super) fn read(&self, partition: &TopicPartition, position: i64) -> Option<&Shot> {
        let log = &self.logs[partition];
        let index = usize::try_from(position).unwrap();
        log.shots[..log.written].get(index)
    }

    /// Where a partition is read from, and what is finished above that.
    pub(super) fn committed(&self, partition: &TopicPartition) -> (i64, Vec<Range<i64>>) {
        let log = &self.logs[partition];
        (log.committed, decode(log.committed, &log.metadata))
    }

    /// Takes a transaction: the fates of `inputs`, each for the first time, and the offsets. What is
    /// committed tells of exactly the records that ended.
    pub(super) fn commit(&mut self, inputs: &[SourceOffset], positions: &[CommitPosition]) {
        for input in inputs {
            assert!(self.ended.insert(input.clone()), "`{input}` ends twice");
        }
        for commit in positions {
            let encoded = encode(commit.position, &commit.finished);
            assert_eq!(encoded.left_out, 0, "{commit:?} does not fit");
            assert!(encoded.text.len() <= MAX_BYTES);
            let log = self.logs.get_mut(&commit.partition).unwrap();
            log.committed = commit.position;
            log.metadata = encoded.text;
        }
        for (partition, log) in &self.logs {
            let above = decode(log.committed, &log.metadata);
            for offset in 0..log.written as i64 {
                let told = offset < log.committed || above.iter().any(|one| one.contains(&offset));
                let source = source_of(partition, offset);
                assert_eq!(told, self.ended.contains(&source), "`{source}`: {above:?}");
            }
        }
    }

    /// Which parts were closed, from the given one on.
    pub(super) fn closures_from(&self, start: usize) -> Vec<PartClosure> {
        self.closures[start..].to_vec()
    }

    pub(super) fn close_parts(&mut self, closures: impl Iterator<Item = PartClosure>) {
        self.closures.extend(closures);
    }

    /// Fails if a part was closed twice.
    pub(super) fn assert_closed_once(&self) {
        let mut parts = HashSet::new();
        for closure in &self.closures {
            assert!(parts.insert(&closure.part), "twice: {closure:?}");
        }
    }

    /// Fails unless everything is written and has ended, and what is committed tells so. A record that
    /// is read once more and skipped moves the position with the next commit only.
    pub(super) fn assert_all_ended(&self) {
        assert_eq!(self.ended.len(), self.records());
        for (partition, log) in &self.logs {
            let above = decode(log.committed, &log.metadata);
            let told = above
                .iter()
                .fold(log.committed, |end, range| match range.start <= end {
                    true => range.end,
                    false => end,
                });
            assert_eq!(told, log.shots.len() as i64, "{partition:?}: {above:?}");
        }
    }

    pub(super) fn has_all_ended(&self) -> bool {
        self.ended.len() == self.records()
    }
}

pub(super) fn source_of(partition: &TopicPartition, offset: i64) -> SourceOffset {
    SourceOffset {
        topic: partition.topic.clone(),
        partition: partition.partition,
        offset,
    }
}

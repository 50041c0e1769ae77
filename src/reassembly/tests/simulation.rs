//! A small world around the buffer: topics that were written, a consumer that reads them in any
//! interleaving, a publisher that is slow, rebalances, and the offset ledger. It checks after
//! every step that each record is in exactly one place.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;
use crate::kafka::offsets::{Begun, OffsetLedger};

/// Rounds in which a drained world must come to rest; each is a second of wall clock.
const DRAIN_ROUNDS: usize = 200;

/// Something that can happen, in whatever order. Numbers choose among what is there.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Read { which: usize, records: usize },
    ReadAgain { which: usize, back: usize },
    Wait { millis: i64 },
    Publish { which: usize },
    Commit,
    Rebalance { number: i32, is_drained: bool },
    BackPressure(bool),
}

/// What is remembered of a closed group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Closing {
    pub(super) part: PartKey,
    pub(super) is_complete: bool,
    pub(super) sources: Vec<(ViewId, SourceOffset)>,
    pub(super) missing: Vec<ViewId>,
}

impl Closing {
    fn of(group: &Group) -> Self {
        let source = |view: &View| (view.view.clone(), view.record.source.clone());
        Self {
            part: group.part.clone(),
            is_complete: group.cause == CloseCause::Complete,
            sources: group.views.iter().map(source).collect(),
            missing: group.missing.clone(),
        }
    }
}

/// A closed group, reject or copy that is on its way out.
struct Outgoing {
    part: Option<PartKey>,
    /// Nothing is published of copies; they are only finished.
    is_copy: bool,
    records: Vec<Arc<Record>>,
}

type Identity = (SourceOffset, u64);

/// What a record shows: part, view and image.
type Content = (&'static str, &'static str, Vec<u8>);

pub(super) struct World {
    pub(super) buffer: ReassemblyBuffer,
    pub(super) closed: Vec<Closing>,
    pub(super) evictions: usize,
    ledger: OffsetLedger,
    budget: MemoryBudget,
    logs: BTreeMap<TopicPartition, Vec<Shot>>,
    positions: BTreeMap<TopicPartition, usize>,
    committed: BTreeMap<TopicPartition, usize>,
    paused: HashSet<TopicPartition>,
    at_end: HashSet<TopicPartition>,
    generation: u64,
    /// Whether the ends of partitions are known when they are assigned.
    knows_ends: bool,
    now: i64,
    outgoing: Vec<Outgoing>,
    /// Accepted and not yet decided; the count is of distinct records.
    undecided: HashSet<Identity>,
    decided: HashSet<Identity>,
    /// Finished records, and how often.
    published: HashMap<SourceOffset, usize>,
    /// What a reader of results and dead letters has seen.
    seen_by_readers: HashSet<Content>,
    read_twice: HashSet<SourceOffset>,
}

impl World {
    /// A world with these logs; the position in its log is a record's offset.
    pub(super) fn new(
        settings: ReassemblySettings,
        budget: MemoryBudget,
        logs: BTreeMap<TopicPartition, Vec<Shot>>,
        knows_ends: bool,
    ) -> Self {
        let mut world = Self {
            buffer: ReassemblyBuffer::new(settings),
            closed: Vec::new(),
            evictions: 0,
            ledger: OffsetLedger::default(),
            budget,
            positions: logs
                .keys()
                .map(|partition| (partition.clone(), 0))
                .collect(),
            committed: logs
                .keys()
                .map(|partition| (partition.clone(), 0))
                .collect(),
            logs,
            paused: HashSet::new(),
            at_end: HashSet::new(),
            generation: 1,
            knows_ends,
            now: 0,
            outgoing: Vec::new(),
            undecided: HashSet::new(),
            decided: HashSet::new(),
            published: HashMap::new(),
            seen_by_readers: HashSet::new(),
            read_twice: HashSet::new(),
        };
        let partitions: Vec<_> = world.logs.keys().cloned().collect();
        world.assign(&partitions);
        world.ledger.assign(partitions, 1);
        world
    }

    fn assign(&self, partitions: &[TopicPartition]) {
        self.buffer
            .assign(partitions, self.generation, at(self.now));
        for partition in partitions.iter().filter(|_| self.knows_ends) {
            let end = self.logs[partition].len() as i64;
            self.buffer.expect_until(partition, end);
        }
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match *step {
            Step::Read { which, records } => {
                let partition = self.pick_partition(which);
                for _ in 0..records {
                    self.read(&partition);
                }
            }
            Step::ReadAgain { which, back } => self.read_again(which, back),
            Step::Wait { millis } => self.wait(millis),
            Step::Publish { which } => self.publish(which),
            Step::Commit => self.commit(),
            Step::Rebalance { number, is_drained } => self.rebalance(number, is_drained),
            Step::BackPressure(on) => self.buffer.set_back_pressured(on, at(self.now)),
        }
        self.check();
    }

    fn pick_partition(&self, which: usize) -> TopicPartition {
        let index = which % self.logs.len();
        self.logs.keys().nth(index).unwrap().clone()
    }

    /// Reads the next record of a partition, or notes its end, unless it is paused.
    fn read(&mut self, partition: &TopicPartition) {
        if self.paused.contains(partition) {
            return;
        }
        let position = self.positions[partition];
        if position == self.logs[partition].len() {
            if self.at_end.insert(partition.clone()) {
                let events = reach_end(&self.buffer, partition, at(self.now));
                self.take(events);
            }
            return;
        }
        self.positions.insert(partition.clone(), position + 1);
        let view = self.view(partition, position);
        if position < self.committed[partition] {
            panic!("`{}` was read again below the commit", view.record.source);
        }
        assert_eq!(self.ledger.begin(&view.record.source), Begun::Fresh);
        let identity = (view.record.source.clone(), self.generation_of(partition));
        assert!(self.undecided.insert(identity));
        let events = self.buffer.accept(view, at(self.now));
        self.take(events);
    }

    fn view(&self, partition: &TopicPartition, position: usize) -> View {
        let shot = Shot {
            partition: partition.partition,
            offset: position as i64,
            generation: self.generation_of(partition),
            ..self.logs[partition][position].clone()
        };
        shot.build(Some(&self.budget))
    }

    fn generation_of(&self, partition: &TopicPartition) -> u64 {
        let is_current = |generation: &u64| self.ledger.is_current(partition, *generation);
        (1..=self.generation).rev().find(is_current).unwrap()
    }

    /// A record that waits in an open group comes once more under the same assignment.
    fn read_again(&mut self, which: usize, back: usize) {
        let partition = self.pick_partition(which);
        let position = self.positions[&partition];
        let Some(again) = position.checked_sub(1 + back % 5) else {
            return;
        };
        let view = self.view(&partition, again);
        let identity = (view.record.source.clone(), view.record.generation);
        // What was refused is not remembered here, nor what waits for its turn; the ledger tells its copies.
        if !self.knows_ends && self.undecided.contains(&identity) {
            assert_eq!(self.ledger.begin(&view.record.source), Begun::InFlight);
            let events = self.buffer.accept(view, at(self.now));
            self.take(events);
            self.at_end.remove(&partition);
        }
    }

    fn wait(&mut self, millis: i64) {
        self.now += millis;
        let events = self.buffer.tick(at(self.now));
        self.take(events);
        let decision = self.buffer.flow(&self.budget, at(self.now));
        for partition in decision.pause {
            assert!(self.paused.insert(partition), "paused twice");
        }
        for partition in decision.resume {
            assert!(self.paused.remove(&partition), "resumed twice");
            self.at_end.remove(&partition); // it is told again
        }
        self.evictions += decision.events.len();
        self.take(decision.events);
    }

    /// Notes what became of records: each of them was read and undecided until now.
    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            let is_copy = matches!(event, Event::Finished(_));
            let (part, records) = match event {
                Event::Closed(group, _) => {
                    let records: Vec<_> = group
                        .views
                        .iter()
                        .map(|view| Arc::clone(&view.record))
                        .chain(group.absorbed.iter().cloned())
                        .collect();
                    let part = group.part.clone();
                    self.closed.push(Closing::of(&group));
                    (Some(part), records)
                }
                Event::Expired {
                    rejects, absorbed, ..
                } => {
                    let rejected = rejects.into_iter().map(|reject| reject.record);
                    (None, rejected.chain(absorbed).collect())
                }
                Event::Rejected(reject) => (None, vec![reject.record]),
                Event::Finished(records) => (None, records),
            };
            for record in &records {
                let identity = (record.source.clone(), record.generation);
                assert!(
                    self.undecided.remove(&identity),
                    "{identity:?} is decided twice"
                );
                assert!(self.decided.insert(identity));
            }
            self.outgoing.push(Outgoing {
                part,
                is_copy,
                records,
            });
        }
    }

    /// Publishes something on its way, unless its partition was lost.
    fn publish(&mut self, which: usize) {
        if self.outgoing.is_empty() {
            return;
        }
        let outgoing = self.outgoing.swap_remove(which % self.outgoing.len());
        let is_current = |record: &Arc<Record>| {
            let partition = record.source.topic_partition();
            self.ledger.is_current(&partition, record.generation)
        };
        if !outgoing.records.iter().all(is_current) {
            return;
        }
        for record in &outgoing.records {
            assert!(self.ledger.finish(&record.source, record.generation));
            *self.published.entry(record.source.clone()).or_default() += 1;
            if !outgoing.is_copy {
                self.seen_by_readers.insert(self.content(&record.source));
            }
        }
        if let (Some(part), Some(first)) = (outgoing.part, outgoing.records.first()) {
            self.buffer
                .mark_published(&part, &first.source, first.generation);
        }
    }

    fn content(&self, source: &SourceOffset) -> Content {
        let log = &self.logs[&source.topic_partition()];
        let shot = &log[usize::try_from(source.offset).unwrap()];
        (shot.part, shot.view, shot.bytes.clone())
    }

    fn commit(&mut self) {
        let positions = self.ledger.positions_to_commit();
        self.ledger.mark_committed(&positions);
        for commit in positions {
            let partition = commit.partition;
            let position = usize::try_from(commit.position).unwrap();
            for offset in self.committed[&partition]..position {
                let source = SourceOffset {
                    topic: partition.topic.clone(),
                    partition: partition.partition,
                    offset: offset as i64,
                };
                assert!(self.published.contains_key(&source), "`{source}` is lost");
            }
            self.committed.insert(partition, position);
        }
    }

    /// All topics' partitions of a number are lost and come back, to be read from the commit.
    fn rebalance(&mut self, number: i32, is_drained: bool) {
        let of_number = |partition: &&TopicPartition| partition.partition == number;
        let lost: Vec<_> = self.logs.keys().filter(of_number).cloned().collect();
        self.buffer.revoke(&lost, at(self.now));
        if is_drained {
            while !self.outgoing.is_empty() {
                self.publish(0);
            }
            self.commit();
        }
        self.ledger.revoke(&lost);
        self.undecided
            .retain(|(source, _)| !lost.contains(&source.topic_partition()));
        self.generation += 1;
        self.assign(&lost);
        self.ledger.assign(lost.iter().cloned(), self.generation);
        for partition in lost {
            let committed = self.committed[&partition];
            for offset in committed..self.positions[&partition] {
                let shot = self.view(&partition, offset);
                self.read_twice.insert(shot.record.source.clone());
            }
            self.positions.insert(partition.clone(), committed);
            self.paused.remove(&partition);
            self.at_end.remove(&partition);
        }
    }

    /// The buffer's books agree with each other, and every undecided record waits for its turn or is in an
    /// open group.
    fn check(&self) {
        let mut held: HashSet<Identity> = HashSet::new();
        let (mut open, mut closed, mut bytes) = (0, 0, 0);
        for entry in &self.buffer.parts {
            match entry.value() {
                PartState::Open(group) => {
                    open += 1;
                    let records = || group.records();
                    bytes += records().map(|record| record.size_bytes()).sum::<usize>();
                    for record in records() {
                        let identity = (record.source.clone(), record.generation);
                        assert!(held.insert(identity), "held twice");
                    }
                }
                PartState::Closed(_) => closed += 1,
            }
        }
        for record in self.buffer.timeline().order.records() {
            let identity = (record.source.clone(), record.generation);
            assert!(held.insert(identity), "held twice");
        }
        assert_eq!(held, self.undecided);
        let status = self.buffer.status(at(self.now));
        assert_eq!((status.open_groups, status.closed_parts), (open, closed));
        assert_eq!(status.open_bytes, bytes as u64);
        let timeline = self.buffer.timeline();
        assert!(timeline.schedule.is_consistent());
        let waiting = timeline.order.records().map(|one| one.size_bytes() as u64);
        assert_eq!(timeline.order.held_bytes(), waiting.sum::<u64>());
    }

    /// Reads everything, lets time pass and publishes until nothing is left to do.
    pub(super) fn drain(&mut self) {
        self.buffer.set_back_pressured(false, at(self.now));
        let partitions: Vec<_> = self.logs.keys().cloned().collect();
        for _ in 0..DRAIN_ROUNDS {
            for partition in &partitions {
                self.read(partition);
                self.wait(0);
            }
            self.wait(1_000);
            while !self.outgoing.is_empty() {
                self.publish(0);
            }
            self.check();
            let is_read = |partition| self.positions[partition] == self.logs[partition].len();
            if partitions.iter().all(is_read) && self.undecided.is_empty() {
                self.check_outcome();
                return;
            }
        }
        panic!(
            "the world does not come to rest: {:?}",
            self.buffer.status(at(self.now))
        );
    }

    fn check_outcome(&mut self) {
        self.commit();
        for (partition, log) in &self.logs {
            assert_eq!(
                self.committed[partition],
                log.len(),
                "all of {partition:?} is committed"
            );
        }
        for (source, times) in &self.published {
            let is_once = *times == 1 || self.read_twice.contains(source);
            assert!(is_once, "`{source}` was published {times} times");
            let content = self.content(source);
            let is_seen = self.seen_by_readers.contains(&content);
            assert!(
                is_seen,
                "{content:?} is finished, but no reader has seen it"
            );
        }
        assert_eq!(self.budget.used_bytes(), 0, "all memory is given back");
    }
}

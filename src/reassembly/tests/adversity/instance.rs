//! One `panoptes run` as a state machine: poll thread, channel, intake, publisher. What decides is the
//! product's own; what carries it out here are queues instead of threads.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Instant;

use super::super::*;
use super::Scenario;
use super::brokers::Brokers;
use crate::kafka::offsets::OffsetLedger;
use crate::kafka::pauses::Pauses;

/// Messages between the poll thread and the intake.
pub(super) const CHANNEL: usize = 8;
/// How long nothing is read after memory was last seen used up, in milliseconds.
pub(super) const MEMORY_PAUSE: i64 = 100;

/// Something that can happen, in whatever order. Numbers choose among what is there.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A camera writes to a partition.
    Write { which: usize, records: usize },
    /// The poll thread comes round, and finds so many records of a partition.
    Poll { which: usize, records: usize },
    /// The intake takes messages from the channel.
    TakeIn { messages: usize },
    /// Time passes; then the intake looks at the clock and at the memory.
    Wait { millis: i64 },
    /// The process is frozen; then the intake looks at the clock and at the memory.
    Freeze { millis: i64 },
    /// A result or dead letter joins the transaction.
    Publish { which: usize },
    /// The transaction ends.
    Commit { is_aborted: bool },
    /// All partitions are lost; those of the numbers in the mask come back.
    Rebalance { numbers: u8, is_drained: bool },
    /// The process is killed, and another one starts.
    Restart,
}

pub(super) enum Message {
    Assigned(Vec<TopicPartition>, u64, Vec<PartClosure>),
    Revoked(Vec<TopicPartition>),
    Record(View),
    End(TopicPartition),
    Stuck(TopicPartition, usize),
}

/// What the intake tells the poll thread, under an assignment.
pub(super) enum Command {
    Pause(Vec<TopicPartition>, u64),
    Resume(Vec<TopicPartition>, u64),
}

/// A result, dead letter or copy on its way out.
pub(super) struct Outgoing {
    pub(super) closure: Option<Arc<PartClosure>>,
    pub(super) records: Vec<Arc<Record>>,
    /// The ledger knows already: its transaction was aborted and is made again.
    pub(super) is_finished: bool,
}

/// All that is lost with the process.
pub(super) struct Process {
    // The poll thread.
    pub(super) ledger: OffsetLedger,
    pub(super) pauses: Pauses,
    pub(super) generation: u64,
    pub(super) positions: BTreeMap<TopicPartition, i64>,
    pub(super) paused: HashSet<TopicPartition>,
    pub(super) undelivered: VecDeque<Message>,
    pub(super) held: VecDeque<Message>,
    pub(super) is_jammed: bool,
    pub(super) used_up_at: Option<i64>,
    pub(super) closures_read: usize,
    // The intake.
    pub(super) channel: VecDeque<Message>,
    pub(super) commands: VecDeque<Command>,
    pub(super) buffer: ReassemblyBuffer,
    pub(super) told_generation: u64,
    // The stages behind.
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) transaction: Vec<Outgoing>,
}

impl Process {
    fn start(scenario: &Scenario) -> Self {
        let patience = scenario.settings.line.timeout;
        Self {
            ledger: OffsetLedger::default(),
            pauses: Pauses::new(scenario.most_unfinished, patience),
            generation: 0,
            positions: BTreeMap::new(),
            paused: HashSet::new(),
            undelivered: VecDeque::new(),
            held: VecDeque::new(),
            is_jammed: false,
            used_up_at: None,
            closures_read: 0,
            channel: VecDeque::new(),
            commands: VecDeque::new(),
            buffer: ReassemblyBuffer::new(scenario.settings.clone()),
            told_generation: 0,
            outgoing: Vec::new(),
            transaction: Vec::new(),
        }
    }

    pub(super) fn assigned(&self) -> Vec<TopicPartition> {
        self.positions.keys().cloned().collect()
    }

    pub(super) fn is_current(&self, record: &Record) -> bool {
        let partition = record.source.topic_partition();
        self.ledger.is_current(&partition, record.generation)
    }
}

pub(super) struct Instance {
    pub(super) scenario: Scenario,
    pub(super) brokers: Brokers,
    pub(super) process: Process,
    pub(super) budget: MemoryBudget,
    pub(super) largest: u64,
    pub(super) epoch: Instant,
    pub(super) now: i64,
    pub(super) partial_parts: usize,
    pub(super) happened: Happened,
}

/// How often happened what schedules must bring about to be worth anything.
#[derive(Debug, Default)]
pub(super) struct Happened {
    pub(super) crowds: usize,
    pub(super) stuck: usize,
    pub(super) memory_pauses: usize,
    pub(super) evictions: usize,
    pub(super) jams: usize,
}

impl Instance {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let logs = scenario.logs();
        let sizes = logs.values().flatten();
        let largest = sizes.map(|shot| shot.clone().build(None).record.size_bytes() as u64);
        let largest = largest.max().unwrap_or(1);
        let mut instance = Self {
            scenario: scenario.clone(),
            brokers: Brokers::new(logs),
            process: Process::start(scenario),
            budget: MemoryBudget::new(largest * scenario.budget_records),
            largest,
            epoch: Instant::now(),
            now: 0,
            partial_parts: 0,
            happened: Happened::default(),
        };
        instance.assign(3);
        instance
    }

    pub(super) fn partial_parts(&self) -> usize {
        self.partial_parts
    }

    /// What chooses a partition in steps.
    pub(super) fn number_of(&self, partition: &TopicPartition) -> usize {
        let partitions = self.brokers.partitions();
        partitions.iter().position(|one| one == partition).unwrap()
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match *step {
            Step::Write { which, records } => {
                let partition = self.pick(which);
                self.brokers.write(&partition, records);
            }
            Step::Poll { which, records } => {
                let partition = self.pick(which);
                self.poll(&partition, records);
            }
            Step::TakeIn { messages } => self.take_in(messages),
            Step::Wait { millis } => self.wait(millis),
            Step::Freeze { millis } => self.freeze(millis),
            Step::Publish { which } => self.publish(which),
            Step::Commit { is_aborted } => self.commit(is_aborted),
            Step::Rebalance {
                numbers,
                is_drained,
            } => self.rebalance(numbers, is_drained),
            Step::Restart => {
                self.process = Process::start(&self.scenario);
                self.assign(3);
            }
        }
        self.check();
    }

    fn pick(&self, which: usize) -> TopicPartition {
        let partitions = self.brokers.partitions();
        partitions[which % partitions.len()].clone()
    }

    pub(super) fn instant(&self) -> Instant {
        self.epoch + Duration::from_millis(u64::try_from(self.now).unwrap())
    }

    /// Whether the stages behind have no room. That is not the line's silence.
    fn is_blocked(&mut self) -> bool {
        let is_blocked = self.process.outgoing.len() >= self.scenario.room_behind;
        let now = at(self.now);
        self.process.buffer.set_back_pressured(is_blocked, now);
        is_blocked
    }

    pub(super) fn take_in(&mut self, messages: usize) {
        for _ in 0..messages {
            if self.is_blocked() {
                return;
            }
            let Some(message) = self.process.channel.pop_front() else {
                return;
            };
            let (now, process) = (at(self.now), &mut self.process);
            let events = match message {
                Message::Record(view) => process.buffer.accept(view, now),
                Message::End(partition) => {
                    process.buffer.end_of_partition(&partition, now);
                    Vec::new()
                }
                Message::Stuck(partition, may_wait) => {
                    process.buffer.make_way(&partition, may_wait, now)
                }
                Message::Assigned(partitions, generation, closures) => {
                    process.told_generation = generation;
                    process.buffer.assign(&partitions, generation, now);
                    process.buffer.learn_closed(closures);
                    Vec::new()
                }
                Message::Revoked(partitions) => {
                    process.buffer.revoke(&partitions, now);
                    Vec::new()
                }
            };
            self.send(events);
        }
    }

    fn wait(&mut self, millis: i64) {
        let until = self.now + millis;
        self.process.buffer.look(Duration::ZERO, at(self.now));
        while self.now < until {
            self.now = until.min(self.now + 1_000);
            self.process.buffer.look(Duration::ZERO, at(self.now));
        }
        self.look_at_the_clock();
    }

    fn freeze(&mut self, millis: i64) {
        self.now += millis;
        self.process.buffer.look(Duration::ZERO, at(self.now));
        self.look_at_the_clock();
    }

    fn look_at_the_clock(&mut self) {
        if self.is_blocked() {
            return;
        }
        let (now, process) = (at(self.now), &mut self.process);
        let events = process.buffer.tick(now);
        let flow = process.buffer.flow(&self.budget, now);
        let generation = process.told_generation;
        self.happened.memory_pauses += flow.pause.len();
        process
            .commands
            .push_back(Command::Pause(flow.pause, generation));
        process
            .commands
            .push_back(Command::Resume(flow.resume, generation));
        self.happened.evictions += flow.events.len();
        self.send(events);
        self.send(flow.events);
    }

    fn send(&mut self, events: Vec<Event>) {
        for event in events {
            let (closure, records) = match event {
                Event::Closed(group, closure) => {
                    self.partial_parts += usize::from(group.is_partial());
                    (Some(closure), group.records().cloned().collect())
                }
                Event::Expired {
                    rejects,
                    absorbed,
                    closure,
                    ..
                } => {
                    let rejected = rejects.into_iter().map(|reject| reject.record);
                    (Some(closure), rejected.chain(absorbed).collect())
                }
                Event::Rejected(reject) => (None, vec![reject.record]),
                Event::Finished(records) => (None, records),
            };
            self.process.outgoing.push(Outgoing {
                closure,
                records,
                is_finished: false,
            });
        }
    }

    fn publish(&mut self, which: usize) {
        let process = &mut self.process;
        if !process.outgoing.is_empty() {
            let outgoing = process.outgoing.swap_remove(which % process.outgoing.len());
            process.transaction.push(outgoing);
        }
    }

    pub(super) fn publish_all(&mut self) {
        while !self.process.outgoing.is_empty() {
            self.publish(0);
        }
        self.commit(false);
    }

    fn commit(&mut self, is_aborted: bool) {
        let mut transaction = std::mem::take(&mut self.process.transaction);
        let is_current = |outgoing: &Outgoing| {
            outgoing
                .records
                .iter()
                .all(|one| self.process.is_current(one))
        };
        transaction.retain(is_current);
        if transaction.is_empty() {
            return;
        }
        let process = &mut self.process;
        for outgoing in &mut transaction {
            for record in &outgoing.records {
                let counts = process.ledger.finish(&record.source, record.generation);
                assert_eq!(counts, !outgoing.is_finished, "`{}`", record.source);
            }
            outgoing.is_finished = true;
        }
        let positions = process.ledger.positions_to_commit();
        if is_aborted {
            process.transaction = transaction;
            return;
        }
        let records = || transaction.iter().flat_map(|outgoing| &outgoing.records);
        let inputs: Vec<_> = records().map(|record| record.source.clone()).collect();
        self.brokers.commit(&inputs, &positions);
        process.ledger.mark_committed(&positions);
        let closures = || transaction.iter().filter_map(|one| one.closure.as_deref());
        self.brokers.close_parts(closures().cloned());
        for outgoing in &transaction {
            if let (Some(closure), Some(first)) = (&outgoing.closure, outgoing.records.first()) {
                let buffer = &process.buffer;
                buffer.mark_published(&closure.part, &first.source, first.generation);
            }
        }
    }

    /// The cameras write what is left and fall silent; every stage gets its turn until all has ended.
    pub(super) fn come_to_rest(&mut self) {
        let partitions = self.brokers.partitions();
        if self.process.positions.len() < partitions.len() {
            self.rebalance(3, false);
        }
        let rounds = 50 + 20 * self.brokers.records();
        for _ in 0..rounds {
            for partition in &partitions {
                self.brokers.write(partition, 2);
                self.poll(partition, 2);
                self.take_in(CHANNEL);
                self.check();
            }
            self.wait(500);
            self.publish_all();
            self.check();
            if self.brokers.has_all_ended() {
                self.brokers.assert_all_ended();
                let used = self.budget.used_bytes();
                return assert_eq!(used, 0, "all memory is given back");
            }
        }
        panic!(
            "no rest after {rounds} rounds: {:?}, {:?}",
            self.process.pauses,
            self.process.buffer.status(at(self.now))
        );
    }
}

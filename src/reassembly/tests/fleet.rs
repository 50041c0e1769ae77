//! Many instances and many partitions: who owns what after each rebalance, and what that costs.
//!
//! Each instance has its own ledger and buffer; the group and the brokers are modelled: `range`
//! assignment as librdkafka does it, offsets with their metadata, fencing by generation.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::kafka::commit_metadata::{decode, encode};
use crate::kafka::offsets::{Begun, CommitPosition, OffsetLedger};

pub(super) const CAMERAS: [&str; 5] = ["top", "left", "right", "front", "back"];
pub(super) const NUMBERS: i32 = 1_000;
const INSTANCES: usize = 64;
const PARTS_A_NUMBER: i64 = 6;

/// What `range` gives each of `members`, who are in order.
pub(super) fn range(members: &[u32], numbers: i32) -> BTreeMap<u32, Vec<TopicPartition>> {
    let mut assignments: BTreeMap<u32, Vec<TopicPartition>> = BTreeMap::new();
    let count = i32::try_from(members.len()).unwrap();
    let (each, more) = (numbers / count, numbers % count);
    for camera in CAMERAS {
        for (index, member) in (0..).zip(members) {
            let start = each * index + index.min(more);
            let length = each + i32::from(index < more);
            let owned = (start..start + length).map(|number| partition(camera, number));
            assignments.entry(*member).or_default().extend(owned);
        }
    }
    assignments
}

pub(super) fn fleet_settings() -> ReassemblySettings {
    ReassemblySettings {
        expected: ExpectedViews::for_all(views(&CAMERAS)),
        ..settings()
    }
}

/// A result that waits for its transaction.
struct Finished {
    records: Vec<Arc<Record>>,
}

struct Member {
    ledger: OffsetLedger,
    buffer: ReassemblyBuffer,
    positions: HashMap<TopicPartition, i64>,
    outgoing: Vec<Finished>,
    /// The group's generation as of the last assignment, with which transactions are vouched for.
    generation: u64,
}

impl Member {
    fn new() -> Self {
        Self {
            ledger: OffsetLedger::default(),
            buffer: ReassemblyBuffer::new(fleet_settings()),
            positions: HashMap::new(),
            outgoing: Vec::new(),
            generation: 0,
        }
    }
}

/// The group, the brokers and the parts that the cameras saw: the same on each partition number.
struct Fleet {
    random: ChaCha8Rng,
    members: BTreeMap<u32, Member>,
    next_member: u32,
    generation: u64,
    committed: HashMap<TopicPartition, (i64, String)>,
    ended: HashSet<SourceOffset>,
    most_bytes: usize,
}

impl Fleet {
    fn of(instances: usize, seed: u64) -> Self {
        let mut fleet = Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            members: BTreeMap::new(),
            next_member: 0,
            generation: 0,
            committed: HashMap::new(),
            ended: HashSet::new(),
            most_bytes: 0,
        };
        for _ in 0..instances {
            fleet.add();
        }
        fleet.rebalance();
        fleet
    }

    fn add(&mut self) {
        self.members.insert(self.next_member, Member::new());
        self.next_member += 1;
    }

    fn any_member(&mut self) -> u32 {
        let index = self.random.random_range(0..self.members.len());
        *self.members.keys().nth(index).unwrap()
    }

    /// All give up what they have and get what `range` says; drained ones have committed all.
    fn rebalance(&mut self) {
        self.generation += 1;
        let members: Vec<u32> = self.members.keys().copied().collect();
        let assignments = range(&members, NUMBERS);
        check_whole_numbers(&assignments);
        for (member, assigned) in assignments {
            self.give_up(member);
            self.take(member, assigned);
        }
    }

    fn give_up(&mut self, member: u32) {
        let member = self.members.get_mut(&member).unwrap();
        let lost: Vec<_> = member.positions.drain().map(|(lost, _)| lost).collect();
        member.buffer.revoke(&lost, at(0));
        member.ledger.revoke(&lost);
    }

    fn take(&mut self, member: u32, assigned: Vec<TopicPartition>) {
        let member = self.members.get_mut(&member).unwrap();
        member.generation = self.generation;
        member.buffer.assign(&assigned, self.generation, at(0));
        member
            .ledger
            .assign(assigned.iter().cloned(), self.generation);
        for partition in assigned {
            let mut position = 0;
            if let Some((committed, metadata)) = self.committed.get(&partition) {
                position = *committed;
                let finished = decode(position, metadata);
                member.ledger.restore(&partition, position, &finished);
            }
            member.positions.insert(partition, position);
        }
    }

    /// A member reads some of what it owns, in any order of partitions, and closes what is complete.
    fn read(&mut self, id: u32, records: usize) {
        let member = self.members.get_mut(&id).unwrap();
        let mut owned: Vec<_> = member.positions.keys().cloned().collect();
        owned.sort();
        owned.shuffle(&mut self.random);
        for partition in owned.into_iter().take(records) {
            let position = member.positions.get_mut(&partition).unwrap();
            if *position == PARTS_A_NUMBER {
                continue;
            }
            let name = i64::from(partition.partition) * PARTS_A_NUMBER + *position;
            let camera = CAMERAS
                .into_iter()
                .find(|camera| *camera == partition.topic.as_str());
            let shot = Shot {
                partition: partition.partition,
                generation: member.generation,
                ..shot(fleet_part(name), camera.unwrap(), *position)
            };
            let view = shot.build(None);
            *position += 1;
            match member.ledger.begin(&view.record.source) {
                Begun::Fresh => {}
                Begun::Finished => continue,
                other => panic!("{other:?}"),
            }
            for event in member.buffer.accept(view, at(0)) {
                let Event::Closed(group, _) = event else {
                    panic!("{event:?}")
                };
                assert!(!group.is_partial());
                let records = group.records().cloned().collect();
                member.outgoing.push(Finished { records });
            }
        }
    }

    /// A member's transaction with some of what it has; the brokers take it from a current member.
    fn commit(&mut self, id: u32, results: usize) {
        let member = self.members.get_mut(&id).unwrap();
        member.outgoing.shuffle(&mut self.random);
        let rest = member.outgoing.len().saturating_sub(results);
        let transaction = member.outgoing.split_off(rest);
        let is_vouched_for = member.generation == self.generation;
        let mut inputs = Vec::new();
        for record in transaction.iter().flat_map(|result| &result.records) {
            // What is left from an earlier assignment is dropped by the publisher.
            if member.ledger.finish(&record.source, record.generation) {
                inputs.push(record.source.clone());
            }
        }
        let positions = member.ledger.positions_to_commit();
        member.ledger.mark_committed(&positions);
        if is_vouched_for {
            self.take_transaction(inputs, &positions);
        }
    }

    fn take_transaction(&mut self, inputs: Vec<SourceOffset>, positions: &[CommitPosition]) {
        for input in inputs {
            assert!(self.ended.insert(input.clone()), "`{input}` ends twice");
        }
        for commit in positions {
            let encoded = encode(commit.position, &commit.finished);
            assert_eq!(encoded.left_out, 0);
            self.most_bytes = self.most_bytes.max(encoded.text.len());
            let told = (commit.position, encoded.text);
            self.committed.insert(commit.partition.clone(), told);
        }
    }

    fn work(&mut self) {
        let members: Vec<u32> = self.members.keys().copied().collect();
        for member in members {
            for _ in 0..4 {
                let records = self.random.random_range(0..100);
                self.read(member, records);
            }
            let results = self.random.random_range(0..8);
            self.commit(member, results);
        }
    }

    /// One joins, leaves in order, or fails; of the others some drain in time and some do not.
    fn change(&mut self) {
        match self.random.random_range(0..3) {
            0 if self.members.len() < INSTANCES => self.add(),
            1 if self.members.len() > INSTANCES / 2 => {
                let leaves = self.any_member();
                self.commit(leaves, usize::MAX);
                self.members.remove(&leaves);
            }
            _ => {
                let fails = self.any_member();
                let zombie = self.members.remove(&fails).unwrap();
                self.drain_some();
                self.rebalance();
                // It comes back to life with what it had; the group has gone on without it.
                self.members.insert(fails, zombie);
                self.commit(fails, usize::MAX);
                self.members.remove(&fails);
                return;
            }
        }
        self.drain_some();
        self.rebalance();
    }

    fn drain_some(&mut self) {
        let members: Vec<u32> = self.members.keys().copied().collect();
        for member in members {
            if self.random.random_bool(0.7) {
                self.commit(member, usize::MAX);
            }
        }
    }

    fn finish(&mut self) {
        let records = CAMERAS.len() * usize::try_from(PARTS_A_NUMBER).unwrap() * NUMBERS as usize;
        for _ in 0..10 * PARTS_A_NUMBER {
            let members: Vec<u32> = self.members.keys().copied().collect();
            for member in members {
                self.read(member, usize::MAX);
                self.commit(member, usize::MAX);
            }
        }
        assert_eq!(self.ended.len(), records, "nothing is lost");
        for (partition, (position, metadata)) in &self.committed {
            let told = (*position, metadata.as_str());
            assert_eq!(told, (PARTS_A_NUMBER, ""), "{partition:?}");
        }
    }
}

fn fleet_part(number: i64) -> &'static str {
    static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let all = i64::from(NUMBERS) * PARTS_A_NUMBER;
        (0..all)
            .map(|number| &*format!("f{number}").leak())
            .collect()
    });
    NAMES[usize::try_from(number).unwrap()]
}

/// Fails unless each partition number lies whole on one member, and all of them do.
fn check_whole_numbers(assignments: &BTreeMap<u32, Vec<TopicPartition>>) {
    let mut owners: HashMap<i32, BTreeSet<u32>> = HashMap::new();
    let mut partitions = 0;
    for (member, assigned) in assignments {
        partitions += assigned.len();
        for partition in assigned {
            owners
                .entry(partition.partition)
                .or_default()
                .insert(*member);
        }
    }
    assert_eq!(owners.len(), NUMBERS as usize);
    assert_eq!(partitions, CAMERAS.len() * NUMBERS as usize);
    assert!(owners.values().all(|owners| owners.len() == 1));
    let counts = assignments.values().map(Vec::len);
    let (least, most) = (counts.clone().min(), counts.max());
    assert!(most.unwrap() - least.unwrap() <= CAMERAS.len());
}

#[test]
fn sixty_four_instances_and_a_thousand_partitions_end_each_record_once() {
    const SEED: u64 = 64;
    let mut fleet = Fleet::of(INSTANCES, SEED);
    for _ in 0..24 {
        fleet.work();
        fleet.change();
    }
    assert!(fleet.most_bytes > 0, "parts finish out of order");
    fleet.finish();
    println!(
        "seed {SEED}: {} generations, {} members at the end, `{}` bytes of metadata at most",
        fleet.generation,
        fleet.members.len(),
        fleet.most_bytes
    );
}

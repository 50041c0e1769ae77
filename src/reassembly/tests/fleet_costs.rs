//! What grows with what: a measurement, to be run by hand and read by a person.
//!
//! ```sh
//! cargo test --locked --lib -- --ignored --nocapture fleet_costs
//! ```

use std::time::Instant;

use super::fleet::{CAMERAS, NUMBERS, fleet_settings, range};
use super::*;
use crate::kafka::commit_metadata::encode;
use crate::kafka::offsets::OffsetLedger;

/// Parts of each partition number that wait for their last view.
const OPEN: i64 = 8;

/// The time of one call, in milliseconds, over a few.
fn millis(times: u32, mut call: impl FnMut()) -> f64 {
    let started = Instant::now();
    for _ in 0..times {
        call();
    }
    started.elapsed().as_secs_f64() * 1e3 / f64::from(times)
}

/// One instance's share of the partitions, and what is done with it.
struct Share {
    partitions: Vec<TopicPartition>,
    buffer: ReassemblyBuffer,
    ledger: OffsetLedger,
}

impl Share {
    fn of(instances: u32) -> Self {
        let members: Vec<u32> = (0..instances).collect();
        let mut assignments = range(&members, NUMBERS);
        Self {
            partitions: assignments.remove(&0).unwrap(),
            buffer: ReassemblyBuffer::new(fleet_settings()),
            ledger: OffsetLedger::default(),
        }
    }

    fn assign(&mut self, generation: u64) {
        self.buffer.assign(&self.partitions, generation, at(0));
        self.ledger
            .assign(self.partitions.iter().cloned(), generation);
    }

    /// Every second part of each number is complete and published, so that each commit has as many
    /// ranges as may be; the others wait. Gives the milliseconds that a record took.
    fn fill(&mut self, budget: &MemoryBudget) -> f64 {
        let mut shots = Vec::new();
        for partition in &self.partitions {
            let camera = CAMERAS.iter().find(|one| **one == partition.topic.as_str());
            for offset in 0..2 * OPEN {
                let number = i64::from(partition.partition) * 2 * OPEN + offset;
                let shot = Shot {
                    partition: partition.partition,
                    ..shot("", camera.unwrap(), offset)
                };
                shots.push((number, shot));
            }
        }
        shots.sort_by_key(|(number, _)| *number);
        let records = shots.len();
        let mut spent = 0.0;
        for (number, shot) in shots {
            let is_last = shot.view == CAMERAS[4];
            if number % 2 == 0 && is_last {
                continue;
            }
            let mut view = shot.build(Some(budget));
            view.part.part = PartId::new(format!("{number}"));
            self.ledger.begin(&view.record.source);
            let started = Instant::now();
            let events = self.buffer.accept(view, at(0));
            spent += started.elapsed().as_secs_f64() * 1e3;
            for event in events {
                let Event::Closed(group, _) = event else {
                    panic!("{event:?}")
                };
                for source in group.sources() {
                    self.ledger.finish(source, 1);
                }
            }
        }
        spent / records as f64
    }
}

#[test]
#[ignore = "a measurement"]
fn fleet_costs_of_a_share_of_a_thousand_partitions_of_five_topics() {
    println!(
        "instances partitions | assign revoke | record | tick status flow pause-all resume-all \
         back-pressure all-ends | positions entries bytes (milliseconds)"
    );
    for instances in [64, 16, 4, 1] {
        let mut share = Share::of(instances);
        let assign = millis(1, || share.assign(1));
        let budget = MemoryBudget::new(1 << 30);
        let record = share.fill(&budget);
        let Share {
            partitions,
            buffer,
            ledger,
        } = &share;
        let tick = millis(20, || assert!(buffer.tick(at(0)).is_empty()));
        let status = millis(20, || drop(buffer.status(at(0))));
        let flow = millis(20, || drop(buffer.flow(&budget, at(0))));
        let full = budget.lease(1 << 30);
        let mut paused = 0;
        let pause = millis(1, || paused = buffer.flow(&budget, at(0)).pause.len());
        drop(full);
        let resume = millis(1, || drop(buffer.flow(&budget, at(0))));
        assert_eq!(paused, partitions.len());
        let pressure = millis(2, || {
            buffer.set_back_pressured(true, at(0));
            buffer.set_back_pressured(false, at(0));
        });
        let ends = millis(1, || {
            for partition in partitions {
                buffer.end_of_partition(partition, at(0));
            }
        });
        let mut positions = Vec::new();
        let collect = millis(1, || positions = ledger.positions_to_commit());
        let text = |commit: &crate::kafka::offsets::CommitPosition| {
            encode(commit.position, &commit.finished).text.len()
        };
        let bytes: usize = positions.iter().map(text).sum();
        let revoke = millis(1, || {
            buffer.revoke(partitions, at(0));
        });
        println!(
            "{instances:9} {:10} | {assign:6.2} {revoke:6.2} | {record:6.4} | {tick:.3} {status:.3} \
             {flow:.3} {pause:.3} {resume:.3} {pressure:.3} {ends:.1} | {collect:.2} {} {bytes}",
            partitions.len(),
            positions.len(),
        );
    }
}

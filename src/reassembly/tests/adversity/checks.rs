//! What holds after every step.

use std::collections::HashSet;

use super::super::*;
use super::instance::{CHANNEL, Instance, Message, Outgoing};

impl Instance {
    pub(super) fn check(&self) {
        self.check_places();
        self.check_bounds();
        let process = &self.process;
        let held = process.pauses.held();
        for partition in &process.paused {
            let has_reason = process.is_jammed || held.contains(partition);
            assert!(has_reason, "{partition:?} is paused without cause");
        }
        assert!(
            held.iter()
                .all(|partition| process.paused.contains(*partition))
        );
    }

    /// Every unfinished record is in exactly one place.
    fn check_places(&self) {
        let process = &self.process;
        let mut places: HashSet<SourceOffset> = HashSet::new();
        let mut place = |record: &Arc<Record>| {
            if process.is_current(record) {
                let source = &record.source;
                assert!(places.insert(source.clone()), "`{source}` is in two places");
            }
        };
        let queues = [&process.held, &process.channel];
        for message in queues.into_iter().flatten() {
            if let Message::Record(view) = message {
                place(&view.record);
            }
        }
        for entry in &process.buffer.parts {
            if let PartState::Open(group) = entry.value() {
                group.records().for_each(&mut place);
            }
        }
        let unfinished = |outgoing: &&Outgoing| !outgoing.is_finished;
        for outgoing in process.outgoing.iter().chain(&process.transaction) {
            if unfinished(&outgoing) {
                outgoing.records.iter().for_each(&mut place);
            }
        }
        assert_eq!(places.len(), process.ledger.total_in_flight());
    }

    fn check_bounds(&self) {
        let process = &self.process;
        let most = self.scenario.most_unfinished;
        for partition in process.positions.keys() {
            let unfinished = process.ledger.in_flight(partition);
            assert!(unfinished <= most, "{unfinished} of {partition:?}");
            // What commits can tell goes by this, also where ranges are restored and not read yet.
            assert!(process.ledger.finished_above(partition).len() <= most);
        }
        let partitions = self.brokers.partitions().len();
        assert!(process.channel.len() <= CHANNEL);
        assert!(process.held.len() <= 2 * partitions + 1, "held");
        let status = process.buffer.status(at(self.now));
        let timeline = process.buffer.timeline();
        assert_eq!(
            process.buffer.parts.len(),
            status.open_groups + status.closed_parts
        );
        assert!(status.closed_parts <= self.scenario.settings.closed.max_parts);
        assert!(status.open_groups <= most * partitions);
        assert!(status.partitions.len() <= partitions);
        assert!(timeline.quiet_numbers().len() <= 2);
        assert!(timeline.schedule.is_consistent());
        assert!(status.open_bytes <= self.budget.used_bytes());
        let (used, limit) = (self.budget.used_bytes(), self.budget.limit_bytes());
        assert!(used < limit + self.largest, "{used} of {limit} bytes");
    }
}

//! Parts that a run closed for a reason that another run over the same records need not have: its wall
//! clock, or its memory. Two runs with the same model may differ in these and in no others.

use serde::Serialize;

use super::counts::Examples;
use super::side::Judged;
use crate::domain::CloseCause;

/// The parts of one topic that were closed early.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EarlyClosings {
    /// Parts that the wall clock closed, since nothing came that would have moved stream time.
    pub wall_clock: Examples,
    /// Parts that were closed for want of memory.
    pub evicted: Examples,
    /// Those of both kinds that came out differently in the other topic: made from other records, or decided
    /// otherwise.
    pub differ: Examples,
    /// Partial results that do not say why they were closed, as earlier releases wrote them.
    pub untold: u64,
}

impl EarlyClosings {
    /// One more result of the topic, and the other topic's of the same part, if it has one.
    pub(super) fn add(&mut self, one: &Judged, other: Option<&Judged>, words: impl Fn() -> String) {
        let examples = match one.closed_by {
            Some(CloseCause::Complete | CloseCause::StreamTime) => return,
            Some(CloseCause::WallClock) => &mut self.wall_clock,
            Some(CloseCause::Evicted) => &mut self.evicted,
            None => {
                self.untold += u64::from(one.is_partial);
                return;
            }
        };
        examples.add(&words);
        let differs = |other: &Judged| {
            one.records != other.records
                || one.decision != other.decision
                || one.is_partial != other.is_partial
        };
        if other.is_some_and(differs) {
            self.differ.add(words);
        }
    }
}

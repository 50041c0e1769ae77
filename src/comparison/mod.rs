//! What two runs over the same records say of the same parts, and where they differ.
//!
//! A [`Side`] takes the records of one results topic and keeps of each result what a comparison
//! needs, some 200 bytes: part, decision, score, threshold, which records it was made from, and where
//! it stands, so that the few results that matter can be read again. [`Comparison::new`] joins two
//! sides by part and counts. Nothing here does I/O, and the order in which a topic's partitions were
//! read changes nothing.
//!
//! **When two results are of the same part.** Their line and part ID are the same, and at least one
//! record went into both. The records decide because a part ID may be used again. Where several
//! results could belong together, those with the most records in common do, the later in the topic
//! before the earlier. What is left over is counted as what it is: the part of one topic only, a
//! part with a known ID that was made from other records, or one more result from records that
//! another result of the topic is made from (a topic that holds two runs).
//!
//! Where one of the runs was to score a range alone ([`ReplayedRange`]), the other's parts beyond it that
//! have no partner are counted apart and take part in nothing else.

mod advice;
mod compare;
mod counts;
mod early;
mod flips;
mod histogram;
mod join;
mod range;
mod side;
#[cfg(test)]
pub(crate) mod testing;

pub use advice::{Advice, Cut, FEWEST_OF_A_KIND, ThresholdAdvice};
pub use compare::{ClassComparison, ClassSide, Comparison, Leftovers, SideReport};
pub use counts::{Changes, DECISIONS, DecisionCounts, Examples, ScoreSummary, ThresholdUse};
pub use early::EarlyClosings;
pub use flips::{Flip, Judgement, ViewChange, ViewJudgement, view_changes};
pub use histogram::Histogram;
pub use range::ReplayedRange;
pub use side::{Place, ReadAccount, Runs, Side, Wanted};

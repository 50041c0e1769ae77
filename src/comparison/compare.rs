//! The comparison of two sides: who decided what, how often, and on which parts otherwise.

use std::collections::BTreeMap;

use serde::Serialize;

use super::advice::{ThresholdAdvice, advise};
use super::counts::{Changes, DecisionCounts, Examples, ScoreSummary, ThresholdUse, ThresholdUses};
use super::early::EarlyClosings;
use super::flips::{Flip, in_order};
use super::histogram::Histogram;
use super::join::{Joined, Leftover, join};
use super::side::{Judged, ReadAccount, Side};
use crate::domain::{ClassName, Decision, Timestamp};

/// All that a comparison finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The topic that the other is held against: what was decided then.
    pub a: SideReport,
    /// The other topic: what would be decided now.
    pub b: SideReport,
    /// Parts with a result in both topics.
    pub joined: u64,
    /// Those of them that the two decide differently.
    pub flipped: u64,
    /// Those of them whose class is another in B.
    pub class_differs: Examples,
    /// What became of A's decisions.
    pub changes: Changes,
    /// Class by class.
    pub classes: Vec<ClassComparison>,
    /// The parts that the two decide differently, in the order in which a person should see them.
    pub flips: Vec<Flip>,
}

/// What one topic holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SideReport {
    /// The topic.
    pub topic: String,
    /// How many results each model gave, by name and version.
    pub models: BTreeMap<String, u64>,
    /// What the records of the topic were.
    #[serde(flatten)]
    pub read: ReadAccount,
    /// Results that were published before under the same ID; they count once.
    pub repeated: Examples,
    /// Those of them that say something else than the first time.
    pub contradicting: Examples,
    /// Results, each once.
    pub decisions: DecisionCounts,
    /// Results without a partner in the other topic.
    pub unpaired: Leftovers,
    /// Parts that were closed by the wall clock or for want of memory.
    pub closed_early: EarlyClosings,
}

/// Results of one topic without a partner in the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leftovers {
    /// Parts of this topic alone.
    pub only_here: Examples,
    /// How many of those began before the other topic's first part or after its last: the other run
    /// did not look at that time.
    pub outside_the_others_time: u64,
    /// Parts whose ID the other topic has too, made from other records.
    pub same_id_other_records: Examples,
    /// Further results of records that another result of the topic is made from.
    pub same_records_again: Examples,
    /// Parts that the other topic's run was not to score; they count nowhere else.
    pub outside_the_range: u64,
}

/// What one class's parts became.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassComparison {
    /// The class; null for parts without one.
    pub class: Option<String>,
    /// A's parts of this class.
    pub a: ClassSide,
    /// B's parts of this class.
    pub b: ClassSide,
    /// Parts of this class in B with a result in both topics: what became of A's decisions.
    pub changes: Changes,
    /// The scores of the parts that both have.
    pub histogram: Option<Histogram>,
    /// Where B's threshold would have to be to decide as A did.
    pub threshold: ThresholdAdvice,
}

/// What one topic says of a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassSide {
    /// All its results, each once.
    pub decisions: DecisionCounts,
    /// The scores of the parts that both topics have.
    pub scores: Option<ScoreSummary>,
    /// The thresholds that its results were held against, the most used first.
    pub thresholds: Vec<ThresholdUse>,
}

impl Comparison {
    /// Joins two topics' results and counts; of the given classes alone, if any is given. A part
    /// whose class is another in the other topic counts if either is among them.
    pub fn new(a: (String, Side), b: (String, Side), classes: &[String]) -> Self {
        let [(topic_a, mut a), (topic_b, mut b)] = [a, b];
        let sides = [&mut a, &mut b].map(|side| std::mem::take(&mut side.results));
        let mut joined = only_classes(join(sides), classes);
        let outside = [0, 1].map(|side| leave_outside(&mut joined, side));
        let mut found = Self {
            a: side_report(&joined, 0, (topic_a, a)),
            b: side_report(&joined, 1, (topic_b, b)),
            joined: joined.pairs.len() as u64,
            flipped: 0,
            class_differs: Examples::default(),
            changes: Changes::default(),
            classes: compare_classes(&joined),
            flips: Vec::new(),
        };
        for (side, count) in [&mut found.a, &mut found.b].into_iter().zip(outside) {
            side.unpaired.outside_the_range = count;
        }
        for pair in &joined.pairs {
            let [a, b] = joined.pair(*pair);
            found.changes.add(a.decision, b.decision);
            if a.class != b.class {
                found.class_differs.add(|| {
                    let words = words(a);
                    let [a, b] = [a, b].map(|judged| name(judged.class.as_ref()));
                    format!("{words}: {a} in A, {b} in B")
                });
            }
            if a.decision != b.decision {
                found.flips.push(Flip::new(a, b));
            }
        }
        found.flipped = found.flips.len() as u64;
        found.flips = in_order(found.flips);
        found
    }
}

/// A part as examples name it.
fn words(judged: &Judged) -> String {
    format!("{}/{}", judged.part.line, judged.part.part)
}

fn name(class: Option<&ClassName>) -> String {
    class.map_or_else(|| "no class".to_owned(), |class| format!("`{class}`"))
}

/// Leaves only the results of the given classes, of all if none is given; both of a pair stay if one
/// of them does.
fn only_classes(mut joined: Joined, classes: &[String]) -> Joined {
    if classes.is_empty() {
        return joined;
    }
    let is_wanted = |judged: &Judged| {
        let class = judged.class.as_ref();
        class.is_some_and(|class| classes.iter().any(|wanted| wanted == class.as_str()))
    };
    let sides = &joined.sides;
    joined.pairs.retain(|pair| {
        let at = |side: usize| &sides[side][pair[side] as usize];
        is_wanted(at(0)) || is_wanted(at(1))
    });
    for (side, unpaired) in joined.unpaired.iter_mut().enumerate() {
        unpaired.retain(|(at, _)| is_wanted(&sides[side][*at as usize]));
    }
    for repeated in &mut joined.repeated {
        repeated.retain(|repeated| is_wanted(&repeated.result));
    }
    joined
}

/// Takes out the results without a partner whose parts the other run was not to score, and counts them.
fn leave_outside(joined: &mut Joined, side: usize) -> u64 {
    let results = &joined.sides[side];
    let before = joined.unpaired[side].len();
    joined.unpaired[side].retain(|(at, why)| {
        *why == Leftover::AnotherOfTheSame || !results[*at as usize].is_outside
    });
    (before - joined.unpaired[side].len()) as u64
}

impl Joined {
    fn pair(&self, [a, b]: [u32; 2]) -> [&Judged; 2] {
        [&self.sides[0][a as usize], &self.sides[1][b as usize]]
    }

    /// The results of one topic that count, each once.
    fn counted(&self, side: usize) -> impl Iterator<Item = &Judged> {
        let paired = self.pairs.iter().map(move |pair| pair[side]);
        let unpaired = self.unpaired[side].iter().map(|(at, _)| *at);
        paired
            .chain(unpaired)
            .map(move |at| &self.sides[side][at as usize])
    }
}

fn side_report(joined: &Joined, side: usize, (topic, read): (String, Side)) -> SideReport {
    let mut report = SideReport {
        topic,
        models: read.models,
        read: read.account,
        repeated: Examples::default(),
        contradicting: Examples::default(),
        decisions: DecisionCounts::default(),
        unpaired: leftovers(joined, side),
        closed_early: closed_early(joined, side),
    };
    for repeated in &joined.repeated[side] {
        let words = || words(&repeated.result);
        report.repeated.add(words);
        if repeated.contradicts {
            report.contradicting.add(words);
        }
    }
    for judged in joined.counted(side) {
        report.decisions.add(judged.decision);
    }
    report
}

fn closed_early(joined: &Joined, side: usize) -> EarlyClosings {
    let mut found = EarlyClosings::default();
    for pair in &joined.pairs {
        let both = joined.pair(*pair);
        let (one, other) = (both[side], both[1 - side]);
        found.add(one, Some(other), || words(one));
    }
    for (at, _) in &joined.unpaired[side] {
        let alone = &joined.sides[side][*at as usize];
        found.add(alone, None, || words(alone));
    }
    found
}

fn leftovers(joined: &Joined, side: usize) -> Leftovers {
    let others = || joined.counted(1 - side).map(|judged| judged.first_view_at);
    let time: Option<(Timestamp, Timestamp)> = others().min().zip(others().max());
    let mut found = Leftovers::default();
    for (at, why) in &joined.unpaired[side] {
        let judged = &joined.sides[side][*at as usize];
        match why {
            Leftover::NoSuchPart => &mut found.only_here,
            Leftover::OtherRecords => &mut found.same_id_other_records,
            Leftover::AnotherOfTheSame => &mut found.same_records_again,
        }
        .add(|| words(judged));
        let is_outside = time.is_some_and(|(first, last)| {
            judged.first_view_at < first || judged.first_view_at > last
        });
        found.outside_the_others_time += u64::from(*why == Leftover::NoSuchPart && is_outside);
    }
    found
}

/// What is gathered of one class.
#[derive(Default)]
struct ClassSums {
    sides: [SideSums; 2],
    changes: Changes,
    /// B's scores, and whether A called the part `ng`, where both say something.
    scored: Vec<(f32, bool)>,
}

#[derive(Default)]
struct SideSums {
    decisions: DecisionCounts,
    thresholds: ThresholdUses,
    /// The scores of the parts that both topics have.
    scores: Vec<f32>,
}

fn compare_classes(joined: &Joined) -> Vec<ClassComparison> {
    let mut classes: BTreeMap<Option<&ClassName>, ClassSums> = BTreeMap::new();
    for side in [0, 1] {
        for judged in joined.counted(side) {
            let sums = &mut classes.entry(judged.class.as_ref()).or_default().sides[side];
            sums.decisions.add(judged.decision);
            if let Some(threshold) = judged.threshold {
                sums.thresholds.add(threshold);
            }
        }
    }
    for pair in &joined.pairs {
        let both = joined.pair(*pair);
        for (side, judged) in both.into_iter().enumerate() {
            let sums = &mut classes.entry(judged.class.as_ref()).or_default().sides[side];
            sums.scores.extend(judged.score);
        }
        let [a, b] = both;
        let sums = classes.entry(b.class.as_ref()).or_default();
        sums.changes.add(a.decision, b.decision);
        if let (Some(score), false, Decision::Ok | Decision::Ng) =
            (b.score, b.is_partial, a.decision)
        {
            sums.scored.push((score, a.decision == Decision::Ng));
        }
    }
    let classes = classes.into_iter();
    classes.map(|(class, sums)| sums.compare(class)).collect()
}

impl ClassSums {
    fn compare(self, class: Option<&ClassName>) -> ClassComparison {
        let [mut a, mut b] = self.sides;
        let uses = [&a, &b].map(|side| side.thresholds.most_used());
        let [of_a, of_b] = [0, 1].map(|side| Some(uses[side].first()?.threshold));
        let thresholds: Vec<f32> = [of_a, of_b].into_iter().flatten().collect();
        let histogram = Histogram::new(&a.scores, &b.scores, &thresholds);
        let [thresholds_a, thresholds_b] = uses;
        ClassComparison {
            class: class.map(ToString::to_string),
            a: ClassSide {
                decisions: a.decisions,
                scores: ScoreSummary::of(&mut a.scores),
                thresholds: thresholds_a,
            },
            b: ClassSide {
                decisions: b.decisions,
                scores: ScoreSummary::of(&mut b.scores),
                thresholds: thresholds_b,
            },
            changes: self.changes,
            histogram,
            threshold: advise(self.scored, of_b),
        }
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;

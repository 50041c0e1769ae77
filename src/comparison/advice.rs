//! Where B's threshold would have to be to decide as A did.
//!
//! **The rule.** Looked at are the parts that A called `ok` or `ng` and that B scored whole. Among
//! all thresholds that part B's scores (halfway between two neighbouring ones) the advised one has
//! the highest balanced accuracy against A: the mean of the share of A's `ok` that lie below it and
//! of the share of A's `ng` that reach it. So a kind that is rare counts as much as one that is
//! common, and the number of disagreements may rise where it is very rare; both numbers are told.
//! Where several are equally good, the one nearest to the present threshold is advised; where the
//! present one is as good as any, it stays.
//!
//! A's decisions are no truth: the advice is how to decide alike, not how to decide rightly. For
//! thresholds from parts whose truth is known there is [`crate::evaluation::calibration`].

use serde::Serialize;

use crate::evaluation::calibration::ErrorCounts;

/// With fewer parts of either kind a threshold would hang on single parts.
pub const FEWEST_OF_A_KIND: usize = 10;

/// What is said about one class's threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ThresholdAdvice {
    /// Parts that A called `ok` and B scored whole.
    pub ok_parts: usize,
    /// Parts that A called `ng` and B scored whole.
    pub ng_parts: usize,
    /// How the threshold that most of B's results were held against decides.
    pub present: Option<Cut>,
    /// What to do.
    #[serde(flatten)]
    pub advice: Advice,
}

/// What to do with a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "advice", rename_all = "snake_case")]
pub enum Advice {
    /// No other agrees better.
    Keep,
    /// Another agrees better.
    Change {
        /// That one.
        advised: Cut,
    },
    /// There are too few `ok` or `ng` parts to tell.
    TooFew {
        /// So many of each would be needed.
        needed: usize,
    },
    /// No threshold agrees better than chance: B's scores do not tell A's `ok` from A's `ng`.
    NoneAgrees,
}

/// A threshold, and where it decides otherwise than A.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cut {
    /// A score at or above this is `ng`.
    pub threshold: f32,
    /// Parts that A called `ok` and this would call `ng`.
    pub ok_called_ng: usize,
    /// Parts that A called `ng` and this would call `ok`.
    pub ng_called_ok: usize,
}

impl Cut {
    fn new(scored: &[(f32, bool)], threshold: f32) -> Self {
        let errors = ErrorCounts::of(scored, threshold);
        Self {
            threshold,
            ok_called_ng: errors.false_alarms,
            ng_called_ok: errors.missed,
        }
    }

    /// On how many parts it decides otherwise than A.
    pub fn disagreements(&self) -> usize {
        self.ok_called_ng + self.ng_called_ok
    }

    /// Balanced accuracy, times twice the product of the numbers of both kinds: whole numbers are
    /// compared exactly.
    fn agreement(&self, ok_parts: usize, ng_parts: usize) -> u128 {
        let right_ok = (ok_parts - self.ok_called_ng) as u128;
        let right_ng = (ng_parts - self.ng_called_ok) as u128;
        right_ok * ng_parts as u128 + right_ng * ok_parts as u128
    }
}

/// Advice from B's scores, which are finite, with whether A called the part `ng`.
pub(super) fn advise(mut scored: Vec<(f32, bool)>, present: Option<f32>) -> ThresholdAdvice {
    scored.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let ng_parts = scored.iter().filter(|(_, is_ng)| *is_ng).count();
    let ok_parts = scored.len() - ng_parts;
    let present = present.map(|threshold| Cut::new(&scored, threshold));
    let advice = match ok_parts.min(ng_parts) < FEWEST_OF_A_KIND {
        true => Advice::TooFew {
            needed: FEWEST_OF_A_KIND,
        },
        false => choose(&scored, (ok_parts, ng_parts), present),
    };
    ThresholdAdvice {
        ok_parts,
        ng_parts,
        present,
        advice,
    }
}

fn choose(scored: &[(f32, bool)], parts: (usize, usize), present: Option<Cut>) -> Advice {
    let agreement = |cut: &Cut| cut.agreement(parts.0, parts.1);
    let distance = |cut: &Cut| {
        present.map_or(0.0, |present| {
            (f64::from(cut.threshold) - f64::from(present.threshold)).abs()
        })
    };
    // What calling all parts alike reaches.
    let chance = parts.0 as u128 * parts.1 as u128;
    let mut best: Option<Cut> = None;
    for cut in cuts(scored, parts.1) {
        let is_better = best.is_none_or(|best| {
            let by_agreement = agreement(&cut).cmp(&agreement(&best));
            by_agreement
                .then_with(|| distance(&best).total_cmp(&distance(&cut)))
                .is_gt()
        });
        if is_better {
            best = Some(cut);
        }
    }
    match (best.filter(|best| agreement(best) > chance), present) {
        (None, _) => Advice::NoneAgrees,
        (Some(best), Some(present)) if agreement(&present) >= agreement(&best) => Advice::Keep,
        (Some(advised), _) => Advice::Change { advised },
    }
}

/// A threshold between every two neighbouring scores, from the lowest up.
fn cuts(scored: &[(f32, bool)], ng_parts: usize) -> impl Iterator<Item = Cut> {
    let mut ok_below = 0;
    let mut ng_below = 0;
    let ok_parts = scored.len() - ng_parts;
    let runs: Vec<&[(f32, bool)]> = scored.chunk_by(|one, other| one.0 == other.0).collect();
    let ends: Vec<(f32, f32)> = runs
        .windows(2)
        .map(|two| (two[0][0].0, two[1][0].0))
        .collect();
    runs.into_iter()
        .zip(ends)
        .map(move |(run, (below, above))| {
            let ng = run.iter().filter(|(_, is_ng)| *is_ng).count();
            ng_below += ng;
            ok_below += run.len() - ng;
            Cut {
                threshold: halfway(below, above),
                ok_called_ng: ok_parts - ok_below,
                ng_called_ok: ng_below,
            }
        })
}

/// A number above the lower one and not above the higher one, halfway if there is one between.
fn halfway(below: f32, above: f32) -> f32 {
    let middle = (f64::midpoint(f64::from(below), f64::from(above))) as f32;
    match middle > below {
        true => middle,
        false => above,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// So many parts of each kind, at these scores in turn.
    fn scored(ok: &[f32], ng: &[f32]) -> Vec<(f32, bool)> {
        let of = |scores: &[f32], is_ng: bool| {
            let turns = scores
                .iter()
                .copied()
                .cycle()
                .take(FEWEST_OF_A_KIND.max(scores.len()));
            turns.map(|score| (score, is_ng)).collect::<Vec<_>>()
        };
        [of(ok, false), of(ng, true)].concat()
    }

    #[test]
    fn the_threshold_moves_between_the_two_kinds() {
        let advice = advise(scored(&[1.0, 2.0], &[6.0, 8.0]), Some(9.0));
        assert_eq!((advice.ok_parts, advice.ng_parts), (10, 10));
        let present = advice.present.unwrap();
        assert_eq!((present.ok_called_ng, present.ng_called_ok), (0, 10));
        let advised = Cut {
            threshold: 4.0,
            ok_called_ng: 0,
            ng_called_ok: 0,
        };
        assert_eq!(advice.advice, Advice::Change { advised });
    }

    #[test]
    fn a_threshold_that_is_as_good_as_any_stays() {
        let advice = advise(scored(&[1.0, 2.0], &[6.0, 8.0]), Some(2.5));
        assert_eq!(advice.advice, Advice::Keep);
    }

    #[test]
    fn of_equally_good_ones_the_nearest_is_advised() {
        // Each cut but the outer ones has one kind wrong by half: 2.5 and 4.5 are equally good.
        let parts = scored(&[1.0, 3.0], &[2.0, 4.0]);
        let threshold = |present| match advise(parts.clone(), Some(present)).advice {
            Advice::Change { advised } => advised.threshold,
            other => panic!("{other:?}"),
        };
        assert_eq!(threshold(0.5), 1.5);
        assert_eq!(threshold(9.0), 3.5);
    }

    #[test]
    fn too_few_of_one_kind_are_no_ground_for_advice() {
        let mut parts = scored(&[1.0], &[6.0]);
        parts.pop();
        let advice = advise(parts, Some(0.5));
        assert_eq!(advice.ng_parts, FEWEST_OF_A_KIND - 1);
        let needed = FEWEST_OF_A_KIND;
        assert_eq!(advice.advice, Advice::TooFew { needed });
        assert_eq!(advice.present.unwrap().ok_called_ng, 10);
    }

    #[test]
    fn scores_that_say_the_opposite_are_no_ground_for_advice() {
        let advice = advise(scored(&[6.0], &[1.0]), Some(3.0));
        assert_eq!(advice.advice, Advice::NoneAgrees);
        let same = advise(scored(&[1.0], &[1.0]), None);
        assert_eq!(same.advice, Advice::NoneAgrees);
    }

    #[test]
    fn neighbouring_numbers_are_still_parted() {
        let next = 1.0f32.next_up();
        let Advice::Change { advised } = advise(scored(&[1.0], &[next]), None).advice else {
            panic!("they can be parted");
        };
        assert_eq!(advised.threshold, next);
        assert_eq!(advised.disagreements(), 0);
    }

    fn balanced_accuracy(cut: &Cut, ok_parts: usize, ng_parts: usize) -> f64 {
        let share = |wrong: usize, of: usize| 1.0 - wrong as f64 / of as f64;
        f64::midpoint(
            share(cut.ok_called_ng, ok_parts),
            share(cut.ng_called_ok, ng_parts),
        )
    }

    proptest! {
        #[test]
        fn no_threshold_at_all_agrees_better_than_the_advised_one(
            ok in prop::collection::vec(0..30u8, FEWEST_OF_A_KIND..60),
            ng in prop::collection::vec(5..40u8, FEWEST_OF_A_KIND..60),
            present in prop::option::of(0..40u8),
        ) {
            let of = |scores: &[u8], is_ng| -> Vec<(f32, bool)> {
                scores.iter().map(|score| (f32::from(*score), is_ng)).collect()
            };
            let parts = [of(&ok, false), of(&ng, true)].concat();
            let present = present.map(f32::from);
            let advice = advise(parts.clone(), present);
            // Every integer and what lies between: all ways to part these scores.
            let all = (0..=82).map(|half| Cut::new(&parts, f32::from(half as u8) / 2.0));
            let of = |cut: &Cut| balanced_accuracy(cut, ok.len(), ng.len());
            let best = all.map(|cut| of(&cut)).fold(0.0, f64::max);
            match advice.advice {
                Advice::Change { advised } => {
                    prop_assert_eq!(advised, Cut::new(&parts, advised.threshold));
                    prop_assert!((of(&advised) - best).abs() < 1e-12);
                    if let Some(present) = advice.present {
                        prop_assert!(of(&present) < best);
                    }
                }
                Advice::Keep => {
                    prop_assert!((of(&advice.present.unwrap()) - best).abs() < 1e-12);
                }
                Advice::NoneAgrees => prop_assert!((best - 0.5).abs() < 1e-12),
                Advice::TooFew { .. } => prop_assert!(false, "there are enough"),
            }
        }
    }
}

//! Which results of two topics are of the same part.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::side::Judged;
use crate::domain::{Decision, PartKey};

/// The results of two topics, joined.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// The results of each topic that are published for the first time, in order of line and part.
    pub(super) sides: [Vec<Judged>; 2],
    /// Results that were published before under the same ID.
    pub(super) repeated: [Vec<Repeated>; 2],
    /// Places in `sides` of two results of the same part.
    pub(super) pairs: Vec<[u32; 2]>,
    /// The results of each topic that are in no pair.
    pub(super) unpaired: [Vec<(u32, Leftover)>; 2],
}

/// A result that was published again.
#[derive(Debug)]
pub(super) struct Repeated {
    pub(super) result: Judged,
    /// Whether it says something else than the first time, which no run should do.
    pub(super) contradicts: bool,
}

/// Why a result is in no pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    /// The other topic does not have the part.
    NoSuchPart,
    /// The other topic has the part's ID, from other records.
    OtherRecords,
    /// The other topic has a result of the same records, which is another one's pair.
    AnotherOfTheSame,
}

/// Joins the results of two topics, in whatever order they were read.
pub(super) fn join(sides: [Vec<Judged>; 2]) -> Joined {
    let mut joined = Joined::default();
    for (index, results) in sides.into_iter().enumerate() {
        let (first, repeated) = without_repeated(results);
        joined.sides[index] = first;
        joined.repeated[index] = repeated;
    }
    let mut starts = [0, 0];
    while let Some(ranges) = next_part(&joined.sides, starts) {
        starts = [ranges[0].end, ranges[1].end];
        let [a, b] = [0, 1].map(|side| &joined.sides[side][ranges[side].clone()]);
        let pairs = pair(a, b);
        let leftovers = leftovers([a, b], &pairs);
        let index = |side: usize, at: usize| {
            u32::try_from(ranges[side].start + at).expect("memory ends before so many results")
        };
        let placed = pairs.iter().map(|[a, b]| [index(0, *a), index(1, *b)]);
        joined.pairs.extend(placed);
        for (side, leftovers) in leftovers.into_iter().enumerate() {
            let placed = leftovers
                .into_iter()
                .map(|(at, why)| (index(side, at), why));
            joined.unpaired[side].extend(placed);
        }
    }
    joined
}

/// The results in order of part and place, and apart from them those whose ID the part had before.
fn without_repeated(mut results: Vec<Judged>) -> (Vec<Judged>, Vec<Repeated>) {
    results.sort_unstable_by(|one, other| {
        let by_part = one.part.cmp(&other.part);
        by_part.then_with(|| one.place.cmp(&other.place))
    });
    let mut repeated = Vec::new();
    // What the part's first result of each ID says; only the part at hand is in it.
    let mut seen: HashMap<u64, (Decision, Option<f32>)> = HashMap::new();
    let mut part: Option<PartKey> = None;
    results.retain(|result| {
        if part.as_ref() != Some(&result.part) {
            part = Some(result.part.clone());
            seen.clear();
        }
        let says = (result.decision, result.score);
        let Some(said) = seen.get(&result.result_id) else {
            seen.insert(result.result_id, says);
            return true;
        };
        repeated.push(Repeated {
            result: result.clone(),
            contradicts: *said != says,
        });
        false
    });
    (results, repeated)
}

/// Where the results of the next part lie in both sorted lists; none at their ends.
fn next_part(sides: &[Vec<Judged>; 2], starts: [usize; 2]) -> Option<[Range<usize>; 2]> {
    let heads = [0, 1].map(|side| sides[side].get(starts[side]));
    let part = heads.iter().flatten().map(|head| &head.part).min()?;
    Some([0, 1].map(|side| {
        let rest = &sides[side][starts[side]..];
        let length = rest
            .iter()
            .take_while(|result| result.part == *part)
            .count();
        starts[side]..starts[side] + length
    }))
}

/// Pairs the results of one part: those with the most records in common first, then the later ones.
fn pair(a: &[Judged], b: &[Judged]) -> Vec<[usize; 2]> {
    let mut candidates = candidates(a, b);
    candidates.sort_unstable_by_key(|(common, [of_a, of_b])| {
        Reverse((*common, b[*of_b].place, a[*of_a].place))
    });
    let mut taken = [HashSet::new(), HashSet::new()];
    let mut pairs = Vec::new();
    for (_, [of_a, of_b]) in candidates {
        if !taken[0].contains(&of_a) && !taken[1].contains(&of_b) {
            taken[0].insert(of_a);
            taken[1].insert(of_b);
            pairs.push([of_a, of_b]);
        }
    }
    pairs.sort_unstable();
    pairs
}

/// Every two results with records in common, and how many.
fn candidates(a: &[Judged], b: &[Judged]) -> Vec<(usize, [usize; 2])> {
    let mut with_record: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, result) in a.iter().enumerate() {
        for record in &result.records {
            with_record.entry(*record).or_default().push(index);
        }
    }
    let mut common: HashMap<[usize; 2], usize> = HashMap::new();
    for (of_b, result) in b.iter().enumerate() {
        let matches = result
            .records
            .iter()
            .filter_map(|record| with_record.get(record));
        for of_a in matches.flatten() {
            *common.entry([*of_a, of_b]).or_default() += 1;
        }
    }
    common
        .into_iter()
        .map(|(pair, count)| (count, pair))
        .collect()
}

/// The results of one part that are in no pair, and why.
fn leftovers(sides: [&[Judged]; 2], pairs: &[[usize; 2]]) -> [Vec<(usize, Leftover)>; 2] {
    [0, 1].map(|side| {
        let (own, others) = (sides[side], sides[1 - side]);
        let paired: HashSet<usize> = pairs.iter().map(|pair| pair[side]).collect();
        if paired.len() == own.len() {
            return Vec::new();
        }
        let records: HashSet<u64> = others
            .iter()
            .flat_map(|result| result.records.iter().copied())
            .collect();
        let left = (0..own.len()).filter(|index| !paired.contains(index));
        left.map(|index| {
            let is_known = own[index]
                .records
                .iter()
                .any(|record| records.contains(record));
            let why = match (others.is_empty(), is_known) {
                (true, _) => Leftover::NoSuchPart,
                (false, false) => Leftover::OtherRecords,
                (false, true) => Leftover::AnotherOfTheSame,
            };
            (index, why)
        })
        .collect()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::comparison::side::Place;
    use crate::domain::Timestamp;

    /// A result of a part of line `l`, made from these records.
    fn judged(part: &str, id: u64, records: &[u64], offset: i64) -> Judged {
        Judged {
            part: PartKey {
                line: "l".into(),
                part: part.into(),
            },
            class: None,
            decision: Decision::Ok,
            score: Some(0.5),
            threshold: None,
            is_partial: false,
            first_view_at: Timestamp(0),
            place: Place {
                partition: 0,
                offset,
            },
            result_id: id,
            records: records.into(),
            closed_by: None,
            is_outside: false,
        }
    }

    /// Part and place of each pair's results.
    fn pairs(joined: &Joined) -> Vec<(String, i64, i64)> {
        let pair = |[a, b]: &[u32; 2]| {
            let (a, b) = (&joined.sides[0][*a as usize], &joined.sides[1][*b as usize]);
            assert_eq!(a.part, b.part);
            (a.part.part.to_string(), a.place.offset, b.place.offset)
        };
        joined.pairs.iter().map(pair).collect()
    }

    fn unpaired(joined: &Joined, side: usize) -> Vec<(i64, Leftover)> {
        let results = &joined.sides[side];
        let left = joined.unpaired[side].iter();
        left.map(|(at, why)| (results[*at as usize].place.offset, *why))
            .collect()
    }

    #[test]
    fn a_part_id_that_is_used_again_is_joined_by_its_records() {
        let a = vec![judged("p", 1, &[1, 2], 0), judged("p", 2, &[7, 8], 1)];
        let b = vec![judged("p", 3, &[7, 8], 0), judged("p", 4, &[1, 2], 1)];
        let joined = join([a, b]);
        assert_eq!(pairs(&joined), [("p".into(), 0, 1), ("p".into(), 1, 0)]);
        assert_eq!(unpaired(&joined, 0), []);
    }

    #[test]
    fn one_record_in_common_is_enough_where_a_view_came_late() {
        let joined = join([
            vec![judged("p", 1, &[1, 2, 3], 0)],
            vec![judged("p", 2, &[3, 4], 0)],
        ]);
        assert_eq!(pairs(&joined), [("p".into(), 0, 0)]);
    }

    #[test]
    fn the_same_id_from_other_records_is_another_part() {
        let joined = join([
            vec![judged("p", 1, &[1], 0), judged("q", 5, &[5], 1)],
            vec![judged("p", 2, &[2], 0)],
        ]);
        assert_eq!(pairs(&joined), []);
        let left = [(0, Leftover::OtherRecords), (1, Leftover::NoSuchPart)];
        assert_eq!(unpaired(&joined, 0), left);
        assert_eq!(unpaired(&joined, 1), [(0, Leftover::OtherRecords)]);
    }

    #[test]
    fn of_two_runs_in_one_topic_the_later_is_compared() {
        let a = vec![judged("p", 1, &[1, 2], 0), judged("p", 2, &[1, 2], 9)];
        let joined = join([a, vec![judged("p", 3, &[1, 2], 4)]]);
        assert_eq!(pairs(&joined), [("p".into(), 9, 4)]);
        assert_eq!(unpaired(&joined, 0), [(0, Leftover::AnotherOfTheSame)]);
    }

    #[test]
    fn a_result_that_is_published_again_counts_once() {
        let mut changed = judged("p", 1, &[1], 7);
        changed.decision = Decision::Ng;
        let a = vec![judged("p", 1, &[1], 3), changed, judged("p", 1, &[1], 1)];
        // Another part may have the same digest.
        let b = vec![judged("p", 2, &[1], 0), judged("q", 1, &[1], 0)];
        let joined = join([a, b]);
        assert_eq!(pairs(&joined), [("p".into(), 1, 0)]);
        let [repeated, none] = &joined.repeated;
        let contradicts: Vec<bool> = repeated.iter().map(|it| it.contradicts).collect();
        assert_eq!((contradicts, none.len()), (vec![false, true], 0));
        assert_eq!(unpaired(&joined, 1), [(0, Leftover::NoSuchPart)]);
    }

    /// The join written out: all two results of a part, the best ones first.
    fn naive_pairs(a: &[Judged], b: &[Judged]) -> Vec<(String, i64, i64)> {
        let mut all = Vec::new();
        for one in a {
            for other in b {
                let common = one.records.iter().filter(|it| other.records.contains(it));
                let common = common.count();
                if one.part == other.part && common > 0 {
                    all.push((common, other.place.offset, one.place.offset, &one.part.part));
                }
            }
        }
        all.sort();
        let mut pairs: Vec<(String, i64, i64)> = Vec::new();
        while let Some((_, of_b, of_a, part)) = all.pop() {
            if !pairs.iter().any(|pair| pair.1 == of_a || pair.2 == of_b) {
                pairs.push((part.to_string(), of_a, of_b));
            }
        }
        pairs.sort();
        pairs
    }

    fn results() -> impl Strategy<Value = Vec<Judged>> {
        let result = (0..4u8, prop::collection::btree_set(0..6u64, 1..4));
        prop::collection::vec(result, 0..24).prop_map(|results| {
            let numbered = results.into_iter().zip(0..);
            let judged = numbered.map(|((part, records), offset)| {
                let records: Vec<u64> = records.into_iter().collect();
                judged(&format!("p{part}"), offset as u64, &records, offset)
            });
            judged.collect()
        })
    }

    proptest! {
        #[test]
        fn any_results_in_any_order_are_joined_as_written_out(
            a in results(),
            b in results(),
            seed in any::<u64>(),
        ) {
            use rand::SeedableRng as _;
            use rand::seq::SliceRandom as _;
            let expected = naive_pairs(&a, &b);
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let (mut shuffled_a, mut shuffled_b) = (a.clone(), b.clone());
            shuffled_a.shuffle(&mut random);
            shuffled_b.shuffle(&mut random);
            let joined = join([shuffled_a, shuffled_b]);
            let mut found = pairs(&joined);
            found.sort();
            prop_assert_eq!(found, expected);
            // Every result is in a pair or left over, once.
            for (side, given) in [a, b].iter().enumerate() {
                let paired = joined.pairs.iter().map(|pair| pair[side]);
                let left = joined.unpaired[side].iter().map(|(at, _)| *at);
                let mut all: Vec<u32> = paired.chain(left).collect();
                all.sort_unstable();
                let expected: Vec<u32> = (0..given.len() as u32).collect();
                prop_assert_eq!(all, expected);
            }
        }
    }
}

//! The parts that the two models decide differently.

use std::collections::BTreeMap;

use serde::Serialize;

use super::side::{Judged, Place};
use crate::domain::{Decision, PartKey};
use crate::schema::result::{PartResult, Region, View, ViewStatus};

/// A part that the two decide differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    /// The production line.
    pub line: String,
    /// The part.
    pub part_id: String,
    /// What A says.
    pub a: Judgement,
    /// What B says.
    pub b: Judgement,
    /// The part's views; none unless its results were read again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub views: Option<Vec<ViewChange>>,
}

/// What one result says of a part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// The decision, as it is written in results.
    #[serde(serialize_with = "as_word")]
    pub decision: Decision,
    /// The part's class, if known.
    pub class: Option<String>,
    /// Its score, if it has one.
    pub score: Option<f32>,
    /// What the score was held against, if there was something.
    pub threshold: Option<f32>,
    /// Whether views are missing or failed.
    pub is_partial: bool,
    /// Where the result stands.
    pub place: Place,
}

fn as_word<S: serde::Serializer>(decision: &Decision, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(decision.as_str())
}

/// One view of a part in both results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ViewChange {
    /// Name of the view.
    pub view: String,
    /// What A says; null where A does not name the view.
    pub a: Option<ViewJudgement>,
    /// What B says; null where B does not name the view.
    pub b: Option<ViewJudgement>,
}

/// What one result says of a view.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ViewJudgement {
    /// What became of it.
    pub status: ViewStatus,
    /// Its score, if it has one.
    pub score: Option<f32>,
    /// Its anomalous regions.
    pub regions: Vec<Region>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Flip {
    pub(super) fn new(a: &Judged, b: &Judged) -> Self {
        let PartKey { line, part } = &a.part;
        Self {
            line: line.to_string(),
            part_id: part.to_string(),
            a: Judgement::from(a),
            b: Judgement::from(b),
            views: None,
        }
    }
}

impl From<&Judged> for Judgement {
    fn from(judged: &Judged) -> Self {
        Self {
            decision: judged.decision,
            class: judged.class.as_ref().map(ToString::to_string),
            score: judged.score,
            threshold: judged.threshold,
            is_partial: judged.is_partial,
            place: judged.place,
        }
    }
}

impl Judgement {
    /// How many times its threshold the score is.
    fn share_of_threshold(&self) -> Option<f32> {
        let threshold = self.threshold.filter(|threshold| *threshold > 0.0)?;
        Some(self.score? / threshold)
    }
}

impl From<&View> for ViewJudgement {
    fn from(view: &View) -> Self {
        Self {
            status: view.status,
            score: view.score,
            regions: view.regions.clone(),
            error: view.error.clone(),
        }
    }
}

/// The views of two results of one part, in A's order and then those of B alone.
pub fn view_changes(a: &PartResult, b: &PartResult) -> Vec<ViewChange> {
    let of = |result: &PartResult, name: &str| {
        let view = result.views.iter().find(|view| view.view == name);
        view.map(ViewJudgement::from)
    };
    let only_b = b.views.iter().filter(|view| of(a, &view.view).is_none());
    let views = a.views.iter().chain(only_b);
    let change = |view: &View| ViewChange {
        view: view.view.clone(),
        a: of(a, &view.view),
        b: of(b, &view.view),
    };
    views.map(change).collect()
}

/// What a person should see first: escapes, then false alarms, then what a person must look at.
const KINDS: [[Decision; 2]; 6] = [
    [Decision::Ng, Decision::Ok],
    [Decision::Ok, Decision::Ng],
    [Decision::Ng, Decision::Review],
    [Decision::Review, Decision::Ok],
    [Decision::Ok, Decision::Review],
    [Decision::Review, Decision::Ng],
];

/// Puts flips in the order in which they are shown: of each kind in turn, and within a kind those
/// first whose score, as a share of the threshold, has changed the most. So the first few show all
/// that happens and not only what is most common.
pub(super) fn in_order(flips: Vec<Flip>) -> Vec<Flip> {
    let mut kinds: Vec<Vec<Flip>> = KINDS.iter().map(|_| Vec::new()).collect();
    for flip in flips {
        let kind = [flip.a.decision, flip.b.decision];
        if let Some(index) = KINDS.iter().position(|known| *known == kind) {
            kinds[index].push(flip);
        }
    }
    let mut ranked: BTreeMap<(usize, usize), Flip> = BTreeMap::new();
    for (kind, mut flips) in kinds.into_iter().enumerate() {
        flips.sort_by(|one, other| change(other).total_cmp(&change(one)));
        let ranks = flips.into_iter().enumerate();
        ranked.extend(ranks.map(|(rank, flip)| ((rank, kind), flip)));
    }
    ranked.into_values().collect()
}

/// By how much of its threshold a part's score has changed; nothing where it cannot be told.
fn change(flip: &Flip) -> f32 {
    let shares = [&flip.a, &flip.b].map(Judgement::share_of_threshold);
    match shares {
        [Some(a), Some(b)] => (a - b).abs(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(decision: Decision, score: f32) -> Judgement {
        Judgement {
            decision,
            class: None,
            score: Some(score),
            threshold: Some(0.5),
            is_partial: false,
            place: Place {
                partition: 0,
                offset: 0,
            },
        }
    }

    fn flip(part: &str, a: (Decision, f32), b: (Decision, f32)) -> Flip {
        Flip {
            line: "l".to_owned(),
            part_id: part.to_owned(),
            a: judgement(a.0, a.1),
            b: judgement(b.0, b.1),
            views: None,
        }
    }

    #[test]
    fn the_first_flips_are_of_each_kind_and_the_largest_of_it() {
        let (ok, ng, review) = (Decision::Ok, Decision::Ng, Decision::Review);
        let mut unscored = flip("unscored", (review, 0.0), (ok, 0.1));
        unscored.a.score = None;
        let flips = vec![
            flip("alarm-1", (ok, 0.4), (ng, 0.6)),
            flip("escape-1", (ng, 0.6), (ok, 0.4)),
            flip("escape-2", (ng, 0.9), (ok, 0.1)),
            unscored,
            flip("alarm-2", (ok, 0.4), (ng, 0.9)),
            flip("escape-3", (ng, 0.55), (ok, 0.45)),
        ];
        let order: Vec<String> = in_order(flips).into_iter().map(|it| it.part_id).collect();
        let expected = [
            "escape-2", "alarm-2", "unscored", "escape-1", "alarm-1", "escape-3",
        ];
        assert_eq!(order, expected);
    }
}

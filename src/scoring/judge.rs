//! The judgement on one part: view scores, the part's score, the decision.
//!
//! The part's score is its highest view score, as MVAD scores a sample. The decision leans to the
//! safe side: a score at the threshold is `ng` however many views are missing; otherwise anything
//! short of a full, valid look at the part is `review`.

use std::collections::HashMap;

use super::maps::{MapSettings, encode_map};
use super::regions::{RegionSettings, find_regions};
use super::view_score::view_score;
use crate::domain::{
    AnomalyMap, ClassName, Decision, Group, MapFootprint, PartVerdict, Reject, ScoredGroup, View,
    ViewId, ViewOutcome, ViewStatus, ViewVerdict,
};

/// The error text of a view that the timeout policy kept from the model.
const NOT_SCORED: &str = "not scored: the part closed before all its views came";

/// The error text of a view that the model left without an answer.
const NO_ANSWER: &str = "not scored: the model gave no answer for this view";

/// What a class's scores are held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassThresholds {
    /// A part with this score or more is `ng`.
    pub score: f32,
    /// Map pixels with this score or more form regions; none: the default pixel threshold.
    pub pixel: Option<f32>,
}

/// How parts are judged; the thresholds are the model bundle's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JudgeSettings {
    /// Thresholds of the calibrated classes; parts of any other class go to review.
    pub classes: HashMap<ClassName, ClassThresholds>,
    /// Pixel threshold of classes without their own; none: no regions.
    pub default_pixel_threshold: Option<f32>,
    /// Which regions are named.
    pub regions: RegionSettings,
    /// How maps travel; none: results carry no maps.
    pub maps: Option<MapSettings>,
}

/// Judges parts by fixed settings.
#[derive(Clone, Debug)]
pub struct Judge {
    settings: JudgeSettings,
}

impl Judge {
    /// A judge by these settings. Thresholds that are not finite count as absent.
    pub fn new(settings: JudgeSettings) -> Self {
        Self { settings }
    }

    /// The verdict on a part, and the records of its views that could not be decoded.
    ///
    /// A view whose map has no meaning (not a number, infinite, empty) is `failed` like one that
    /// could not be decoded, but gives no reject: its record is in order.
    pub fn judge(&self, scored: ScoredGroup) -> (PartVerdict, Vec<Reject>) {
        let ScoredGroup {
            group,
            outcomes,
            scored_at,
        } = scored;
        let pixel_threshold = self.pixel_threshold(group.class.as_ref());
        let mut views = Vec::with_capacity(group.views.len() + group.missing.len());
        let mut rejects = Vec::new();
        let mut outcomes = outcomes.into_iter();
        for view in &group.views {
            views.push(match outcomes.next() {
                Some(ViewOutcome::Scored { map, footprint }) => {
                    self.scored_view(view, &map, &footprint, pixel_threshold)
                }
                Some(ViewOutcome::Failed(reject)) => {
                    let verdict = failed_view(view, reject.error.clone());
                    rejects.push(reject);
                    verdict
                }
                Some(ViewOutcome::Unscored) => failed_view(view, NOT_SCORED.to_owned()),
                None => failed_view(view, NO_ANSWER.to_owned()),
            });
        }
        views.extend(group.missing.iter().map(missing_view));

        let is_partial =
            group.is_partial() || views.iter().any(|view| view.status != ViewStatus::Scored);
        let score = views
            .iter()
            .filter_map(|view| view.score)
            .max_by(f32::total_cmp);
        let threshold = self.score_threshold(group.class.as_ref());
        let traceparent = group.views.iter().find_map(|view| view.traceparent.clone());
        let Group {
            part,
            class,
            duplicates,
            cause,
            first_view_at,
            last_view_at,
            ..
        } = group;
        let verdict = PartVerdict {
            part,
            class,
            decision: decide(score, threshold, is_partial),
            score,
            threshold,
            is_partial,
            closed_by: cause,
            views,
            duplicates,
            maps_dropped: false,
            first_view_at,
            last_view_at,
            scored_at,
            traceparent,
        };
        (verdict, rejects)
    }

    fn scored_view(
        &self,
        view: &View,
        map: &AnomalyMap,
        footprint: &MapFootprint,
        pixel_threshold: Option<f32>,
    ) -> ViewVerdict {
        let score = match view_score(map) {
            Ok(score) => score,
            Err(invalid) => return failed_view(view, invalid.to_string()),
        };
        let regions = pixel_threshold.map_or_else(Vec::new, |threshold| {
            find_regions(map, footprint, threshold, self.settings.regions)
        });
        ViewVerdict {
            status: ViewStatus::Scored,
            score: Some(score),
            map: self.settings.maps.map(|settings| encode_map(map, settings)),
            regions,
            error: None,
            ..arrived_view(view)
        }
    }

    fn score_threshold(&self, class: Option<&ClassName>) -> Option<f32> {
        let thresholds = self.settings.classes.get(class?)?;
        Some(thresholds.score).filter(|threshold| threshold.is_finite())
    }

    fn pixel_threshold(&self, class: Option<&ClassName>) -> Option<f32> {
        class
            .and_then(|class| self.settings.classes.get(class))
            .and_then(|thresholds| thresholds.pixel)
            .or(self.settings.default_pixel_threshold)
            .filter(|threshold| threshold.is_finite())
    }
}

/// The decision on a score held against a threshold.
fn decide(score: Option<f32>, threshold: Option<f32>, is_partial: bool) -> Decision {
    match (score, threshold) {
        (Some(score), Some(threshold)) if score >= threshold => Decision::Ng,
        (Some(_), Some(_)) if !is_partial => Decision::Ok,
        _ => Decision::Review,
    }
}

/// A view that came, with nothing known of its score yet.
fn arrived_view(view: &View) -> ViewVerdict {
    ViewVerdict {
        view: view.view.clone(),
        status: ViewStatus::Failed,
        score: None,
        source: Some(view.record.source.clone()),
        captured_at: Some(view.captured_at),
        map: None,
        regions: Vec::new(),
        error: None,
    }
}

fn failed_view(view: &View, error: String) -> ViewVerdict {
    ViewVerdict {
        error: Some(error),
        ..arrived_view(view)
    }
}

fn missing_view(view: &ViewId) -> ViewVerdict {
    ViewVerdict {
        view: view.clone(),
        status: ViewStatus::Missing,
        score: None,
        source: None,
        captured_at: None,
        map: None,
        regions: Vec::new(),
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{
        CloseCause, ImageEncoding, MapCodec, PartKey, Record, RejectReason, ScoringOrder,
        SourceOffset, Timestamp,
    };
    use proptest::prelude::*;

    fn settings() -> JudgeSettings {
        let thresholds = ClassThresholds {
            score: 0.5,
            pixel: Some(0.4),
        };
        JudgeSettings {
            classes: HashMap::from([("bolt".into(), thresholds)]),
            default_pixel_threshold: None,
            regions: RegionSettings::default(),
            maps: None,
        }
    }

    fn view(name: &str, offset: i64) -> View {
        let part = PartKey {
            line: "line1".into(),
            part: "p-1".into(),
        };
        let source = SourceOffset {
            topic: name.into(),
            partition: 0,
            offset,
        };
        let record = Record {
            source,
            generation: 0,
            key: Some(b"p-1".to_vec()),
            value: Some(Vec::new()),
            headers: Vec::new(),
            timestamp: None,
            lease: None,
        };
        View {
            record: Arc::new(record),
            part,
            view: name.into(),
            class: None,
            expected_views: None,
            captured_at: Timestamp(1_000),
            traceparent: None,
            encoding: ImageEncoding::Png,
            image: 0..0,
        }
    }

    fn group(class: Option<&str>, names: &[&str], missing: &[&str]) -> Group {
        let views: Vec<View> = names
            .iter()
            .zip(7..)
            .map(|(name, offset)| view(name, offset))
            .collect();
        Group {
            part: PartKey {
                line: "line1".into(),
                part: "p-1".into(),
            },
            class: class.map(Into::into),
            views,
            missing: missing.iter().map(|name| ViewId::from(*name)).collect(),
            absorbed: Vec::new(),
            duplicates: Vec::new(),
            cause: if missing.is_empty() {
                CloseCause::Complete
            } else {
                CloseCause::StreamTime
            },
            scoring: ScoringOrder::Score,
            first_view_at: Timestamp(1_000),
            last_view_at: Timestamp(1_200),
        }
    }

    fn scored(score: f32) -> ViewOutcome {
        ViewOutcome::Scored {
            map: AnomalyMap {
                width: 2,
                height: 1,
                values: vec![score, 0.0],
            },
            footprint: MapFootprint {
                x: 0.0,
                y: 0.0,
                width: 20.0,
                height: 10.0,
            },
        }
    }

    fn judge(group: Group, outcomes: Vec<ViewOutcome>) -> (PartVerdict, Vec<Reject>) {
        Judge::new(settings()).judge(ScoredGroup {
            group,
            outcomes,
            scored_at: Timestamp(1_300),
        })
    }

    fn decision(class: Option<&str>, missing: &[&str], outcomes: Vec<ViewOutcome>) -> Decision {
        let names = ["top", "left", "right"];
        let group = group(class, &names[..outcomes.len()], missing);
        judge(group, outcomes).0.decision
    }

    #[test]
    fn a_full_look_below_the_threshold_is_ok() {
        assert_eq!(
            decision(Some("bolt"), &[], vec![scored(0.1), scored(0.49)]),
            Decision::Ok
        );
    }

    #[test]
    fn a_score_at_the_threshold_is_ng() {
        assert_eq!(
            decision(Some("bolt"), &[], vec![scored(0.1), scored(0.5)]),
            Decision::Ng
        );
    }

    #[test]
    fn a_partial_part_is_ng_or_review_but_never_ok() {
        assert_eq!(
            decision(Some("bolt"), &["left"], vec![scored(0.1)]),
            Decision::Review
        );
        assert_eq!(
            decision(Some("bolt"), &["left"], vec![scored(0.9)]),
            Decision::Ng
        );
    }

    #[test]
    fn a_group_closed_early_is_partial_though_no_missing_view_has_a_name() {
        let mut closed = group(Some("bolt"), &["top"], &[]);
        closed.cause = CloseCause::Evicted;
        let (verdict, _) = judge(closed, vec![scored(0.1)]);
        assert!(verdict.is_partial);
        assert_eq!(verdict.decision, Decision::Review);
    }

    #[test]
    fn a_class_without_a_threshold_goes_to_review() {
        assert_eq!(
            decision(Some("gear"), &[], vec![scored(0.9)]),
            Decision::Review
        );
        assert_eq!(decision(None, &[], vec![scored(0.0)]), Decision::Review);
    }

    #[test]
    fn a_threshold_that_is_not_finite_counts_as_absent() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut settings = settings();
            let thresholds = ClassThresholds {
                score: bad,
                pixel: Some(bad),
            };
            settings.classes.insert("bolt".into(), thresholds);
            let (verdict, _) = Judge::new(settings).judge(ScoredGroup {
                group: group(Some("bolt"), &["top"], &[]),
                outcomes: vec![scored(0.1)],
                scored_at: Timestamp(0),
            });
            assert_eq!(
                (verdict.decision, verdict.threshold),
                (Decision::Review, None)
            );
            assert!(verdict.views[0].regions.is_empty());
        }
    }

    #[test]
    fn a_map_that_is_not_finite_fails_its_view_and_never_passes_the_part() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (verdict, rejects) = judge(
                group(Some("bolt"), &["top", "left"], &[]),
                vec![scored(0.1), scored(bad)],
            );
            assert_eq!(verdict.decision, Decision::Review);
            assert_eq!(verdict.score, Some(0.1));
            assert_eq!(verdict.views[1].status, ViewStatus::Failed);
            assert!(
                verdict.views[1]
                    .error
                    .as_ref()
                    .unwrap()
                    .contains("not finite")
            );
            assert!(verdict.is_partial);
            assert!(rejects.is_empty());
        }
    }

    #[test]
    fn a_failed_view_is_named_and_its_record_rejected() {
        let group = group(Some("bolt"), &["top", "left"], &[]);
        let reject = Reject {
            record: Arc::clone(&group.views[0].record),
            reason: RejectReason::Decode,
            error: "jpeg ends early".to_owned(),
        };
        let (verdict, rejects) = judge(group, vec![ViewOutcome::Failed(reject), scored(0.2)]);
        assert_eq!(verdict.decision, Decision::Review);
        assert_eq!(verdict.views[0].status, ViewStatus::Failed);
        assert_eq!(verdict.views[0].error.as_deref(), Some("jpeg ends early"));
        assert_eq!(verdict.views[0].source.as_ref().unwrap().offset, 7);
        assert_eq!(rejects.len(), 1);
        assert_eq!(rejects[0].record.source.offset, 7);
    }

    #[test]
    fn an_unscored_part_goes_to_review_without_a_score() {
        let outcomes = vec![ViewOutcome::Unscored, ViewOutcome::Unscored];
        let (verdict, rejects) = judge(group(Some("bolt"), &["top", "left"], &["right"]), outcomes);
        assert_eq!(verdict.decision, Decision::Review);
        assert_eq!(verdict.score, None);
        assert!(verdict.is_partial);
        let statuses: Vec<_> = verdict.views.iter().map(|view| view.status).collect();
        assert_eq!(
            statuses,
            [ViewStatus::Failed, ViewStatus::Failed, ViewStatus::Missing]
        );
        assert!(rejects.is_empty());
    }

    #[test]
    fn a_view_without_an_answer_fails() {
        let (verdict, _) = judge(
            group(Some("bolt"), &["top", "left"], &[]),
            vec![scored(0.1)],
        );
        assert_eq!(verdict.views[1].status, ViewStatus::Failed);
        assert_eq!(verdict.decision, Decision::Review);
    }

    #[test]
    fn the_part_score_is_the_highest_view_score() {
        let outcomes = vec![scored(0.1), scored(0.3), scored(0.2)];
        let (verdict, _) = judge(
            group(Some("bolt"), &["top", "left", "right"], &[]),
            outcomes,
        );
        assert_eq!(verdict.score, Some(0.3));
        assert_eq!(verdict.threshold, Some(0.5));
    }

    #[test]
    fn carries_regions_maps_duplicates_and_the_first_trace() {
        let mut settings = settings();
        settings.maps = Some(MapSettings {
            codec: MapCodec::Zstd,
            side: 64,
        });
        let mut group = group(Some("bolt"), &["top", "left"], &[]);
        group.views[1].traceparent = Some("00-ab-cd-01".to_owned());
        group.duplicates = vec!["top".into()];
        let (verdict, _) = Judge::new(settings).judge(ScoredGroup {
            group,
            outcomes: vec![scored(0.45), scored(0.1)],
            scored_at: Timestamp(1_300),
        });
        assert_eq!(verdict.views[0].regions.len(), 1);
        assert_eq!(verdict.views[0].regions[0].width, 10);
        assert!(verdict.views[1].regions.is_empty());
        assert!(verdict.views.iter().all(|view| view.map.is_some()));
        assert_eq!(verdict.duplicates, [ViewId::from("top")]);
        assert_eq!(verdict.traceparent.as_deref(), Some("00-ab-cd-01"));
        assert_eq!(verdict.scored_at, Timestamp(1_300));
    }

    fn outcome_strategy() -> impl Strategy<Value = ViewOutcome> {
        let odd = prop_oneof![Just(f32::NAN), Just(f32::INFINITY), -1.0f32..2.0];
        prop_oneof![Just(ViewOutcome::Unscored), odd.prop_map(scored)]
    }

    proptest! {
        #[test]
        fn ok_means_every_view_was_scored_below_the_threshold(
            outcomes in prop::collection::vec(outcome_strategy(), 0..4),
            missing in any::<bool>(),
            class in any::<bool>(),
        ) {
            let names = ["top", "left", "right", "back"];
            let missing: &[&str] = if missing { &["front"] } else { &[] };
            let group = group(class.then_some("bolt"), &names[..outcomes.len()], missing);
            let (verdict, _) = judge(group, outcomes);
            if verdict.decision == Decision::Ok {
                prop_assert!(class && missing.is_empty() && !verdict.views.is_empty());
                for view in &verdict.views {
                    prop_assert!(view.score.is_some_and(|score| score < 0.5));
                }
            }
            prop_assert!(verdict.score.is_none_or(f32::is_finite));
        }
    }
}

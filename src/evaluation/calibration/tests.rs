use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::evaluation::measurement::testing::part;

fn parts(class: &str, good: &[f32], bad: &[f32]) -> Vec<ScoredPart> {
    let good = good.iter().map(|score| part(class, *score, false).scores());
    let bad = bad.iter().map(|score| part(class, *score, true).scores());
    good.chain(bad).collect()
}

fn ramp(count: usize) -> Vec<f32> {
    (1..=count).map(|i| i as f32).collect()
}

fn false_alarms(rate: f64) -> CalibrationRule {
    let margin = 0.1;
    CalibrationRule::FalseAlarmRate { rate, margin }
}

fn misses(rate: f64) -> CalibrationRule {
    let margin = 0.1;
    CalibrationRule::MissRate { rate, margin }
}

#[test]
fn quantiles_lie_between_neighbours() {
    let sorted = [1.0, 2.0, 3.0, 4.0];
    assert_eq!(quantile_of(&sorted, 0.0), 1.0);
    assert_eq!(quantile_of(&sorted, 0.5), 2.5);
    assert_eq!(quantile_of(&sorted, 1.0), 4.0);
}

#[test]
fn bad_parts_do_not_move_the_line() {
    let quantile = CalibrationRule::Quantile {
        quantile: 1.0,
        margin: 0.5,
    };
    for rule in [quantile, false_alarms(0.25)] {
        let mut all = parts("bolt", &[1.0, 2.0, 3.0], &[]);
        let lines = calibrate(&all, rule);
        all.extend(parts("bolt", &[], &[9.0]));
        all.extend(parts("gear", &[], &[9.0]));
        let more = calibrate(&all, rule);
        assert_eq!(more.len(), 1);
        let threshold =
            |lines: &BTreeMap<String, CalibratedClass>| lines["bolt"].thresholds.threshold;
        assert_eq!(threshold(&more), threshold(&lines));
    }
    let all = parts("bolt", &[1.0, 2.0, 3.0], &[]);
    assert_eq!(calibrate(&all, quantile)["bolt"].thresholds.threshold, 3.5);
}

#[test]
fn the_line_stands_above_the_score_of_the_right_rank() {
    for (count, rate, rank) in [
        (99, 0.01, 99),
        (100, 0.01, 100),
        (198, 0.01, 198),
        (199, 0.01, 198),
        (99, 0.29, 71),
        (19, 0.05, 19),
        (1, 0.5, 1),
    ] {
        let lines = calibrate(&parts("bolt", &ramp(count), &[]), false_alarms(rate));
        let thresholds = lines["bolt"].thresholds;
        assert_eq!(
            thresholds.threshold,
            (rank as f32).next_up(),
            "{count} {rate}"
        );
        let calibration = thresholds.calibration.unwrap();
        assert_eq!(calibration.guarantee, Guarantee::Conformal);
        assert_eq!(calibration.good_parts, count as u64);
        assert_eq!(lines["bolt"].errors.false_alarms, count - rank);
    }
}

#[test]
fn scores_equal_to_the_ranked_one_raise_no_alarm() {
    let lines = calibrate(&parts("bolt", &[0.5; 99], &[]), false_alarms(0.01));
    assert_eq!(lines["bolt"].thresholds.threshold, 0.5f32.next_up());
    assert_eq!(lines["bolt"].errors.false_alarms, 0);
}

#[test]
fn too_few_parts_make_a_line_without_a_guarantee() {
    let lines = calibrate(&parts("bolt", &[1.0, 2.0, 3.0], &[1.0]), false_alarms(0.01));
    let thresholds = lines["bolt"].thresholds;
    assert_eq!(thresholds.threshold, 3.1);
    let calibration = thresholds.calibration.unwrap();
    assert_eq!(calibration.guarantee, Guarantee::None);
    assert_eq!(
        (calibration.rate, calibration.margin),
        (Some(0.01), Some(0.1))
    );
    assert_eq!(lines["bolt"].errors.missed, 1);
    let lines = calibrate(&parts("bolt", &[2.0], &[]), false_alarms(0.01));
    assert_eq!(lines["bolt"].thresholds.threshold, 2.0f32.next_up());
    let lines = calibrate(&parts("bolt", &[0.1], &[3.0, 4.0, 5.0]), misses(0.01));
    assert_eq!(lines["bolt"].thresholds.threshold, 2.9);
    assert_eq!(lines["bolt"].errors.missed, 0);
}

#[test]
fn a_miss_rate_is_held_by_the_lowest_bad_scores() {
    let all = parts("bolt", &[0.5, 2.5], &ramp(199));
    let line = calibrate(&all, misses(0.01))["bolt"];
    assert_eq!(line.thresholds.threshold, 2.0);
    let calibration = line.thresholds.calibration.unwrap();
    assert_eq!(calibration.guarantee, Guarantee::Conformal);
    assert_eq!((calibration.good_parts, calibration.bad_parts), (2, 199));
    assert_eq!((line.errors.missed, line.errors.false_alarms), (1, 1));
    assert!(calibrate(&parts("nut", &[0.5], &[]), misses(0.01)).is_empty());
}

#[test]
fn enough_parts_are_enough_and_one_fewer_is_not() {
    for rate in [0.001, 0.003, 0.01, 0.02, 0.05, 0.07, 0.1, 0.29, 0.3, 0.5] {
        let needed = parts_needed(rate);
        assert!(allowed(needed, rate) > 0, "{rate}");
        assert_eq!(allowed(needed - 1, rate), 0, "{rate}");
    }
}

/// Each of `n + 1` exchangeable parts is the next one in turn: the share that is wrong is the exact
/// chance, given the scores.
#[test]
fn of_any_scores_no_larger_share_is_wrong_than_stated() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for round in 0..40 {
        let count = random.random_range(2..60);
        // Few levels make many ties.
        let levels = if round % 2 == 0 { 5 } else { 1 << 20 };
        let scores: Vec<f32> = (0..count)
            .map(|_| random.random_range(0..levels) as f32 / levels as f32)
            .collect();
        for rate in [0.02, 0.05, 0.1, 0.25, 0.5] {
            for rule in [false_alarms(rate), misses(rate)] {
                let mut wrong = 0;
                for next in 0..count {
                    let mut others = scores.clone();
                    let next = others.remove(next);
                    others.sort_unstable_by(f32::total_cmp);
                    let (threshold, guarantee) = draw_line(&others, rule);
                    if guarantee == Guarantee::None {
                        continue;
                    }
                    let is_over = next >= threshold;
                    let over_is_wrong = matches!(rule, CalibrationRule::FalseAlarmRate { .. });
                    wrong += usize::from(is_over == over_is_wrong);
                }
                let share = wrong as f64 / count as f64;
                assert!(share <= rate + 1e-9, "{share} of {count} at {rate}");
            }
        }
    }
}

/// Over 4,000 draws of 99 calibration parts and 50 others, the expected share is 0.01 exactly for
/// scores without ties; its standard error is below 0.0003.
#[test]
fn on_random_draws_the_false_alarm_rate_is_the_stated_one() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    // Heavy-tailed: the bound asks nothing of the distribution.
    let mut draw = || 1.0 / (1.0 - random.random::<f32>());
    let (mut alarms, mut total) = (0, 0);
    for _ in 0..4000 {
        let mut good: Vec<f32> = (0..99).map(|_| draw()).collect();
        good.sort_unstable_by(f32::total_cmp);
        let (threshold, guarantee) = draw_line(&good, false_alarms(0.01));
        assert_eq!(guarantee, Guarantee::Conformal);
        alarms += (0..50).filter(|_| draw() >= threshold).count();
        total += 50;
    }
    let share = f64::from(alarms as u32) / f64::from(total);
    assert!((0.0085..0.0115).contains(&share), "{share}");
}

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::evaluation::ranking::rank;

const GOLDEN: &str = include_str!("../../../integration-tests/parity/metrics.json");

type Labelled = (AnomalyMap, Vec<bool>);

fn map(width: usize, values: &[f32]) -> AnomalyMap {
    AnomalyMap {
        width,
        height: values.len() / width,
        values: values.to_vec(),
    }
}

fn sums(images: &[Labelled]) -> PixelSums {
    let mut sums = PixelSums::default();
    for (map, defect) in images {
        sums.add(map, defect).unwrap();
    }
    sums
}

/// All pixels at once, sorted.
fn plain_ranking(images: &[Labelled]) -> Option<RankingFigures> {
    let pixels = images.iter().flat_map(|(map, defect)| {
        let truth = |i: usize| defect.get(i).copied().unwrap_or(false);
        map.values
            .iter()
            .enumerate()
            .map(move |(i, value)| (*value, truth(i)))
    });
    rank(pixels.collect())
}

/// The protocol word for word: each threshold, each region, each pixel.
fn plain_aupro(images: &[Labelled]) -> Option<f64> {
    let values = || images.iter().flat_map(|(map, _)| &map.values);
    let low = f64::from(values().copied().reduce(f32::min)?);
    let high = f64::from(values().copied().reduce(f32::max)?);
    let mut points = Vec::new();
    for k in (0..200).rev() {
        let threshold = low + f64::from(k) * (high - low) / 200.0;
        let (mut alarms, mut good, mut overlaps) = (0.0, 0.0, Vec::new());
        for (map, defect) in images {
            let (labels, areas) = label_regions(map.width, map.height, defect);
            let above = |i: usize| f64::from(map.values[i]) > threshold;
            let of = |label: u32| (0..labels.len()).filter(move |i| labels[*i] == label);
            good += of.clone()(0).count() as f64;
            alarms += of.clone()(0).filter(|i| above(*i)).count() as f64;
            for (index, area) in areas.iter().enumerate() {
                let hits = of.clone()(index as u32 + 1).filter(|i| above(*i)).count();
                overlaps.push(hits as f64 / f64::from(*area));
            }
        }
        let overlap = overlaps.iter().sum::<f64>() / overlaps.len() as f64;
        points.push((alarms / good, overlap));
    }
    points.retain(|point| point.0 < 0.3);
    let (narrowest, widest) = (points.first()?.0, points.last()?.0);
    let pairs = points.windows(2);
    let area: f64 = pairs
        .map(|pair| (pair[1].0 - pair[0].0) / widest * (pair[0].1 + pair[1].1) / 2.0)
        .sum();
    (high > low && area.is_finite() && widest > narrowest).then_some(area)
}

fn numbers(value: &Value) -> Vec<f32> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|v| v.as_f64().unwrap() as f32).collect()
}

fn golden_images(case: &Value) -> Vec<Labelled> {
    let width = case["width"].as_u64().unwrap() as usize;
    let images = case["images"].as_array().unwrap().iter();
    images
        .map(|image| {
            let defect = numbers(&image["mask"]).iter().map(|v| *v > 0.0).collect();
            (map(width, &numbers(&image["map"])), defect)
        })
        .collect()
}

#[track_caller]
fn assert_golden(what: &str, found: Option<f64>, expected: &Value) {
    match (found, expected.as_f64()) {
        (None, None) => (),
        (Some(found), Some(expected)) => {
            assert!((found - expected).abs() < 1e-6, "{what} {found} {expected}");
        }
        (found, _) => panic!("{what}: found {found:?}, expected {expected}"),
    }
}

#[test]
fn figures_agree_with_scikit_learn_and_the_plain_protocol() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let cases = golden["overlap"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let name = &case["name"];
        let figures = sums(&golden_images(case)).figures();
        let ranking = figures.ranking;
        let auroc = ranking.map(|figures| figures.auroc);
        let precision = ranking.map(|figures| figures.average_precision);
        let f1 = ranking.map(|figures| figures.best_f1);
        assert_golden(&format!("{name} auroc"), auroc, &case["auroc"]);
        assert_golden(&format!("{name} AP"), precision, &case["average_precision"]);
        assert_golden(&format!("{name} F1"), f1, &case["best_f1"]);
        assert_golden(&format!("{name} aupro"), figures.aupro, &case["aupro"]);
    }
}

#[test]
fn good_views_alone_and_equal_values_have_no_overlap() {
    let good = (map(2, &[0.0, 0.1, 0.2, 0.3]), Vec::new());
    let figures = sums(std::slice::from_ref(&good)).figures();
    assert_eq!(figures, PixelFigures::default());
    let empty_mask = (good.0, vec![false; 4]);
    assert_eq!(sums(&[empty_mask]).figures(), PixelFigures::default());
    let equal = (map(2, &[0.5; 4]), vec![true, false, false, false]);
    let figures = sums(&[equal]).figures();
    assert_eq!(figures.ranking.unwrap().auroc, 0.5);
    assert_eq!(figures.aupro, None);
    // Two values: every threshold lets through the same fifth of the good pixels.
    let two = map(2, &[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    let two = (two, vec![true, false, false, false, false, false]);
    assert_eq!(sums(&[two]).figures().aupro, None);
    let single = (map(1, &[0.5]), vec![true]);
    assert_eq!(sums(&[single]).figures(), PixelFigures::default());
    assert_eq!(sums(&[]).figures(), PixelFigures::default());
}

#[test]
fn a_map_that_cannot_be_counted_changes_nothing() {
    let good = (
        map(2, &[0.1, 0.2, 0.3, 0.4]),
        vec![true, false, false, false],
    );
    let mut sums = sums(&[good]);
    let before = sums.figures();
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = sums.add(&map(2, &[0.1, 0.2, 0.9, wrong]), &[]).unwrap_err();
        let expected = "expected finite values in the anomaly map, found `";
        let error = error.to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(error.ends_with("at column 1, row 1"), "{error}");
    }
    let error = sums.add(&map(2, &[0.1, 0.2]), &[true]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected `2` mask pixels for the anomaly map, found `1`"
    );
    assert_eq!(sums.figures(), before);
}

/// Images of 1 to 5 by 1 to 5 pixels; few levels make ties, and some masks are missing.
fn images() -> impl Strategy<Value = Vec<Labelled>> {
    let levels = prop_oneof![
        Just(vec![0.5f32]),
        Just(vec![0.0, -0.0, 0.25, 1.0]),
        Just((0..50).map(|i| 0.1 + i as f32 / 64.0).collect()),
        Just(vec![-3.0, 1e-30, 0.3, 0.30000004, 0.3000001, 7.5, 4e9]),
    ];
    levels.prop_flat_map(|levels| {
        let image = (1usize..6, 1usize..6, any::<bool>()).prop_flat_map(move |(w, h, bad)| {
            let values = prop::collection::vec(prop::sample::select(levels.clone()), w * h);
            let share = if bad { 0.4 } else { 0.0 };
            let defect = prop::collection::vec(prop::bool::weighted(share), w * h);
            (values, defect).prop_map(move |(values, defect)| {
                let shown = if bad { defect } else { Vec::new() };
                (map(w, &values), shown)
            })
        });
        prop::collection::vec(image, 1..7)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_and_split_gives_the_figures_of_all_pixels_at_once(
        images in images(),
        order in any::<prop::sample::Index>(),
        split in any::<prop::sample::Index>(),
    ) {
        let once = sums(&images).figures();
        prop_assert_eq!(once.ranking, plain_ranking(&images));
        match (once.aupro, plain_aupro(&images)) {
            (Some(found), Some(plain)) => prop_assert!((found - plain).abs() < 1e-12),
            (found, plain) => prop_assert_eq!(found, plain),
        }
        let mut turned = images.clone();
        turned.rotate_left(order.index(images.len()));
        turned.reverse();
        let (first, second) = turned.split_at(split.index(images.len()));
        let (mut first, second) = (sums(first), sums(second));
        prop_assert_eq!(super::figures(&[&first, &second]), once);
        first.merge(&second);
        prop_assert_eq!(first.figures(), once);
    }
}

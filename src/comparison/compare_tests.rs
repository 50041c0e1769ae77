use super::*;
use crate::comparison::Advice;
use crate::comparison::testing::{compare, record, result, side_closed_by, side_of};
use crate::comparison::{ReplayedRange, Runs, Wanted};
use crate::domain::{CloseCause, TopicPartition};
use crate::schema::result::Decision as Word;

#[test]
fn flips_are_counted_and_named() {
    let a = [
        result("p-1", 1, Word::Ok, 0.1),
        result("p-2", 2, Word::Ng, 0.9),
        result("p-3", 3, Word::Review, 0.2),
        result("gone", 9, Word::Ok, 0.2),
        result("early", 0, Word::Ok, 0.2),
    ];
    let b = [
        result("p-3", 3, Word::Review, 0.3),
        result("p-1", 1, Word::Ng, 0.7),
        result("p-2", 2, Word::Ng, 0.8),
        result("new", 12, Word::Ok, 0.1),
    ];
    let found = compare(&a, &b, &[]);
    assert_eq!((found.joined, found.flipped), (3, 1));
    let flip = &found.flips[0];
    assert_eq!(
        (flip.line.as_str(), flip.part_id.as_str()),
        ("line1", "p-1")
    );
    assert_eq!((flip.a.score, flip.b.score), (Some(0.1), Some(0.7)));
    assert_eq!((flip.a.place.offset, flip.b.place.offset), (0, 1));
    assert_eq!(found.changes.of(Decision::Ok).ng, 1);
    assert_eq!(found.a.decisions.total(), 5);
    let only_a = &found.a.unpaired;
    assert_eq!(only_a.only_here.first, ["line1/early", "line1/gone"]);
    // B's parts are from 1 to 12.
    assert_eq!(only_a.outside_the_others_time, 1);
    assert_eq!(found.b.unpaired.only_here.first, ["line1/new"]);
    assert_eq!(found.b.unpaired.outside_the_others_time, 1);
}

#[test]
fn scores_are_of_the_parts_that_both_have() {
    let a = [
        result("p-1", 1, Word::Ok, 0.1),
        result("gone", 9, Word::Ng, 99.0),
    ];
    let mut unscored = result("p-1", 1, Word::Review, 0.0);
    unscored.score = None;
    let found = compare(&a, &[unscored], &[]);
    let class = &found.classes[0];
    assert_eq!(class.a.scores.unwrap().highest, 0.1);
    assert_eq!(class.b.scores, None);
    assert_eq!(class.a.decisions.total(), 2);
    let histogram = class.histogram.as_ref().unwrap();
    let count = |counts: &[u64]| counts.iter().sum::<u64>();
    assert_eq!((count(&histogram.a), count(&histogram.b)), (1, 0));
    // Both thresholds are within the picture.
    assert_eq!(*histogram.edges.last().unwrap(), 0.5);
}

#[test]
fn only_whole_parts_with_a_decision_of_a_ground_the_advice() {
    let mut a = Vec::new();
    let mut b = Vec::new();
    for number in 0i64..24 {
        let part = format!("p-{number}");
        let (decision, score) = match number % 2 {
            0 => (Word::Ok, 1.0),
            _ => (Word::Ng, 3.0),
        };
        a.push(result(&part, number, decision, 0.1));
        b.push(result(&part, number, Word::Ng, score));
    }
    // These would spoil it.
    let mut partial = result("partial", 100, Word::Ng, 0.5);
    a.push(partial.clone());
    partial.is_partial = true;
    b.push(partial);
    a.push(result("review", 101, Word::Review, 0.5));
    b.push(result("review", 101, Word::Ng, 9.0));
    let found = compare(&a, &b, &[]).classes[0].threshold;
    assert_eq!((found.ok_parts, found.ng_parts), (12, 12));
    assert_eq!(found.present.unwrap().ok_called_ng, 12);
    let Advice::Change { advised } = found.advice else {
        panic!("{found:?}");
    };
    assert_eq!((advised.threshold, advised.disagreements()), (2.0, 0));
}

#[test]
fn a_part_of_another_class_in_b_stays_with_either_class_chosen() {
    let a = [
        result("p-1", 1, Word::Ok, 0.1),
        result("p-2", 2, Word::Ok, 0.1),
    ];
    let mut b = a.clone();
    b[0].class = Some("nut".to_owned());
    b[1].class = None;
    let all = compare(&a, &b, &[]);
    assert_eq!(all.class_differs.count, 2);
    assert_eq!(
        all.class_differs.first,
        [
            "line1/p-1: `bolt` in A, `nut` in B",
            "line1/p-2: `bolt` in A, no class in B"
        ]
    );
    let nuts = compare(&a, &b, &["nut".to_owned()]);
    assert_eq!((nuts.joined, nuts.a.decisions.total()), (1, 1));
    let bolts = compare(&a, &b, &["bolt".to_owned()]);
    assert_eq!((bolts.joined, bolts.b.decisions.total()), (2, 2));
    let none = compare(&a, &b, &["gear".to_owned()]);
    assert_eq!((none.joined, none.classes.len()), (0, 0));
}

#[test]
fn whatever_is_no_result_is_counted_and_named() {
    let mut side = Side::of(Wanted {
        lines: vec!["line1".to_owned()],
        ..Wanted::default()
    });
    let good = result("p-1", 1, Word::Ok, 0.1);
    let mut other = good.clone();
    other.line = "line2".to_owned();
    let mut infinite = good.clone();
    infinite.score = Some(f32::INFINITY);
    let values = [
        Some(good.to_msgpack().unwrap()),
        Some(good.to_json().unwrap()),
        Some(other.to_json().unwrap()),
        Some(infinite.to_msgpack().unwrap()),
        Some(b"hello".to_vec()),
        None,
    ];
    for (value, offset) in values.into_iter().zip(0..) {
        side.add(&record(offset, value));
    }
    let read = side.account();
    assert_eq!((read.records, read.results, read.other_lines), (6, 2, 1));
    assert_eq!((read.tombstones, read.unreadable.count), (1, 2));
    let named = &read.unreadable.first[0];
    let expected = "results[0]@3: expected a finite score, found `inf`";
    assert_eq!(named, expected);
    let found = Comparison::new(
        ("a".to_owned(), side),
        ("b".to_owned(), side_of(&[good])),
        &[],
    );
    assert_eq!((found.joined, found.a.repeated.count), (1, 1));
    assert_eq!(found.a.contradicting.count, 0);
}

#[test]
fn the_report_is_json_with_the_fields_by_name() {
    let a = [result("p-1", 1, Word::Ok, 0.25)];
    let b = [result("p-1", 1, Word::Ng, 0.75)];
    let json = serde_json::to_value(compare(&a, &b, &[])).unwrap();
    assert_eq!(json["a"]["topic"], "a");
    assert_eq!(json["a"]["models"]["demo 1"], 1);
    assert_eq!(json["b"]["results"], 1);
    assert_eq!(json["changes"]["ok"]["ng"], 1);
    assert_eq!(json["classes"][0]["class"], "bolt");
    assert_eq!(json["classes"][0]["threshold"]["advice"], "too_few");
    assert_eq!(json["flips"][0]["part_id"], "p-1");
    assert_eq!(json["flips"][0]["b"]["decision"], "ng");
    assert_eq!(json["flips"][0]["b"]["place"]["offset"], 0);
}

/// A field of `/proc/self/status`, in MiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

/// A million parts of five views in both topics, a hundredth of them decided differently.
#[test]
#[ignore = "a measurement: how much memory and time a million parts take"]
fn a_million_parts() {
    const PARTS: i64 = 1_000_000;
    let before = memory("VmRSS:");
    let started = std::time::Instant::now();
    let sides = [0, 1].map(|run| {
        let mut side = Side::default();
        for number in 0..PARTS {
            let score = (number % 97) as f32 / 97.0;
            let is_ng = score >= 0.5 || run == 1 && number % 100 == 0;
            let decision = if is_ng { Word::Ng } else { Word::Ok };
            let mut part = result(&format!("part-{number:08}"), number, decision, score);
            part.result_id = format!("{run:08x}{number:024x}");
            for camera in 1..5 {
                let mut view = part.views[0].clone();
                view.source.as_mut().unwrap().partition = camera;
                part.views.push(view);
            }
            side.add(&record(number, Some(part.to_msgpack().unwrap())));
        }
        side
    });
    println!(
        "read: {} MiB more, {:?}",
        memory("VmRSS:") - before,
        started.elapsed()
    );
    let started = std::time::Instant::now();
    let [a, b] = sides;
    let found = Comparison::new(("a".to_owned(), a), ("b".to_owned(), b), &[]);
    let most = memory("VmHWM:") - before;
    println!("compared: {most} MiB more at most, {:?}", started.elapsed());
    assert_eq!(found.joined, PARTS as u64);
    assert_eq!(found.flipped, found.changes.of(Decision::Ok).ng);
}

#[test]
fn parts_closed_by_the_wall_clock_or_for_want_of_memory_are_counted_with_those_that_differ() {
    let part = |part: &str, record: i64, is_partial: bool| {
        let mut part = result(part, record, Word::Ok, 0.1);
        part.is_partial = is_partial;
        part
    };
    let a = [
        (part("whole", 1, false), CloseCause::Complete),
        (part("late", 2, true), CloseCause::StreamTime),
        (part("quiet", 3, true), CloseCause::WallClock),
        (part("quiet-alike", 4, true), CloseCause::WallClock),
        (part("crowded", 5, true), CloseCause::Evicted),
        (part("alone", 6, true), CloseCause::Evicted),
    ];
    let mut b: Vec<_> = a[..5].iter().map(|(part, _)| part.clone()).collect();
    b[1].decision = Word::Ng;
    b[2].is_partial = false;
    b[4].decision = Word::Review;
    let a = side_closed_by(&a, Wanted::default());
    let found = Comparison::new(("a".to_owned(), a), ("b".to_owned(), side_of(&b)), &[]);
    let early = &found.a.closed_early;
    assert_eq!(early.wall_clock.first, ["line1/quiet", "line1/quiet-alike"]);
    assert_eq!(early.evicted.first, ["line1/crowded", "line1/alone"]);
    assert_eq!(early.differ.first, ["line1/crowded", "line1/quiet"]);
    assert_eq!(early.untold, 0);
    // B's records say nothing, and three of them are partial.
    let untold = EarlyClosings {
        untold: 3,
        ..EarlyClosings::default()
    };
    assert_eq!(found.b.closed_early, untold);
}

#[test]
fn what_a_replay_was_not_to_score_is_not_missing() {
    let cam = TopicPartition {
        topic: "cam".into(),
        partition: 0,
    };
    let range = ReplayedRange {
        offsets: [(cam, 10..20)].into(),
        takes_whole_parts: true,
        parts: None,
    };
    let part = |part: &str, record| (result(part, record, Word::Ok, 0.1), CloseCause::Complete);
    let parts = [
        part("before", 9),
        part("within", 10),
        part("lost", 19),
        part("after", 20),
    ];
    let wanted = Wanted {
        range: Some(range),
        ..Wanted::default()
    };
    // A part beyond the range that has a partner all the same counts.
    let b = [part("within", 10).0, part("after", 20).0];
    let a = side_closed_by(&parts, wanted);
    let found = Comparison::new(("a".to_owned(), a), ("b".to_owned(), side_of(&b)), &[]);
    assert_eq!(found.joined, 2);
    assert_eq!(found.a.unpaired.outside_the_range, 1);
    assert_eq!(found.a.unpaired.only_here.first, ["line1/lost"]);
    assert_eq!(found.a.decisions.total(), 3);
    assert_eq!(found.b.unpaired, Leftovers::default());
}

#[test]
fn of_a_topic_with_several_runs_one_may_be_taken() {
    let mut replayed = result("p", 1, Word::Ng, 0.9);
    replayed.run.kind = crate::schema::result::RunKind::Replay;
    replayed.run.id = "job".to_owned();
    let mut other = replayed.clone();
    other.run.id = "another".to_owned();
    other.result_id = "p-of-another".to_owned();
    let results = [
        (result("p", 1, Word::Ok, 0.1), CloseCause::Complete),
        (replayed, CloseCause::Complete),
        (other, CloseCause::Complete),
    ];
    let side = |runs: Runs| {
        let wanted = Wanted {
            runs,
            ..Wanted::default()
        };
        side_closed_by(&results, wanted)
    };
    let only = side(Runs::Only("job".to_owned()));
    assert_eq!((only.account.results, only.account.other_runs), (1, 2));
    let rest = side(Runs::AllBut("job".to_owned()));
    assert_eq!((rest.account.results, rest.account.other_runs), (2, 1));
    let found = Comparison::new(("a".to_owned(), rest), ("b".to_owned(), only), &[]);
    assert_eq!((found.joined, found.flipped), (1, 0));
}

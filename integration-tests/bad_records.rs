//! A bad record becomes a dead letter that holds all of it and says why; the stream goes on.

use image::ImageFormat;

use crate::kafka::{Broker, wire};
use crate::support::images;
use crate::support::line::{Line, VIEWS};
use crate::support::outcomes::Outcomes;
use crate::support::process::{Panoptes, log_folder};
use crate::support::published::DeadLetter;
use crate::support::shots::Shot;

/// One bad record, which part of the line it belongs to, and the reason that it must get.
struct Case {
    name: &'static str,
    reason: &'static str,
    shot: Shot,
}

/// Bad images: each is the view `top` of a part whose other views are sound.
fn bad_images(line: &Line<'_>) -> Vec<Case> {
    let top = line.camera("top");
    let of = |name: &'static str, reason: &'static str, content_type: &str, value: Vec<u8>| Case {
        name,
        reason,
        shot: Shot::of(&top, name, content_type, value),
    };
    let sound = images::jpeg(1);
    let mut flipped = sound.clone();
    flipped[2..40].fill(0x5a);
    let png = images::encoded(1, ImageFormat::Png);
    vec![
        of("corrupt-jpeg", "decode", "image/jpeg", flipped),
        of(
            "truncated-jpeg",
            "decode",
            "image/jpeg",
            sound[..sound.len() / 3].to_vec(),
        ),
        of(
            "truncated-png",
            "decode",
            "image/png",
            png[..png.len() / 2].to_vec(),
        ),
        of("not-an-image", "decode", "image/jpeg", b"hello".to_vec()),
        of("empty", "decode", "image/jpeg", Vec::new()),
        of(
            "not-msgpack",
            "decode",
            "application/msgpack",
            vec![0xc1; 40],
        ),
        of(
            "bomb",
            "too_large",
            "image/png",
            images::png_that_claims(60_000, 60_000),
        ),
        of("many-bytes", "too_large", "image/bmp", vec![7; 300_000]),
        of("odd-type", "unsupported", "video/mp4", sound.clone()),
        Case {
            name: "odd-pixels",
            reason: "unsupported",
            shot: Shot::of(&top, "odd-pixels", "image/x-raw", vec![0; 96 * 96])
                .header("pixel-format", "Coord3D_ABC32f")
                .header("width", "96")
                .header("height", "96"),
        },
        Case {
            name: "short-raw",
            reason: "decode",
            shot: Shot::of(&top, "short-raw", "image/x-raw", vec![0; 96 * 95])
                .header("pixel-format", "Mono8")
                .header("width", "96")
                .header("height", "96"),
        },
    ]
}

/// Records that are no view of any part that is expected.
fn strangers(line: &Line<'_>) -> Vec<Case> {
    let top = line.camera("top");
    let case = |name, reason, shot| Case { name, reason, shot };
    let too_long = "x".repeat(257);
    vec![
        case(
            "",
            "missing_key",
            Shot::jpeg(&top, "", 2)
                .keyed(None)
                .header("stranger", "no key"),
        ),
        case(
            "",
            "missing_key",
            Shot::jpeg(&top, "", 2).header("stranger", "empty key"),
        ),
        case(
            "",
            "missing_key",
            Shot::jpeg(&top, &too_long, 2).header("stranger", "long key"),
        ),
        case(
            "",
            "missing_key",
            Shot::jpeg(&top, "", 2)
                .keyed(Some(&[0xff, 0xfe]))
                .header("stranger", "no text"),
        ),
        case(
            "",
            "unknown_view",
            Shot::jpeg(&top, "odd-view", 2)
                .header("view", "bottom")
                .header("stranger", "view"),
        ),
    ]
}

fn assert_is_the_record(letter: &DeadLetter, shot: &Shot) {
    assert_eq!(letter.key, shot.key);
    assert_eq!(letter.value, shot.value);
    assert_eq!(letter.headers[..shot.headers.len()], shot.headers);
    assert_eq!(letter.header("panoptes-topic"), shot.topic);
    assert!(!letter.header("panoptes-error").is_empty());
}

#[test]
fn bad_records_become_dead_letters_while_the_stream_goes_on() {
    let line = Line::new(Broker::shared(), "bad-records");
    let config = line
        .config()
        .set("limits.max_bytes", "256KiB")
        .set("reassembly.timeout", "5s");
    let panoptes = Panoptes::run(&config, "bad-records");
    let bad_images = bad_images(&line);
    let strangers = strangers(&line);
    let mut shots = Vec::new();
    for (case, number) in bad_images.iter().zip(1..) {
        shots.extend(line.part_seen_by(case.name, number, &VIEWS[1..]));
        shots.push(case.shot.clone());
    }
    shots.extend(strangers.iter().map(|case| case.shot.clone()));
    shots.extend((0..8).flat_map(|number| line.part(&format!("sound-{number}"), number)));
    line.send(shots);
    let letters = bad_images.len() + strangers.len();
    line.await_outcomes(|outcomes| {
        outcomes.dead_letters.len() >= letters && outcomes.parts().len() >= bad_images.len() + 8
    });
    panoptes.stop_in_order();

    let outcomes = line.outcomes();
    assert_eq!(outcomes.dead_letters.len(), letters);
    for case in &bad_images {
        let letter = outcomes.dead_letter_of(case.name);
        assert_eq!(
            letter.reason(),
            case.reason,
            "{}: {}",
            case.name,
            letter.header("panoptes-error")
        );
        assert_is_the_record(letter, &case.shot);
        let result = outcomes.result_of(case.name);
        assert!(result.is_partial, "{result:?}");
        assert_eq!(
            result.views_with_status("scored"),
            VIEWS[1..],
            "{}",
            case.name
        );
    }
    assert_strangers_are_told(&outcomes, &strangers);
    for number in 0..8 {
        assert!(!outcomes.result_of(&format!("sound-{number}")).is_partial);
    }
    line.assert_every_record_has_one_fate(&outcomes);
}

fn assert_strangers_are_told(outcomes: &Outcomes, strangers: &[Case]) {
    for case in strangers {
        let mark = case.shot.headers.last().unwrap();
        let letter = outcomes
            .dead_letters
            .iter()
            .find(|letter| letter.headers.contains(mark));
        let letter = letter.unwrap_or_else(|| panic!("no dead letter of {mark:?}"));
        assert_eq!(
            letter.reason(),
            case.reason,
            "{mark:?}: {}",
            letter.header("panoptes-error")
        );
        assert_is_the_record(letter, &case.shot);
    }
}

#[test]
fn a_view_on_another_partition_than_its_part_is_misrouted() {
    let line = Line::new(Broker::shared(), "misrouted");
    let panoptes = Panoptes::run(&line.config(), "misrouted");
    let pinned = |shot: Shot, partition: i32| shot.on_partition(partition);
    let sound = line.part_seen_by("astray", 1, &VIEWS[..4]);
    line.send(sound.into_iter().map(|shot| pinned(shot, 0)));
    let astray = Shot::jpeg(&line.camera("back"), "astray", 9);
    line.send([pinned(astray.clone(), 1)]);
    line.send((0..line.partitions).flat_map(|number| {
        let shots = line.part(&format!("sound-{number}"), 3);
        shots.into_iter().map(move |shot| pinned(shot, number))
    }));
    line.await_outcomes(|outcomes| {
        outcomes.parts().len() >= 5 && !outcomes.dead_letters.is_empty()
    });
    panoptes.stop_in_order();

    let outcomes = line.outcomes();
    // Which partition is the part's own is decided by its first view; the minority cannot be known
    // before, so either the one view or the other four are misrouted.
    for letter in &outcomes.dead_letters {
        assert_eq!(letter.reason(), "misrouted");
        assert_eq!(letter.part(), "astray");
    }
    if outcomes.dead_letters.len() == 1 {
        assert_is_the_record(&outcomes.dead_letters[0], &astray);
    }
    assert!(outcomes.result_of("astray").is_partial);
    line.assert_every_record_has_one_fate(&outcomes);
    for number in 0..line.partitions {
        assert!(!outcomes.result_of(&format!("sound-{number}")).is_partial);
    }
}

#[test]
fn producers_that_place_keys_differently_are_told_apart() {
    let line = Line::with_views(Broker::shared(), "placed", &["top", "left"]);
    let config = line.config().set("reassembly.timeout", "30s");
    let panoptes = Panoptes::run(&config, "placed");
    let shots = |view: &str| {
        let parts = (0..60).map(|number| format!("part-{number}"));
        let shots = parts.flat_map(|part| line.part_seen_by(&part, 1, &[view]));
        shots.collect::<Vec<_>>()
    };
    line.send(shots("top"));
    line.send_placed_by("murmur2_random", shots("left"));
    panoptes.await_metric("panoptes_partitioner_mismatch", &[], 1.0);
    // Those that came before enough keys were seen say less.
    let outcomes = line.await_outcomes(|outcomes| {
        let mut letters = outcomes.dead_letters.iter();
        letters.any(|letter| letter.header("panoptes-error").contains("placed by"))
    });
    panoptes.stop_in_order();
    for letter in &outcomes.dead_letters {
        assert_eq!(letter.reason(), "misrouted");
    }
    let told = std::fs::read_to_string(log_folder().join("placed.log")).unwrap();
    let [top, left] = ["top", "left"].map(|view| line.camera(view));
    for placed in [
        format!("the keys of `{left}` seem to be placed by murmur2, the default of Java's clients"),
        format!(
            "the keys of `{top}` seem to be placed by CRC32, the default of librdkafka's clients"
        ),
    ] {
        assert!(told.contains(&placed), "{placed}: {told}");
    }
}

#[test]
fn a_header_whose_name_is_no_text_stops_nothing() {
    let line = Line::new(Broker::shared(), "odd-header");
    let panoptes = Panoptes::run(&line.config(), "odd-header");
    let shot = Shot::jpeg(&line.camera("top"), "odd", 1);
    let headers: [(&[u8], &[u8]); 2] = [
        (b"content-type", b"image/jpeg"),
        (&[b'x', 0xff, 0xfe], b"odd"),
    ];
    wire::produce(line.broker, &shot.topic, "odd", &shot.value, &headers);
    line.send(line.part("sound", 2));
    line.await_outcomes(|outcomes| {
        !outcomes.parts().is_empty() && !outcomes.dead_letters.is_empty()
    });
    panoptes.stop_in_order();

    let outcomes = line.outcomes();
    assert!(!outcomes.result_of("sound").is_partial);
    let letter = outcomes.dead_letter_of("odd");
    assert_eq!(letter.reason(), "decode");
    assert_eq!(letter.value, shot.value);
    assert!(
        letter
            .header("panoptes-error")
            .contains("header names in UTF-8"),
        "{letter:?}"
    );
}

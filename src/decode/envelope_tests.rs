use proptest::prelude::*;

use super::*;
use crate::domain::{Header, SourceOffset, Topic};
use crate::schema::view::{CapturedAt, MsgpackView, encode_msgpack_view};

const NOW: Timestamp = Timestamp(9_000);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0rest";

fn settings() -> EnvelopeSettings {
    EnvelopeSettings {
        default_line: LineId::from("line1"),
        default_class: Some(ClassName::from("bolt")),
        limits: ImageLimits {
            max_bytes: 1000,
            max_width: 64,
            max_height: 48,
            max_pixels: 2000,
        },
    }
}

fn record(headers: &[(&str, &str)], value: &[u8]) -> Record {
    Record {
        source: SourceOffset {
            topic: Topic::from("line1.cam.top"),
            partition: 0,
            offset: 7,
        },
        generation: 0,
        key: Some(b"part-1".to_vec()),
        value: Some(value.to_vec()),
        headers: headers
            .iter()
            .map(|(name, value)| Header {
                name: (*name).to_owned(),
                value: Some(value.as_bytes().to_vec()),
            })
            .collect(),
        timestamp: Some(Timestamp(1_000)),
        lease: None,
    }
}

fn decode(record: Record) -> Result<View, (RejectReason, String)> {
    EnvelopeDecoder::new(settings())
        .decode(Arc::new(record), NOW)
        .map_err(|reject| (reject.reason, reject.error))
}

fn reject_of(record: Record) -> (RejectReason, String) {
    decode(record).expect_err("a reject")
}

#[test]
fn a_bare_image_takes_its_fields_from_headers() {
    let headers = [
        ("content-type", "image/jpeg"),
        ("view", "left"),
        ("class", "gear"),
        ("line", "line2"),
        ("views", "5"),
        ("captured-at", "1970-01-01T00:00:05.250Z"),
        ("traceparent", TRACE),
    ];
    let view = decode(record(&headers, JPEG)).unwrap();
    assert_eq!(view.part.part.as_str(), "part-1");
    assert_eq!(view.part.line.as_str(), "line2");
    assert_eq!(view.view.as_str(), "left");
    assert_eq!(view.class, Some(ClassName::from("gear")));
    assert_eq!(view.expected_views, Some(5));
    assert_eq!(view.captured_at, Timestamp(5_250));
    assert_eq!(view.traceparent.as_deref(), Some(TRACE));
    assert_eq!(view.encoding, ImageEncoding::Jpeg);
    assert_eq!(view.image_bytes(), JPEG);
}

#[test]
fn a_bare_image_without_headers_takes_the_defaults() {
    let view = decode(record(&[], JPEG)).unwrap();
    assert_eq!(view.part.line.as_str(), "line1");
    assert_eq!(view.view.as_str(), "top");
    assert_eq!(view.class, Some(ClassName::from("bolt")));
    assert_eq!(view.expected_views, None);
    assert_eq!(view.captured_at, Timestamp(1_000));
    assert_eq!(view.encoding, ImageEncoding::Jpeg);
}

#[test]
fn a_view_without_any_time_is_taken_now() {
    let mut record = record(&[], JPEG);
    record.timestamp = None;
    assert_eq!(decode(record).unwrap().captured_at, NOW);
}

#[test]
fn a_topic_without_dots_is_the_view() {
    assert_eq!(view_of_topic("top").as_str(), "top");
    assert_eq!(view_of_topic("odd.").as_str(), "odd.");
}

#[test]
fn epoch_milliseconds_are_a_capture_time() {
    let view = decode(record(&[("captured-at", "1700000000123")], JPEG)).unwrap();
    assert_eq!(view.captured_at, Timestamp(1_700_000_000_123));
}

#[test]
fn epoch_microseconds_are_no_capture_time() {
    let (reason, error) = reject_of(record(&[("captured-at", "1700000000123456")], JPEG));
    assert_eq!(reason, RejectReason::Decode);
    assert!(error.contains("`1700000000123456`"), "{error}");
}

#[test]
fn a_msgpack_view_is_read_in_place() {
    let map = MsgpackView {
        part_id: Some("part-1"),
        view: Some("left"),
        captured_at: Some(CapturedAt::EpochMillis(77)),
        content_type: Some("image/jpeg"),
        data: JPEG,
        ..MsgpackView::default()
    };
    let value = encode_msgpack_view(&map);
    let headers = [
        ("content-type", "application/msgpack"),
        ("view", "top"),
        ("class", "gear"),
    ];
    let view = decode(record(&headers, &value)).unwrap();
    assert_eq!(view.view.as_str(), "left", "the map wins over the header");
    assert_eq!(
        view.class,
        Some(ClassName::from("gear")),
        "the header fills the gap"
    );
    assert_eq!(view.captured_at, Timestamp(77));
    assert_eq!(view.image_bytes(), JPEG);
    assert_eq!(
        view.image.end,
        value.len(),
        "the image is the map's last field"
    );
}

#[test]
fn a_msgpack_view_of_another_part_than_its_key_is_refused() {
    let map = MsgpackView {
        part_id: Some("part-2"),
        data: JPEG,
        ..MsgpackView::default()
    };
    let headers = [("content-type", "application/msgpack")];
    let (reason, error) = reject_of(record(&headers, &encode_msgpack_view(&map)));
    assert_eq!(reason, RejectReason::Decode);
    assert!(
        error.contains("`part-1`") && error.contains("`part-2`"),
        "{error}"
    );
}

#[test]
fn a_msgpack_view_within_a_msgpack_view_is_unsupported() {
    let map = MsgpackView {
        content_type: Some("application/msgpack"),
        data: b"\x80",
        ..MsgpackView::default()
    };
    let headers = [("content-type", "application/msgpack")];
    let (reason, _) = reject_of(record(&headers, &encode_msgpack_view(&map)));
    assert_eq!(reason, RejectReason::Unsupported);
}

#[test]
fn msgpack_that_is_no_map_is_refused() {
    let headers = [("content-type", "application/msgpack")];
    for value in [
        &b""[..],
        b"\x93\x01\x02\x03",
        b"\x81\xa4view\xa3top",
        b"\xdf\xff\xff\xff\xff",
    ] {
        assert_eq!(
            reject_of(record(&headers, value)).0,
            RejectReason::Decode,
            "{value:?}"
        );
    }
}

#[test]
fn a_key_is_required_in_utf8_and_of_bounded_length() {
    let keys = [None, Some(vec![]), Some(vec![0xff]), Some(vec![b'a'; 257])];
    for key in keys {
        let mut record = record(&[], JPEG);
        record.key.clone_from(&key);
        assert_eq!(reject_of(record).0, RejectReason::MissingKey, "{key:?}");
    }
    let mut record = record(&[], JPEG);
    record.key = Some(vec![b'a'; 256]);
    assert!(decode(record).is_ok());
}

#[test]
fn a_tombstone_is_refused() {
    let mut record = record(&[], JPEG);
    record.value = None;
    assert_eq!(reject_of(record).0, RejectReason::Decode);
}

#[test]
fn an_empty_value_is_refused() {
    assert_eq!(
        reject_of(record(&[("content-type", "image/png")], b"")).0,
        RejectReason::Decode
    );
}

#[test]
fn a_value_over_the_limit_is_too_large_whatever_else_is_wrong() {
    let mut record = record(&[("views", "many")], &[0; 1001]);
    record.key = None;
    let (reason, error) = reject_of(record);
    assert_eq!(reason, RejectReason::TooLarge);
    assert!(
        error.contains("`1000`") && error.contains("`1001`"),
        "{error}"
    );
}

#[test]
fn content_types_are_read_without_case_and_parameters() {
    let view = decode(record(
        &[("content-type", "Image/PNG; q=1")],
        b"not looked at",
    ))
    .unwrap();
    assert_eq!(view.encoding, ImageEncoding::Png);
}

#[test]
fn an_unknown_content_type_is_unsupported() {
    let (reason, error) = reject_of(record(&[("content-type", "image/heic")], JPEG));
    assert_eq!(reason, RejectReason::Unsupported);
    assert!(error.contains("`image/heic`"), "{error}");
}

#[test]
fn unknown_bytes_without_a_content_type_are_unsupported() {
    assert_eq!(
        reject_of(record(&[], b"hello")).0,
        RejectReason::Unsupported
    );
}

#[test]
fn a_malformed_trace_context_is_ignored() {
    for trace in [
        "",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    ] {
        let view = decode(record(&[("traceparent", trace)], JPEG)).unwrap();
        assert_eq!(view.traceparent, None, "{trace}");
    }
    let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
    assert!(is_traceparent(later));
}

#[test]
fn a_wrong_count_of_views_is_refused() {
    for views in ["0", "-1", "five", "1025", "99999999999999999999"] {
        let (reason, _) = reject_of(record(&[("views", views)], JPEG));
        assert_eq!(reason, RejectReason::Decode, "{views}");
    }
}

#[test]
fn the_last_of_two_headers_of_a_name_counts() {
    let view = decode(record(&[("view", "left"), ("view", "right")], JPEG)).unwrap();
    assert_eq!(view.view.as_str(), "right");
}

fn raw_headers<'a>(format: &'a str, width: &'a str, height: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("content-type", "image/x-raw"),
        ("pixel-format", format),
        ("width", width),
        ("height", height),
    ]
}

#[test]
fn a_raw_frame_without_a_stride_has_no_padding() {
    let view = decode(record(&raw_headers("Mono10p", "4", "2"), &[0; 10])).unwrap();
    let expected = RawLayout {
        pixel_format: crate::domain::PixelFormat::Mono10p,
        width: 4,
        height: 2,
        stride: 5,
    };
    assert_eq!(view.encoding, ImageEncoding::Raw(expected));
}

#[test]
fn a_raw_frame_of_wrong_shape_is_refused() {
    let cases = [
        (raw_headers("Mono8", "4", "2"), 7, RejectReason::Decode),
        (raw_headers("Mono8", "0", "2"), 8, RejectReason::Decode),
        (
            raw_headers("YUV422_8", "4", "2"),
            16,
            RejectReason::Unsupported,
        ),
        (raw_headers("Mono8", "65", "2"), 130, RejectReason::TooLarge),
        (
            raw_headers("Mono8", "5000000000", "2"),
            8,
            RejectReason::TooLarge,
        ),
        (raw_headers("BayerRG8", "1", "8"), 8, RejectReason::Decode),
        (
            vec![("content-type", "image/x-raw"), ("pixel-format", "Mono8")],
            8,
            RejectReason::Decode,
        ),
    ];
    for (headers, bytes, expected) in cases {
        let (reason, error) = reject_of(record(&headers, &vec![1; bytes]));
        assert_eq!(reason, expected, "{headers:?}: {error}");
    }
}

#[test]
fn an_error_shows_little_of_hostile_text() {
    let hostile = format!("\n\x1b[2J{}", "x".repeat(500));
    let (_, error) = reject_of(record(&[("content-type", &hostile)], JPEG));
    assert!(
        error.len() < 400 && !error.contains('\x1b') && !error.contains('\n'),
        "{error}"
    );
}

/// Text that is often what a field expects and often not.
fn field_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("application/msgpack".to_owned()),
        Just("image/x-raw".to_owned()),
        Just("Mono12p".to_owned()),
        any::<u64>().prop_map(|number| number.to_string()),
        (0_u32..80).prop_map(|number| number.to_string()),
        ".{0,40}",
    ]
}

fn field_name() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "content-type",
        "view",
        "class",
        "line",
        "views",
        "captured-at",
        "traceparent",
        "pixel-format",
        "width",
        "height",
        "stride",
    ])
    .prop_map(str::to_owned)
}

fn any_header() -> impl Strategy<Value = Header> {
    let bytes = prop_oneof![
        field_text().prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    (field_name(), proptest::option::of(bytes)).prop_map(|(name, value)| Header { name, value })
}

proptest! {
    #[test]
    fn arbitrary_records_never_panic_and_views_keep_the_promises(
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..1100)),
        headers in proptest::collection::vec(any_header(), 0..8),
    ) {
        let mut record = record(&[], b"");
        record.key = key;
        record.value = value;
        record.headers = headers;
        if let Ok(view) = decode(record) {
            prop_assert!(!view.image_bytes().is_empty());
            prop_assert!(view.image_bytes().len() <= 1000);
            prop_assert!((1..=256).contains(&view.part.part.as_str().len()));
            if let ImageEncoding::Raw(layout) = view.encoding {
                prop_assert!(layout.width <= 64 && layout.height <= 48);
                prop_assert!(raw::check_layout(&layout, view.image_bytes().len()).is_ok());
            }
        }
    }

    #[test]
    fn arbitrary_msgpack_never_panics(
        value in proptest::collection::vec(any::<u8>(), 0..200),
        length in 0_u8..16,
    ) {
        let value = [&[0x80 | length][..], &value].concat();
        let _outcome = decode(record(&[("content-type", "application/msgpack")], &value));
    }

    #[test]
    fn a_damaged_msgpack_view_never_panics(at in 0_usize..60, byte in any::<u8>(), cut in 0_usize..60) {
        let map = MsgpackView { view: Some("left"), views: Some(3), data: JPEG, ..MsgpackView::default() };
        let mut value = encode_msgpack_view(&map);
        let at = at % value.len();
        value[at] = byte;
        value.truncate(value.len().saturating_sub(cut));
        let _outcome = decode(record(&[("content-type", "application/msgpack")], &value));
    }

    #[test]
    fn both_envelopes_bring_what_was_sent(
        part in "[^\\x00]{1,60}",
        view in "[a-z0-9_-]{1,20}",
        class in proptest::option::of("[a-zA-Z0-9 _-]*[a-zA-Z0-9]".prop_filter("length", |c| c.len() <= 256 && !c.starts_with(' '))),
        views in proptest::option::of(1_u64..=1024),
        millis in proptest::option::of(-1_000_000_000_000_i64..4_000_000_000_000),
        data in proptest::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut headers = vec![("content-type", "image/bmp".to_owned()), ("view", view.clone())];
        headers.extend(class.clone().map(|class| ("class", class)));
        headers.extend(views.map(|views| ("views", views.to_string())));
        headers.extend(millis.map(|millis| ("captured-at", millis.to_string())));
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let mut bare = record(&headers, &data);
        bare.key = Some(part.clone().into_bytes());

        let map = MsgpackView {
            part_id: Some(&part),
            view: Some(&view),
            class: class.as_deref(),
            views,
            captured_at: millis.map(CapturedAt::EpochMillis),
            content_type: Some("image/bmp"),
            data: &data,
            ..MsgpackView::default()
        };
        let mut packed = record(&[("content-type", "application/msgpack")], &encode_msgpack_view(&map));
        packed.key = Some(part.clone().into_bytes());

        for record in [bare, packed] {
            let read = decode(record).unwrap();
            prop_assert_eq!(read.part.part.as_str(), part.as_str());
            prop_assert_eq!(read.view.as_str(), view.as_str());
            prop_assert_eq!(read.class.as_ref().map(ClassName::as_str), Some(class.as_deref().unwrap_or("bolt")));
            prop_assert_eq!(read.expected_views, views.and_then(|views| usize::try_from(views).ok()));
            prop_assert_eq!(read.captured_at, Timestamp(millis.unwrap_or(1_000)));
            prop_assert_eq!(read.image_bytes(), data.as_slice());
            prop_assert_eq!(read.encoding, ImageEncoding::Bmp);
        }
    }
}

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn any_bytes() -> impl Strategy<Value = AnyBytes> {
    prop_oneof![
        vec(any::<u8>(), 0..12).prop_map(AnyBytes::from),
        ".{0,8}".prop_map(|text: String| AnyBytes::from(text.into_bytes())),
    ]
}

fn entries() -> impl Strategy<Value = IndexEntry> {
    let header =
        (".{0,6}", option::of(any_bytes())).prop_map(|(name, value)| IndexHeader { name, value });
    let place = (".{1,6}", any::<u64>(), any::<u64>(), "[0-9a-f]{64}").prop_map(
        |(entry, at, length, sha256)| ValuePlace {
            entry,
            at,
            length,
            sha256,
        },
    );
    let time = option::of((any::<i64>(), any::<bool>()));
    let keyed = (any::<i64>(), time, option::of(any_bytes()));
    let rest = (vec(header, 0..4), option::of(place), option::of(".{0,9}"));
    (keyed, rest).prop_map(
        |((offset, time, key), (headers, value, fault))| IndexEntry {
            offset,
            timestamp: time.map(|(time, _)| time),
            timestamp_type: time.map(|(_, is_create)| match is_create {
                true => TimestampType::CreateTime,
                false => TimestampType::LogAppendTime,
            }),
            key,
            headers,
            value,
            fault,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_index_comes_back_as_it_was(mut written in vec(entries(), 0..6)) {
        written.sort_by_key(|entry| entry.offset);
        written.dedup_by_key(|entry| entry.offset);
        let bytes: Vec<u8> = written.iter().flat_map(IndexEntry::to_line).collect();
        prop_assert_eq!(IndexEntry::all_from_bytes(&bytes).unwrap(), written);
    }

    #[test]
    fn bytes_come_back_as_they_were(bytes in vec(any::<u8>(), 0..40)) {
        let json = serde_json::to_string(&AnyBytes::from(bytes.clone())).unwrap();
        let read: AnyBytes = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(Vec::from(read), bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..60)) {
        drop(ArchiveManifest::from_bytes(&bytes));
        drop(SegmentManifest::from_bytes(&bytes));
        drop(IndexEntry::all_from_bytes(&bytes));
    }
}

#[test]
fn keys_stand_as_text_where_they_are_text() {
    let json = |bytes: &[u8]| serde_json::to_string(&AnyBytes::from(bytes.to_vec())).unwrap();
    assert_eq!(json(b"part-1"), r#""part-1""#);
    assert_eq!(json(b""), r#""""#);
    assert_eq!(json(&[0xff, 0]), r#"{"base64":"/wA="}"#);
}

#[test]
fn offsets_that_do_not_rise_are_refused() {
    let line = |offset| {
        IndexEntry {
            offset,
            timestamp: None,
            timestamp_type: None,
            key: None,
            headers: Vec::new(),
            value: None,
            fault: None,
        }
        .to_line()
    };
    let error = IndexEntry::all_from_bytes(&[line(7), line(7)].concat()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected offsets that rise in the index, found `7` after `7`"
    );
}

#[test]
fn a_manifest_of_a_later_release_is_refused_by_its_version() {
    let manifest = ArchiveManifest {
        schema_version: 2,
        created_by: "panoptes 9.0.0".to_owned(),
        cluster_id: "cluster".to_owned(),
        created_at: 0,
        completed_at: None,
        subscription: vec!["cam".to_owned()],
        range: RequestedRange::default(),
        topics: Vec::new(),
    };
    let error = ArchiveManifest::from_bytes(&manifest.to_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected schema version `1` of an archive's manifest, found `2`"
    );
    let error = SegmentManifest::from_bytes(b"{}").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("expected a segment's manifest, found none: missing field"),
        "{error}"
    );
}

//! The MessagePack view envelope: what a camera's producer writes when it sends
//! `application/msgpack` instead of a bare image with headers.
//!
//! The value is a map with the names of the record headers, `_` for `-`, and the image as `data`.
//! Every field but `data` is optional; a field that the map lacks is taken from the record's header
//! of that name, then from the configuration. Unknown fields are ignored, so that producers may add
//! their own. Strings and the image borrow from the record: reading copies nothing.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The `content-type` of a record whose value is a [`MsgpackView`].
pub const MSGPACK_CONTENT_TYPE: &str = "application/msgpack";

/// One view of a part, as the `application/msgpack` envelope carries it.
///
/// ```
/// use panoptes::schema::view::{MsgpackView, encode_msgpack_view};
/// let view = MsgpackView { view: Some("top"), data: b"\xff\xd8...", ..MsgpackView::default() };
/// let bytes = encode_msgpack_view(&view);
/// let read: MsgpackView<'_> = rmp_serde::from_slice(&bytes)?;
/// assert_eq!(read, view);
/// # Ok::<(), rmp_serde::decode::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MsgpackView<'a> {
    /// The part; when given it must equal the record's key, which decides the partition.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub part_id: Option<&'a str>,
    /// Which camera took the image; else the topic's last dot-segment.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub view: Option<&'a str>,
    /// The part's class; else the configured one, if the line makes one class.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub class: Option<&'a str>,
    /// The line that makes the part; else the configured one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub line: Option<&'a str>,
    /// How many views the part has; else as configured for the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub views: Option<u64>,
    /// When the image was taken; else Kafka's record timestamp.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub captured_at: Option<CapturedAt<'a>>,
    /// W3C trace context, carried through to the result.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<&'a str>,
    /// The image's own type, such as `image/jpeg`; else told by its first bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<&'a str>,
    /// `image/x-raw` only: the PFNC pixel format, by name or code.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pixel_format: Option<&'a str>,
    /// `image/x-raw` only: width in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u64>,
    /// `image/x-raw` only: height in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// `image/x-raw` only: bytes from one line's start to the next; else lines follow each other
    /// without a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<u64>,
    /// The image's bytes, as MessagePack `bin`.
    #[serde(borrow, with = "serde_bytes")]
    #[schemars(schema_with = "binary_schema")]
    pub data: &'a [u8],
}

/// A capture time as producers may write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "`captured_at` is neither RFC 3339 text nor integer epoch milliseconds"
)]
pub enum CapturedAt<'a> {
    /// Epoch milliseconds.
    EpochMillis(i64),
    /// RFC 3339, such as `2026-03-01T12:00:00.250Z`.
    #[serde(borrow)]
    Text(&'a str),
}

/// Encodes a view as producers send it, with named fields.
///
/// # Panics
/// Never: a map of strings, integers and bytes always encodes into memory.
pub fn encode_msgpack_view(view: &MsgpackView<'_>) -> Vec<u8> {
    rmp_serde::to_vec_named(view).expect("strings, integers and bytes always encode into memory")
}

/// JSON has no bytes; the schema describes the MessagePack map, in which `data` is of type `bin`.
fn binary_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "the image's bytes, as MessagePack `bin`",
        "x-msgpack-type": "bin",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_with_unknown_fields_is_read() {
        // {"data": bin 01 02, "camera_serial": "A7", "captured_at": 5}
        let bytes = [
            &b"\x83\xa4data\xc4\x02\x01\x02"[..],
            b"\xadcamera_serial\xa2A7",
            b"\xabcaptured_at\x05",
        ]
        .concat();
        let view: MsgpackView<'_> = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(view.data, [1, 2]);
        assert_eq!(view.captured_at, Some(CapturedAt::EpochMillis(5)));
    }

    #[test]
    fn a_capture_time_of_another_type_is_named_in_the_error() {
        let bytes = b"\x82\xa4data\xc4\x00\xabcaptured_at\xc3";
        let error = rmp_serde::from_slice::<MsgpackView<'_>>(bytes).unwrap_err();
        assert!(error.to_string().contains("`captured_at`"), "{error}");
    }

    #[test]
    fn the_schema_requires_only_the_image() {
        let schema = schemars::schema_for!(MsgpackView<'_>);
        assert_eq!(
            schema.get("required").unwrap(),
            &serde_json::json!(["data"])
        );
    }
}

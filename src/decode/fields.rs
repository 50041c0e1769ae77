//! The fields of an envelope, before they are checked: from record headers and from a MessagePack map.

use std::ops::Range;

use crate::domain::{Record, Timestamp};
use crate::schema::view::{CapturedAt, MsgpackView};

/// Longest name of a part, view, class or line, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// What an envelope says, each field as far as it says it.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) part_id: Option<&'a str>,
    pub(super) view: Option<&'a str>,
    pub(super) class: Option<&'a str>,
    pub(super) line: Option<&'a str>,
    pub(super) views: Option<u64>,
    pub(super) captured_at: Option<Timestamp>,
    pub(super) traceparent: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    pub(super) pixel_format: Option<&'a str>,
    pub(super) width: Option<u64>,
    pub(super) height: Option<u64>,
    pub(super) stride: Option<u64>,
}

impl<'a> Fields<'a> {
    /// Reads the record's headers.
    pub(super) fn from_headers(record: &'a Record) -> Result<Self, String> {
        Ok(Self {
            part_id: None,
            view: header_name(record, "view")?,
            class: header_name(record, "class")?,
            line: header_name(record, "line")?,
            views: header_number(record, "views")?,
            captured_at: match header_text(record, "captured-at")? {
                Some(text) => Some(parse_capture_time(text)?),
                None => None,
            },
            // A trace context is never worth a part: what is not text is ignored like any other
            // malformed one.
            traceparent: record
                .header("traceparent")
                .and_then(|bytes| std::str::from_utf8(bytes).ok()),
            content_type: header_text(record, "content-type")?,
            pixel_format: header_text(record, "pixel-format")?,
            width: header_number(record, "width")?,
            height: header_number(record, "height")?,
            stride: header_number(record, "stride")?,
        })
    }

    /// Reads a MessagePack map; also says where in `value` the image's bytes lie.
    pub(super) fn from_msgpack(value: &'a [u8]) -> Result<(Self, Range<usize>), String> {
        // A positional array would be read too, in the order of the struct's fields, which is no
        // promise to anyone.
        if !matches!(value.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
            return Err(match value.first() {
                Some(byte) => format!("expected a msgpack map, found marker `{byte:#04x}`"),
                None => "expected a msgpack map, found no bytes".to_owned(),
            });
        }
        let map: MsgpackView<'a> = rmp_serde::from_slice(value)
            .map_err(|error| format!("expected a msgpack map of one view: {error}"))?;
        let image = range_within(value, map.data)
            .ok_or("expected the field `data` to lie within the record's value")?;
        let fields = Self {
            part_id: map.part_id,
            view: checked_field_name("view", map.view)?,
            class: checked_field_name("class", map.class)?,
            line: checked_field_name("line", map.line)?,
            views: map.views,
            captured_at: match map.captured_at {
                Some(CapturedAt::Text(text)) => Some(parse_capture_time(text)?),
                Some(CapturedAt::EpochMillis(millis)) => Some(check_epoch_millis(millis)?),
                None => None,
            },
            traceparent: map.traceparent,
            content_type: map.content_type,
            pixel_format: map.pixel_format,
            width: map.width,
            height: map.height,
            stride: map.stride,
        };
        Ok((fields, image))
    }

    /// These fields, each gap filled from `other`; `content_type` stays, for it belongs to the
    /// envelope that it came in.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            part_id: self.part_id.or(other.part_id),
            view: self.view.or(other.view),
            class: self.class.or(other.class),
            line: self.line.or(other.line),
            views: self.views.or(other.views),
            captured_at: self.captured_at.or(other.captured_at),
            traceparent: self.traceparent.or(other.traceparent),
            content_type: self.content_type,
            pixel_format: self.pixel_format.or(other.pixel_format),
            width: self.width.or(other.width),
            height: self.height.or(other.height),
            stride: self.stride.or(other.stride),
        }
    }
}

/// Checks a name's length; `what` names it in the error.
pub(super) fn check_name<'a>(what: &str, name: &'a str) -> Result<&'a str, String> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(format!(
            "expected {what} of 1 to {MAX_NAME_BYTES} bytes, found `{}` bytes",
            name.len()
        ));
    }
    Ok(name)
}

fn checked_field_name<'a>(field: &str, name: Option<&'a str>) -> Result<Option<&'a str>, String> {
    name.map(|name| check_name(&format!("the field `{field}`"), name))
        .transpose()
}

fn header_text<'a>(record: &'a Record, name: &str) -> Result<Option<&'a str>, String> {
    let Some(bytes) = record.header(name) else {
        return Ok(None);
    };
    std::str::from_utf8(bytes)
        .map(|text| Some(text.trim()))
        .map_err(|_| format!("expected the header `{name}` in UTF-8, found other bytes"))
}

fn header_name<'a>(record: &'a Record, name: &str) -> Result<Option<&'a str>, String> {
    header_text(record, name)?
        .map(|text| check_name(&format!("the header `{name}`"), text))
        .transpose()
}

fn header_number(record: &Record, name: &str) -> Result<Option<u64>, String> {
    let Some(text) = header_text(record, name)? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let text = excerpt(text);
        format!("expected the header `{name}` to be a decimal number, found `{text}`")
    })
}

/// RFC 3339 or epoch milliseconds.
fn parse_capture_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(millis) = text.parse::<i64>() {
        return check_epoch_millis(millis);
    }
    text.parse::<jiff::Timestamp>()
        .map(|time| Timestamp(time.as_millisecond()))
        .map_err(|_| {
            let text = excerpt(text);
            format!("expected the capture time in RFC 3339 or epoch milliseconds, found `{text}`")
        })
}

/// Refuses what cannot be a date, such as epoch microseconds.
fn check_epoch_millis(millis: i64) -> Result<Timestamp, String> {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(_) => Ok(Timestamp(millis)),
        Err(_) => Err(format!(
            "expected the capture time in epoch milliseconds up to the year 9999, found `{millis}`"
        )),
    }
}

/// At most 64 characters of a text from outside, control characters escaped, for an error.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

/// Where `part`, a slice of `whole`, lies in it.
fn range_within(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    if part.is_empty() {
        return Some(0..0);
    }
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

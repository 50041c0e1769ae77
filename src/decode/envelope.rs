//! From a record to a [`View`] or a [`Reject`]: which part, which camera, where the image lies.
//!
//! Two envelopes, told apart by the header `content-type`:
//! 1. an image type (`image/jpeg`, `image/x-raw`, ...): the value is the image, all else is in
//!    headers;
//! 2. `application/msgpack`: the value is a [`MsgpackView`](crate::schema::view::MsgpackView); what
//!    the map lacks is taken from the headers.
//!
//! Without a content type (or with `application/octet-stream`) the image's first bytes decide.
//! The pixels are not touched, and the image stays where it is in the record: a view knows its range.

use std::ops::Range;
use std::sync::Arc;

use image::ImageFormat;

use super::fields::{Fields, check_name, excerpt};
use super::limits::ImageLimits;
use super::raw;
use crate::domain::{
    ClassName, ImageEncoding, LineId, PartId, PartKey, RawLayout, Record, Reject, RejectReason,
    Timestamp, View, ViewId,
};

/// The most views a part may announce; above it the number is taken for a mistake, since a group
/// that waits for it would only ever time out.
const MAX_EXPECTED_VIEWS: u64 = 1024;

/// The longest trace context carried on. Version `00` takes 55 bytes.
const MAX_TRACEPARENT_BYTES: usize = 256;

/// What the envelope of a record does not say itself.
#[derive(Clone, Debug)]
pub struct EnvelopeSettings {
    /// Line of records without a `line` (`input.line`).
    pub default_line: LineId,
    /// Class of records without a `class` (`input.class`); none where a line makes several.
    pub default_class: Option<ClassName>,
    /// How large a record and its image may be.
    pub limits: ImageLimits,
}

/// Reads envelopes.
///
/// ```
/// use std::sync::Arc;
/// use panoptes::decode::{EnvelopeDecoder, EnvelopeSettings, ImageLimits};
/// use panoptes::domain::{Header, LineId, Record, SourceOffset, Timestamp, Topic};
///
/// let decoder = EnvelopeDecoder::new(EnvelopeSettings {
///     default_line: LineId::from("line1"),
///     default_class: None,
///     limits: ImageLimits::default(),
/// });
/// let record = Record {
///     source: SourceOffset { topic: Topic::from("line1.cam.top"), partition: 0, offset: 7 },
///     generation: 0,
///     key: Some(b"part-1".to_vec()),
///     value: Some(b"\xff\xd8\xff...".to_vec()),
///     headers: vec![Header { name: "content-type".into(), value: Some(b"image/jpeg".to_vec()) }],
///     timestamp: Some(Timestamp(1_000)),
///     lease: None,
/// };
/// let view = decoder.decode(Arc::new(record), Timestamp(2_000)).expect("a sound envelope");
/// assert_eq!(view.view.as_str(), "top");
/// assert_eq!(view.captured_at, Timestamp(1_000));
/// ```
#[derive(Clone, Debug)]
pub struct EnvelopeDecoder {
    settings: EnvelopeSettings,
}

/// A fault, before it is put beside the record that has it.
struct Fault {
    reason: RejectReason,
    error: String,
}

impl Fault {
    fn new(reason: RejectReason, error: impl Into<String>) -> Self {
        Self {
            reason,
            error: error.into(),
        }
    }

    fn decode(error: impl Into<String>) -> Self {
        Self::new(RejectReason::Decode, error)
    }
}

/// What a content type stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentType {
    Image(ImageEncoding),
    Raw,
    Msgpack,
    Untold,
}

impl EnvelopeDecoder {
    /// A decoder with these settings.
    pub fn new(settings: EnvelopeSettings) -> Self {
        Self { settings }
    }

    /// Reads one record's envelope; `now` is the time of a view that carries none and has no
    /// record timestamp.
    ///
    /// # Errors
    /// The record with the reason to reject it: `too_large`, `missing_key` (absent, empty, longer
    /// than 256 bytes or not UTF-8), `unsupported` (content type, pixel format) or `decode`
    /// (anything else, a tombstone included).
    pub fn decode(&self, record: Arc<Record>, now: Timestamp) -> Result<View, Reject> {
        match self.read(&record, now) {
            Ok(view) => Ok(view),
            Err(Fault { reason, error }) => Err(Reject {
                record,
                reason,
                error,
            }),
        }
    }

    fn read(&self, record: &Arc<Record>, now: Timestamp) -> Result<View, Fault> {
        let value = record
            .value
            .as_deref()
            .ok_or_else(|| Fault::decode("expected a value, found none (a tombstone)"))?;
        self.settings
            .limits
            .check_bytes(value.len())
            .map_err(|error| Fault::new(RejectReason::TooLarge, error))?;
        let part = read_key(record)?;

        let headers = Fields::from_headers(record).map_err(Fault::decode)?;
        let (fields, content_type, image) = read_envelope(headers, value)?;
        if let Some(part_id) = fields.part_id.filter(|part_id| *part_id != part) {
            let part_id = excerpt(part_id);
            return Err(Fault::decode(format!(
                "expected the field `part_id` to equal the record's key `{}`, found `{part_id}`",
                excerpt(part)
            )));
        }
        let bytes = value.get(image.clone()).unwrap_or_default();
        if bytes.is_empty() {
            return Err(Fault::decode("expected an image, found `0` bytes"));
        }

        Ok(View {
            record: Arc::clone(record),
            part: PartKey {
                line: fields
                    .line
                    .map_or_else(|| self.settings.default_line.clone(), LineId::from),
                part: PartId::from(part),
            },
            view: fields
                .view
                .map_or_else(|| view_of_topic(record.source.topic.as_str()), ViewId::from),
            class: fields
                .class
                .map(ClassName::from)
                .or_else(|| self.settings.default_class.clone()),
            expected_views: read_expected_views(fields.views)?,
            captured_at: fields.captured_at.or(record.timestamp).unwrap_or(now),
            traceparent: fields
                .traceparent
                .filter(|text| is_traceparent(text))
                .map(str::to_owned),
            encoding: self.read_encoding(content_type, &fields, bytes)?,
            image,
        })
    }

    fn read_encoding(
        &self,
        content_type: ContentType,
        fields: &Fields<'_>,
        bytes: &[u8],
    ) -> Result<ImageEncoding, Fault> {
        match content_type {
            ContentType::Image(encoding) => Ok(encoding),
            ContentType::Raw => self.read_raw_layout(fields, bytes).map(ImageEncoding::Raw),
            ContentType::Untold => sniff(bytes).ok_or_else(|| {
                Fault::new(
                    RejectReason::Unsupported,
                    "expected a content type, or the first bytes of JPEG, PNG, BMP, TIFF or WebP, \
                     found neither",
                )
            }),
            ContentType::Msgpack => Err(Fault::new(
                RejectReason::Unsupported,
                "expected an image type as `content_type` of a msgpack view, found \
                 `application/msgpack`",
            )),
        }
    }

    fn read_raw_layout(&self, fields: &Fields<'_>, bytes: &[u8]) -> Result<RawLayout, Fault> {
        let name = fields.pixel_format.ok_or_else(|| {
            Fault::decode("expected `pixel-format` with `image/x-raw`, found none")
        })?;
        let pixel_format = raw::parse_pixel_format(name).ok_or_else(|| {
            let name = excerpt(name);
            Fault::new(
                RejectReason::Unsupported,
                format!("expected a supported PFNC pixel format, found `{name}`"),
            )
        })?;
        let width = read_side("width", fields.width)?;
        let height = read_side("height", fields.height)?;
        self.settings
            .limits
            .check_dimensions(width, height)
            .map_err(|error| Fault::new(RejectReason::TooLarge, error))?;
        let stride = match fields.stride {
            None => raw::line_bytes(pixel_format, width),
            Some(stride) => usize::try_from(stride).map_err(|_| {
                Fault::decode(format!("expected a stride in bytes, found `{stride}`"))
            })?,
        };
        let layout = RawLayout {
            pixel_format,
            width,
            height,
            stride,
        };
        raw::check_layout(&layout, bytes.len()).map_err(Fault::decode)?;
        Ok(layout)
    }
}

/// The fields, the image's own content type and where the image lies in `value`.
fn read_envelope<'a>(
    headers: Fields<'a>,
    value: &'a [u8],
) -> Result<(Fields<'a>, ContentType, Range<usize>), Fault> {
    let content_type = read_content_type(headers.content_type)?;
    if content_type != ContentType::Msgpack {
        return Ok((headers, content_type, 0..value.len()));
    }
    let (map, image) = Fields::from_msgpack(value).map_err(Fault::decode)?;
    let fields = map.or(headers);
    let content_type = read_content_type(fields.content_type)?;
    Ok((fields, content_type, image))
}

fn read_key(record: &Record) -> Result<&str, Fault> {
    let missing = |error: String| Fault::new(RejectReason::MissingKey, error);
    let key = record.key.as_deref().ok_or_else(|| {
        missing("expected the part ID as the record's key, found none".to_owned())
    })?;
    let key = std::str::from_utf8(key)
        .map_err(|_| missing("expected the part ID as UTF-8 key, found other bytes".to_owned()))?;
    check_name("the part ID as a key", key).map_err(missing)
}

fn read_expected_views(views: Option<u64>) -> Result<Option<usize>, Fault> {
    match views {
        None => Ok(None),
        Some(views @ 1..=MAX_EXPECTED_VIEWS) => Ok(usize::try_from(views).ok()),
        Some(views) => Err(Fault::decode(format!(
            "expected `views` from 1 to {MAX_EXPECTED_VIEWS}, found `{views}`"
        ))),
    }
}

fn read_side(name: &str, side: Option<u64>) -> Result<u32, Fault> {
    let side = side.ok_or_else(|| {
        Fault::decode(format!("expected `{name}` with `image/x-raw`, found none"))
    })?;
    match u32::try_from(side) {
        Ok(0) => Err(Fault::decode(format!(
            "expected `{name}` above 0, found `0`"
        ))),
        Ok(side) => Ok(side),
        Err(_) => Err(Fault::new(
            RejectReason::TooLarge,
            format!(
                "expected `{name}` of at most `{}` pixels, found `{side}`",
                u32::MAX
            ),
        )),
    }
}

fn read_content_type(text: Option<&str>) -> Result<ContentType, Fault> {
    let Some(text) = text else {
        return Ok(ContentType::Untold);
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "" | "application/octet-stream" => Ok(ContentType::Untold),
        "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
            Ok(ContentType::Msgpack)
        }
        "image/x-raw" => Ok(ContentType::Raw),
        "image/jpeg" | "image/jpg" | "image/pjpeg" => Ok(ContentType::Image(ImageEncoding::Jpeg)),
        "image/png" => Ok(ContentType::Image(ImageEncoding::Png)),
        "image/bmp" | "image/x-bmp" | "image/x-ms-bmp" => {
            Ok(ContentType::Image(ImageEncoding::Bmp))
        }
        "image/tiff" | "image/tif" => Ok(ContentType::Image(ImageEncoding::Tiff)),
        "image/webp" => Ok(ContentType::Image(ImageEncoding::Webp)),
        _ => Err(Fault::new(
            RejectReason::Unsupported,
            format!(
                "expected the content type `application/msgpack`, `image/x-raw` or `image/` of \
                 `jpeg`, `png`, `bmp`, `tiff`, `webp`, found `{}`",
                excerpt(text)
            ),
        )),
    }
}

/// The encoding that the first bytes show.
pub(crate) fn sniff(bytes: &[u8]) -> Option<ImageEncoding> {
    match image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => Some(ImageEncoding::Jpeg),
        ImageFormat::Png => Some(ImageEncoding::Png),
        ImageFormat::Bmp => Some(ImageEncoding::Bmp),
        ImageFormat::Tiff => Some(ImageEncoding::Tiff),
        ImageFormat::WebP => Some(ImageEncoding::Webp),
        _ => None,
    }
}

/// The last segment of a topic's name: `line1.cam.top` -> `top`.
fn view_of_topic(topic: &str) -> ViewId {
    match topic.rsplit('.').next() {
        Some(segment) if !segment.is_empty() => ViewId::from(segment),
        _ => ViewId::from(topic),
    }
}

/// Whether `text` is a W3C `traceparent`; version `00` exactly, later versions by their known part.
fn is_traceparent(text: &str) -> bool {
    if text.len() > MAX_TRACEPARENT_BYTES {
        return false;
    }
    let fields: Vec<&str> = text.splitn(5, '-').collect();
    let (version, trace, parent, flags, rest) = match fields.as_slice() {
        [version, trace, parent, flags] => (*version, *trace, *parent, *flags, None),
        [version, trace, parent, flags, rest] => (*version, *trace, *parent, *flags, Some(*rest)),
        _ => return false,
    };
    let is_hex = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |text: &str, length: usize| is_hex(text, length) && text.bytes().any(|b| b != b'0');
    is_hex(version, 2)
        && version != "ff"
        && (version != "00" || rest.is_none())
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;

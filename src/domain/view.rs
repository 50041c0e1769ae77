//! One view of a part, and why a record is none.

use std::ops::Range;
use std::sync::Arc;

use super::{ClassName, ImageEncoding, PartKey, Record, Timestamp, ViewId};

/// One camera's image of a part, not yet decoded. The bytes stay inside the record.
#[derive(Clone, Debug)]
pub struct View {
    /// The record that brought it.
    pub record: Arc<Record>,
    /// The part it shows.
    pub part: PartKey,
    /// Which camera took it.
    pub view: ViewId,
    /// The part's class, when known.
    pub class: Option<ClassName>,
    /// How many views the part has, when the record says so.
    pub expected_views: Option<usize>,
    /// When it was taken (`captured-at`, else Kafka's timestamp).
    pub captured_at: Timestamp,
    /// W3C trace context, passed on to the result.
    pub traceparent: Option<String>,
    /// How the bytes encode the image.
    pub encoding: ImageEncoding,
    /// Where in the record's value the image's bytes lie.
    pub image: Range<usize>,
}

impl View {
    /// The image's bytes.
    pub fn image_bytes(&self) -> &[u8] {
        self.record
            .value
            .as_deref()
            .and_then(|value| value.get(self.image.clone()))
            .unwrap_or_default()
    }
}

/// Why a record was not scored; the text is the `panoptes-reason` header of its dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The envelope or the image could not be read.
    Decode,
    /// A limit in bytes, pixels or dimensions was exceeded.
    TooLarge,
    /// The view is none of those that the part should have.
    UnknownView,
    /// The record has no usable key.
    MissingKey,
    /// The part already has this view.
    Duplicate,
    /// The part was already published.
    Late,
    /// The part timed out and its policy is `dead_letter`.
    Expired,
    /// The views of one part arrived on different partition numbers.
    Misrouted,
    /// The content type or pixel format is not supported.
    Unsupported,
}

impl RejectReason {
    /// Every reason, for metrics and docs.
    pub const ALL: [Self; 9] = [
        Self::Decode,
        Self::TooLarge,
        Self::UnknownView,
        Self::MissingKey,
        Self::Duplicate,
        Self::Late,
        Self::Expired,
        Self::Misrouted,
        Self::Unsupported,
    ];

    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::TooLarge => "too_large",
            Self::UnknownView => "unknown_view",
            Self::MissingKey => "missing_key",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Expired => "expired",
            Self::Misrouted => "misrouted",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A record that will not be scored, and why.
#[derive(Clone, Debug)]
pub struct Reject {
    /// The record, whole.
    pub record: Arc<Record>,
    /// The kind of fault.
    pub reason: RejectReason,
    /// What was wrong, with what was expected and found.
    pub error: String,
}

//! What is said of a part.

use super::{ClassName, CloseCause, PartKey, SourceOffset, Timestamp, ViewId};

/// What the line should do with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// Below its class's threshold, all views seen.
    Ok,
    /// At or above its class's threshold.
    Ng,
    /// A person must look: views are missing or failed, or the class has no threshold.
    Review,
}

impl Decision {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Ng => "ng",
            Self::Review => "review",
        }
    }
}

/// A connected area of an anomaly map above the threshold, in pixels of the original image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Left edge of the bounding box.
    pub x: u32,
    /// Top edge of the bounding box.
    pub y: u32,
    /// Width of the bounding box.
    pub width: u32,
    /// Height of the bounding box.
    pub height: u32,
    /// Area in original pixels.
    pub area: u32,
    /// The highest score within.
    pub peak: f32,
}

/// How an anomaly map is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapCodec {
    /// 8-bit grey PNG.
    Png,
    /// Zstandard over the 8-bit rows.
    Zstd,
}

/// An anomaly map as it travels: 8-bit levels, `score = offset + scale * level`.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedMap {
    /// Compression.
    pub codec: MapCodec,
    /// Width in map pixels.
    pub width: u32,
    /// Height in map pixels.
    pub height: u32,
    /// Score of one level.
    pub scale: f32,
    /// Score of level 0.
    pub offset: f32,
    /// The compressed levels.
    pub data: Vec<u8>,
}

/// What became of one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ViewStatus {
    /// It has a score.
    Scored,
    /// It never came.
    Missing,
    /// It came and could not be scored.
    Failed,
}

/// One view's part of a verdict.
#[derive(Clone, Debug)]
pub struct ViewVerdict {
    /// Which view.
    pub view: ViewId,
    /// What became of it.
    pub status: ViewStatus,
    /// Its score, if scored.
    pub score: Option<f32>,
    /// The record that brought it, if one did.
    pub source: Option<SourceOffset>,
    /// When it was taken, if it came.
    pub captured_at: Option<Timestamp>,
    /// Its anomaly map, unless maps are off or dropped.
    pub map: Option<EncodedMap>,
    /// Defect regions.
    pub regions: Vec<Region>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The judgement on one part: what a result says.
#[derive(Clone, Debug)]
pub struct PartVerdict {
    /// The part.
    pub part: PartKey,
    /// Its class, if known.
    pub class: Option<ClassName>,
    /// What to do with it.
    pub decision: Decision,
    /// The highest view score; none if nothing was scored.
    pub score: Option<f32>,
    /// The threshold that the score was held against; none for an unknown class.
    pub threshold: Option<f32>,
    /// Whether views are missing or failed.
    pub is_partial: bool,
    /// Why no more views were waited for.
    pub closed_by: CloseCause,
    /// Expected views in order.
    pub views: Vec<ViewVerdict>,
    /// Views that came more than once and differed.
    pub duplicates: Vec<ViewId>,
    /// Whether maps were left out to meet the broker's message limit.
    pub maps_dropped: bool,
    /// Event time of the first view.
    pub first_view_at: Timestamp,
    /// Event time of the last view.
    pub last_view_at: Timestamp,
    /// When scoring ended.
    pub scored_at: Timestamp,
    /// W3C trace context of the first view that has one.
    pub traceparent: Option<String>,
}

/// The model that scored a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIdentity {
    /// Bundle name.
    pub name: String,
    /// Bundle version.
    pub version: String,
}

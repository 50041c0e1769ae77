//! The vocabulary of the stream: ids, records, views, groups, maps, decisions.
//!
//! Every stage speaks these types and nothing else of another stage. The module depends on `std`
//! alone and does no I/O. Times are epoch milliseconds in [`Timestamp`]; a stage that must know
//! the present takes it as an argument.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

mod closure;

pub use closure::{Fingerprint, PartClosure, Reuse};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name as it stands.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, formatter)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    };
}

name_type!(
    /// The ID of one part, as the record key carries it.
    PartId
);
name_type!(
    /// A production line.
    LineId
);
name_type!(
    /// The name of one camera's view.
    ViewId
);
name_type!(
    /// A product type; the model keeps one threshold for each.
    ClassName
);
name_type!(
    /// A Kafka topic.
    Topic
);

/// The unit of grouping: one part on one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartKey {
    /// The line that makes the part.
    pub line: LineId,
    /// The part.
    pub part: PartId,
}

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time `duration` later, saturating.
    pub fn after(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition number.
    pub partition: i32,
}

/// Where a record stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceOffset {
    /// The topic.
    pub topic: Topic,
    /// The partition number.
    pub partition: i32,
    /// The offset within the partition.
    pub offset: i64,
}

impl SourceOffset {
    /// The partition this offset belongs to.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition {
            topic: self.topic.clone(),
            partition: self.partition,
        }
    }
}

impl fmt::Display for SourceOffset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}[{}]@{}",
            self.topic, self.partition, self.offset
        )
    }
}

/// A Kafka header; the value may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Header name.
    pub name: String,
    /// Header bytes.
    pub value: Option<Vec<u8>>,
}

/// A Kafka message as it was read, kept whole until its fate is published.
#[derive(Debug)]
pub struct Record {
    /// Where it was read.
    pub source: SourceOffset,
    /// The assignment under which it was read; work of an older generation is dropped.
    pub generation: u64,
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<Header>,
    /// Kafka's record timestamp, if it has one.
    pub timestamp: Option<Timestamp>,
    /// The share of the memory budget held while the record lives.
    pub lease: Option<MemoryLease>,
}

impl Record {
    /// The bytes this record keeps alive, headers and key included.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|header| header.name.len() + header.value.as_ref().map_or(0, Vec::len))
            .sum();
        headers
            + self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + size_of::<Self>()
    }

    /// The last header of that name, as Kafka's own clients read it.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|header| header.name == name)
            .and_then(|header| header.value.as_deref())
    }
}

/// How many bytes of records are alive, against a bound.
///
/// ```
/// use panoptes::domain::MemoryBudget;
/// let budget = MemoryBudget::new(100);
/// let lease = budget.lease(60);
/// assert_eq!(budget.used_bytes(), 60);
/// drop(lease);
/// assert_eq!(budget.used_bytes(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    used: Arc<AtomicU64>,
    limit: u64,
}

impl MemoryBudget {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            used: Arc::new(AtomicU64::new(0)),
            limit: limit_bytes,
        }
    }

    /// Takes `bytes`, over the limit too: what was read must be kept; the caller slows the intake.
    pub fn lease(&self, bytes: usize) -> MemoryLease {
        let bytes = bytes as u64;
        self.used.fetch_add(bytes, Ordering::Relaxed);
        MemoryLease {
            used: Arc::clone(&self.used),
            bytes,
        }
    }

    /// Bytes alive now.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The bound.
    pub fn limit_bytes(&self) -> u64 {
        self.limit
    }
}

/// A share of a [`MemoryBudget`], given back on drop.
#[derive(Debug)]
pub struct MemoryLease {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// GenICam PFNC pixel formats that `image/x-raw` may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// 8-bit grey.
    Mono8,
    /// 10-bit grey in 16-bit little-endian words.
    Mono10,
    /// 10-bit grey, packed without gaps (PFNC `Mono10p`).
    Mono10p,
    /// 10-bit grey, two pixels in three bytes (GigE Vision `Mono10Packed`).
    Mono10Packed,
    /// 12-bit grey in 16-bit little-endian words.
    Mono12,
    /// 12-bit grey, packed without gaps (PFNC `Mono12p`).
    Mono12p,
    /// 12-bit grey, two pixels in three bytes (GigE Vision `Mono12Packed`).
    Mono12Packed,
    /// 16-bit grey, little endian.
    Mono16,
    /// 8-bit red, green, blue.
    Rgb8,
    /// 8-bit blue, green, red.
    Bgr8,
    /// 8-bit Bayer mosaic starting red, green.
    BayerRg8,
    /// 8-bit Bayer mosaic starting green, blue.
    BayerGb8,
    /// 8-bit Bayer mosaic starting green, red.
    BayerGr8,
    /// 8-bit Bayer mosaic starting blue, green.
    BayerBg8,
}

/// Layout of a raw frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLayout {
    /// Pixel format.
    pub pixel_format: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one line's start to the next.
    pub stride: usize,
}

/// How a view's bytes encode its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageEncoding {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// Windows bitmap.
    Bmp,
    /// TIFF.
    Tiff,
    /// WebP.
    Webp,
    /// Raw frame.
    Raw(RawLayout),
}

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

/// Why a group was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCause {
    /// Every expected view is there.
    Complete,
    /// Stream time passed the deadline.
    StreamTime,
    /// The line stopped and the wall clock passed the deadline.
    WallClock,
    /// The memory budget needed the room.
    Evicted,
}

/// What becomes of a part that is not complete in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeoutPolicy {
    /// Score the views that are there.
    ScorePartial,
    /// Publish a result without a score, for a person to look at.
    Review,
    /// Send every view to the dead letters.
    DeadLetter,
}

/// Which of two views of the same name, with different bytes, a part keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DuplicatePolicy {
    /// The first to arrive.
    FirstWins,
    /// The last to arrive before the group closes.
    LastWins,
}

/// Whether a closed group is given to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScoringOrder {
    /// Score the views that are there.
    Score,
    /// Publish the part unscored, for a person to look at (timeout policy `review`).
    Skip,
}

/// The views of one part, closed and on the way to the model.
#[derive(Clone, Debug)]
pub struct Group {
    /// The part.
    pub part: PartKey,
    /// The class that its views name, if any.
    pub class: Option<ClassName>,
    /// Its views, in the order of the expected views; by name where only their number is known.
    pub views: Vec<View>,
    /// Expected views that did not arrive.
    pub missing: Vec<ViewId>,
    /// Byte-identical redeliveries that were absorbed; they finish with the group.
    pub absorbed: Vec<Arc<Record>>,
    /// Names of views that came more than once and differed.
    pub duplicates: Vec<ViewId>,
    /// Why it was closed.
    pub cause: CloseCause,
    /// Whether the model is asked.
    pub scoring: ScoringOrder,
    /// Event time of its first view.
    pub first_view_at: Timestamp,
    /// Event time of its last view.
    pub last_view_at: Timestamp,
}

impl Group {
    /// Whether a view is missing.
    pub fn is_partial(&self) -> bool {
        self.cause != CloseCause::Complete
    }

    /// Every record whose fate this group decides.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.views
            .iter()
            .map(|view| &view.record)
            .chain(&self.absorbed)
    }

    /// Where those records stand.
    pub fn sources(&self) -> impl Iterator<Item = &SourceOffset> {
        self.records().map(|record| &record.source)
    }
}

/// Per-pixel anomaly scores of one view, row by row; higher is more anomalous.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnomalyMap {
    /// Width in map pixels.
    pub width: usize,
    /// Height in map pixels.
    pub height: usize,
    /// `width * height` scores.
    pub values: Vec<f32>,
}

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

/// An 8-bit RGB image, row by row, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub pixels: Vec<u8>,
}

/// What a pixel's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One byte, which stands for red, green and blue.
    Grey,
    /// Three bytes.
    Rgb,
}

impl Channels {
    /// Bytes of a pixel.
    pub fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }
}

/// An 8-bit image, row by row, as its file or camera has it: grey stays one byte a pixel, and pixels
/// that need no decoding stay where they lie in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedImage<'a> {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Width and height of the original, where the image was decoded at reduced size; otherwise its own.
    pub original: (u32, u32),
    /// What a pixel's bytes are.
    pub channels: Channels,
    /// `width * height` times the bytes of a pixel.
    pub pixels: Cow<'a, [u8]>,
}

impl DecodedImage<'_> {
    /// The same in colour: grey becomes red = green = blue.
    pub fn into_rgb(self) -> RgbImage {
        let pixels = match self.channels {
            Channels::Grey => self.pixels.iter().flat_map(|grey| [*grey; 3]).collect(),
            Channels::Rgb => self.pixels.into_owned(),
        };
        RgbImage {
            width: self.width,
            height: self.height,
            pixels,
        }
    }
}

impl<'a> From<&'a RgbImage> for DecodedImage<'a> {
    fn from(image: &'a RgbImage) -> Self {
        Self {
            width: image.width,
            height: image.height,
            original: (image.width, image.height),
            channels: Channels::Rgb,
            pixels: Cow::Borrowed(&image.pixels),
        }
    }
}

/// The rectangle of the original image that an anomaly map covers, in original pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapFootprint {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// What the model made of one view of a group.
#[derive(Clone, Debug)]
pub enum ViewOutcome {
    /// The view was scored.
    Scored {
        /// Its anomaly map.
        map: AnomalyMap,
        /// What the map covers.
        footprint: MapFootprint,
    },
    /// The view's image could not be decoded; its record becomes a dead letter.
    Failed(Reject),
    /// The view was not given to the model (timeout policy `review`).
    Unscored,
}

/// A group with the model's answer for each of its views, in the order of `group.views`.
#[derive(Clone, Debug)]
pub struct ScoredGroup {
    /// The group.
    pub group: Group,
    /// One outcome a view.
    pub outcomes: Vec<ViewOutcome>,
    /// When scoring ended.
    pub scored_at: Timestamp,
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

/// A record on its way out to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundRecord {
    /// Topic to produce to.
    pub topic: Topic,
    /// Partition to produce to; without one the key decides.
    pub partition: Option<i32>,
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<Header>,
}

impl OutboundRecord {
    /// At most what Kafka's record batch adds to a record alone in it: 61 bytes of batch header,
    /// and lengths, deltas and attributes as variable-length integers.
    const BATCH_OVERHEAD: usize = 100;
    /// At most two variable-length integers for the lengths of a header's name and value.
    const HEADER_OVERHEAD: usize = 10;

    /// The bytes this record takes, uncompressed, against the broker's message limit; never less
    /// than it really takes.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|header| {
                header.name.len()
                    + header.value.as_ref().map_or(0, Vec::len)
                    + Self::HEADER_OVERHEAD
            })
            .sum();
        Self::BATCH_OVERHEAD
            + headers
            + self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
    }
}

//! The result of one part, version 1, as `MessagePack` or JSON.
//!
//! Keys and their meaning are promised to readers in `schemas/result.v1.*.schema.json`: fields are
//! only ever added, unknown ones are skipped when reading. The bytes of maps are a `bin` in
//! `MessagePack` and a base64 string in JSON; all else is the same in both.

mod identity;
mod map_bytes;
mod outbound;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{self, ModelIdentity, PartVerdict, ViewVerdict};

pub use identity::result_id;
pub use outbound::{CLOSED_BY, ResultContext, outbound_result};

/// The version of these types, as results carry it.
pub const SCHEMA_VERSION: u32 = 1;

/// How results are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultFormat {
    /// `MessagePack` map with named fields.
    #[default]
    Msgpack,
    /// JSON object.
    Json,
}

impl ResultFormat {
    /// The `content-type` of records in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Msgpack => "application/msgpack",
            Self::Json => "application/json",
        }
    }

    /// The `$id` of the JSON Schema of this format, as `ce_dataschema` names it.
    pub fn schema_id(self) -> &'static str {
        match self {
            Self::Msgpack => "urn:panoptes:schema:result:v1:msgpack",
            Self::Json => "urn:panoptes:schema:result:v1:json",
        }
    }
}

/// Why a result cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// `MessagePack` encoding failed.
    #[error("result cannot be written as msgpack: {0}")]
    WriteMsgpack(#[from] rmp_serde::encode::Error),
    /// `MessagePack` decoding failed.
    #[error("value is no msgpack result: {0}")]
    ReadMsgpack(#[from] rmp_serde::decode::Error),
    /// JSON encoding failed.
    #[error("result cannot be written as json: {0}")]
    WriteJson(#[source] serde_json::Error),
    /// JSON decoding failed.
    #[error("value is no json result: {0}")]
    ReadJson(#[source] serde_json::Error),
}

/// What was found on one part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartResult {
    /// Version of this layout; fields are only ever added to it.
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Same for the same part, records and model: readers deduplicate by it.
    #[schemars(extend("pattern" = "^[0-9a-f]{32}$"))]
    pub result_id: String,
    /// The part, as the record key names it.
    pub part_id: String,
    /// The production line.
    pub line: String,
    /// The product type; null when no record or setting named it.
    pub class: Option<String>,
    /// What to do with the part.
    pub decision: Decision,
    /// The highest view score, higher is more anomalous; null when no view was scored.
    pub score: Option<f32>,
    /// A score at or above this is `ng`; null when the class has none.
    pub threshold: Option<f32>,
    /// Whether views are missing or failed.
    pub is_partial: bool,
    /// Whether the part was re-scored from archived records.
    pub is_simulated: bool,
    /// The model that scored the part.
    pub model: Model,
    /// The part's views.
    pub views: Vec<View>,
    /// Views that came more than once with different bytes; absent when none did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duplicates: Vec<String>,
    /// Whether maps were left out to meet the broker's message limit; absent when not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub maps_dropped: bool,
    /// W3C trace context of the first view that had one; absent when none had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// When things happened.
    pub timing: Timing,
    /// The run that scored the part.
    pub run: Run,
}

/// What to do with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Below the threshold, every view seen.
    Ok,
    /// At or above the threshold.
    Ng,
    /// A person must look.
    Review,
}

/// The model that scored a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// Name of the model bundle.
    pub name: String,
    /// Version of the model bundle.
    pub version: String,
}

/// One view of the part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct View {
    /// Name of the view.
    pub view: String,
    /// What became of it.
    pub status: ViewStatus,
    /// Its score; null unless scored.
    pub score: Option<f32>,
    /// The record that brought it; null when missing.
    pub source: Option<Source>,
    /// When it was taken, in epoch milliseconds; null when missing.
    pub captured_at: Option<i64>,
    /// Its anomaly map; null when not scored, when maps are off, or when it was dropped.
    pub map: Option<Map>,
    /// Anomalous regions, highest peak first.
    pub regions: Vec<Region>,
    /// Why it failed; absent unless it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ViewStatus {
    /// It has a score.
    Scored,
    /// It never came.
    Missing,
    /// It came and has no score.
    Failed,
}

/// Where a record stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// The topic.
    pub topic: String,
    /// The partition number.
    pub partition: i32,
    /// The offset within the partition.
    pub offset: i64,
}

/// An anomaly map in 8-bit levels: `score = offset + scale * level`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Map {
    /// How `data` is compressed.
    pub codec: Codec,
    /// Width in map pixels.
    #[schemars(range(min = 1))]
    pub width: u32,
    /// Height in map pixels.
    #[schemars(range(min = 1))]
    pub height: u32,
    /// Score of one level.
    #[schemars(range(min = 0))]
    pub scale: f32,
    /// Score of level 0.
    pub offset: f32,
    /// The compressed levels.
    #[serde(with = "map_bytes")]
    #[schemars(schema_with = "map_bytes::schema")]
    pub data: Vec<u8>,
}

/// How an anomaly map is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// 8-bit grey PNG.
    Png,
    /// Zstandard frame over the 8-bit levels, row by row.
    Zstd,
}

/// A connected anomalous area, in pixels of the original image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Region {
    /// Left edge of the bounding box.
    pub x: u32,
    /// Top edge of the bounding box.
    pub y: u32,
    /// Width of the bounding box.
    #[schemars(range(min = 1))]
    pub width: u32,
    /// Height of the bounding box.
    #[schemars(range(min = 1))]
    pub height: u32,
    /// Area in pixels.
    #[schemars(range(min = 1))]
    pub area: u32,
    /// The highest score within.
    pub peak: f32,
}

/// When things happened, in epoch milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Event time of the first view.
    pub first_view_at: i64,
    /// Event time of the last view.
    pub last_view_at: i64,
    /// When scoring ended.
    pub scored_at: i64,
}

/// The run that scored a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Live, or a replay.
    pub kind: RunKind,
    /// Which one: the consumer group of a live run, the name of a replay.
    pub id: String,
}

/// Whether parts are scored as they come or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// Records are scored as they come.
    Live,
    /// Archived records are scored again.
    Replay,
}

impl PartResult {
    /// The view with the highest score, if any was scored.
    pub fn worst_view(&self) -> Option<&View> {
        let scored = |view: &&View| view.score.is_some();
        let score = |view: &View| view.score.unwrap_or(f32::NEG_INFINITY);
        self.views
            .iter()
            .filter(scored)
            .max_by(|one, other| score(one).total_cmp(&score(other)))
    }

    /// The result that tells a verdict.
    pub fn new(verdict: &PartVerdict, model: &ModelIdentity, run: &Run) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            result_id: result_id(verdict, model, run),
            part_id: verdict.part.part.to_string(),
            line: verdict.part.line.to_string(),
            class: verdict.class.as_ref().map(ToString::to_string),
            decision: verdict.decision.into(),
            score: verdict.score,
            threshold: verdict.threshold,
            is_partial: verdict.is_partial,
            is_simulated: run.kind == RunKind::Replay,
            model: Model {
                name: model.name.clone(),
                version: model.version.clone(),
            },
            views: verdict.views.iter().map(View::from).collect(),
            duplicates: verdict.duplicates.iter().map(ToString::to_string).collect(),
            maps_dropped: verdict.maps_dropped,
            traceparent: verdict.traceparent.clone(),
            timing: Timing {
                first_view_at: verdict.first_view_at.0,
                last_view_at: verdict.last_view_at.0,
                scored_at: verdict.scored_at.0,
            },
            run: run.clone(),
        }
    }

    /// The result as a `MessagePack` map with named fields.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn to_msgpack(&self) -> Result<Vec<u8>, ResultError> {
        Ok(rmp_serde::to_vec_named(self)?)
    }

    /// Reads a `MessagePack` result.
    ///
    /// # Errors
    /// When the bytes are no result.
    pub fn from_msgpack(value: &[u8]) -> Result<Self, ResultError> {
        Ok(rmp_serde::from_slice(value)?)
    }

    /// The result as a JSON object.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn to_json(&self) -> Result<Vec<u8>, ResultError> {
        serde_json::to_vec(self).map_err(ResultError::WriteJson)
    }

    /// Reads a JSON result.
    ///
    /// # Errors
    /// When the bytes are no result.
    pub fn from_json(value: &[u8]) -> Result<Self, ResultError> {
        serde_json::from_slice(value).map_err(ResultError::ReadJson)
    }

    /// The result in the given format.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn to_bytes(&self, format: ResultFormat) -> Result<Vec<u8>, ResultError> {
        match format {
            ResultFormat::Msgpack => self.to_msgpack(),
            ResultFormat::Json => self.to_json(),
        }
    }

    /// Reads a result of either format, told apart by its first byte: `{` is no `MessagePack` map.
    ///
    /// # Errors
    /// When the bytes are no result.
    pub fn from_bytes(value: &[u8]) -> Result<Self, ResultError> {
        match value.first() {
            Some(b'{') => Self::from_json(value),
            _ => Self::from_msgpack(value),
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl From<&ViewVerdict> for View {
    fn from(verdict: &ViewVerdict) -> Self {
        Self {
            view: verdict.view.to_string(),
            status: verdict.status.into(),
            score: verdict.score,
            source: verdict.source.as_ref().map(|source| Source {
                topic: source.topic.to_string(),
                partition: source.partition,
                offset: source.offset,
            }),
            captured_at: verdict.captured_at.map(|time| time.0),
            map: verdict.map.as_ref().map(Map::from),
            regions: verdict.regions.iter().map(Region::from).collect(),
            error: verdict.error.clone(),
        }
    }
}

impl From<&domain::EncodedMap> for Map {
    fn from(map: &domain::EncodedMap) -> Self {
        Self {
            codec: map.codec.into(),
            width: map.width,
            height: map.height,
            scale: map.scale,
            offset: map.offset,
            data: map.data.clone(),
        }
    }
}

impl From<&Map> for domain::EncodedMap {
    fn from(map: &Map) -> Self {
        Self {
            codec: map.codec.into(),
            width: map.width,
            height: map.height,
            scale: map.scale,
            offset: map.offset,
            data: map.data.clone(),
        }
    }
}

impl From<&domain::Region> for Region {
    fn from(region: &domain::Region) -> Self {
        Self {
            x: region.x,
            y: region.y,
            width: region.width,
            height: region.height,
            area: region.area,
            peak: region.peak,
        }
    }
}

/// Two enums of the same variants, converted one into the other.
macro_rules! same_variants {
    ($from:ty, $to:ty, $($variant:ident),+) => {
        impl From<$from> for $to {
            fn from(value: $from) -> Self {
                match value {
                    $(<$from>::$variant => Self::$variant,)+
                }
            }
        }
    };
}

same_variants!(domain::Decision, Decision, Ok, Ng, Review);
same_variants!(Decision, domain::Decision, Ok, Ng, Review);
same_variants!(domain::ViewStatus, ViewStatus, Scored, Missing, Failed);
same_variants!(domain::MapCodec, Codec, Png, Zstd);
same_variants!(Codec, domain::MapCodec, Png, Zstd);

#[cfg(test)]
mod tests;

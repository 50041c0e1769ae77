//! Results and dead letters as they stand in their topics, decoded by structs of the tests' own, so that a slip in
//! the product's schema cannot hide itself.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::message::{BorrowedMessage, Headers, Message};
use serde::Deserialize;

/// Where a record stands: topic, partition, offset.
pub(crate) type Place = (String, i32, i64);

/// A result's record as it stands in the topic, with its value decoded.
#[derive(Clone, Debug)]
pub(crate) struct ResultRecord {
    pub(crate) key: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) value: Vec<u8>,
    pub(crate) result: PartResult,
    /// When the reader was given it.
    pub(crate) read_at: Instant,
}

/// A result.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PartResult {
    pub(crate) schema_version: serde_json::Value,
    pub(crate) result_id: String,
    pub(crate) part_id: String,
    pub(crate) line: String,
    pub(crate) class: Option<String>,
    pub(crate) decision: String,
    pub(crate) score: Option<f64>,
    pub(crate) threshold: Option<f64>,
    pub(crate) is_partial: bool,
    pub(crate) is_simulated: bool,
    pub(crate) model: ModelName,
    pub(crate) views: Vec<ViewResult>,
    #[serde(default)]
    pub(crate) duplicates: Vec<String>,
    pub(crate) timing: Timing,
    pub(crate) run: Run,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ModelName {
    pub(crate) name: String,
    pub(crate) version: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ViewResult {
    pub(crate) view: String,
    pub(crate) status: String,
    pub(crate) score: Option<f64>,
    pub(crate) source: Option<Source>,
    pub(crate) captured_at: Option<i64>,
    pub(crate) map: Option<Map>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Source {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Map {
    pub(crate) codec: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) data: serde_bytes::ByteBuf,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Timing {
    pub(crate) first_view_at: i64,
    pub(crate) last_view_at: i64,
    pub(crate) scored_at: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) kind: String,
    pub(crate) id: String,
}

impl PartResult {
    /// What became of one view.
    pub(crate) fn view(&self, name: &str) -> &ViewResult {
        let view = self.views.iter().find(|view| view.view == name);
        view.unwrap_or_else(|| panic!("no view `{name}` in {self:?}"))
    }

    /// Views with this status.
    pub(crate) fn views_with_status(&self, status: &str) -> Vec<&str> {
        let views = self.views.iter().filter(|view| view.status == status);
        views.map(|view| view.view.as_str()).collect()
    }
}

impl ViewResult {
    /// The record that brought the view.
    pub(crate) fn place(&self) -> Place {
        let source = self.source.as_ref().expect("the view has a source");
        (source.topic.clone(), source.partition, source.offset)
    }
}

/// A dead letter as it stands in the topic.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetter {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl DeadLetter {
    /// The text of a header that must be there.
    pub(crate) fn header(&self, name: &str) -> String {
        let header = self.headers.iter().rev().find(|(key, _)| key == name);
        let (_, value) = header.unwrap_or_else(|| panic!("no header `{name}` in {self:?}"));
        String::from_utf8(value.clone()).unwrap()
    }

    pub(crate) fn reason(&self) -> String {
        self.header("panoptes-reason")
    }

    /// Where the record was first read.
    pub(crate) fn place(&self) -> Place {
        (
            self.header("panoptes-topic"),
            self.header("panoptes-partition").parse().unwrap(),
            self.header("panoptes-offset").parse().unwrap(),
        )
    }

    /// The key as text, empty without one.
    pub(crate) fn part(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }
}

pub(super) fn result_record(message: &BorrowedMessage<'_>) -> ResultRecord {
    let value = message.payload().unwrap().to_vec();
    let result = if value.first() == Some(&b'{') {
        serde_json::from_slice(&value).map_err(|error| error.to_string())
    } else {
        rmp_serde::from_slice(&value).map_err(|error| error.to_string())
    };
    ResultRecord {
        key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
        headers: headers(message)
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8(value).unwrap()))
            .collect(),
        result: result.unwrap_or_else(|error| panic!("not a result: {error}")),
        value,
        read_at: Instant::now(),
    }
}

pub(super) fn dead_letter(message: &BorrowedMessage<'_>) -> DeadLetter {
    DeadLetter {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: headers(message),
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<(String, Vec<u8>)> {
    let Some(headers) = message.headers() else {
        return Vec::new();
    };
    headers
        .iter()
        .map(|header| {
            (
                header.key.to_owned(),
                header.value.unwrap_or_default().to_vec(),
            )
        })
        .collect()
}

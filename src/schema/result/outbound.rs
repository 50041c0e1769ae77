//! A result as a Kafka record: `CloudEvents` 1.0 in binary mode, and headers to filter by.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{PartResult, ResultError, ResultFormat, Run};
use crate::domain::{CloseCause, Header, ModelIdentity, OutboundRecord, PartVerdict, Topic};

/// The `ce_type` of results.
const EVENT_TYPE: &str = "panoptes.result.v1";

/// The header that says why no more views were waited for. No part of the result: the same part may be
/// closed by the wall clock in one run and by stream time in another, and be judged alike.
pub const CLOSED_BY: &str = "closed-by";

/// What RFC 3986 asks to encode in a path segment, and a little more.
const PATH_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What all results of a run share.
#[derive(Clone, Debug)]
pub struct ResultContext {
    /// The topic results go to.
    pub topic: Topic,
    /// How they are encoded.
    pub format: ResultFormat,
    /// The run.
    pub run: Run,
}

/// The record that publishes a verdict: its key is the part ID.
///
/// # Errors
/// When the encoder fails.
pub fn outbound_result(
    verdict: &PartVerdict,
    model: &ModelIdentity,
    context: &ResultContext,
) -> Result<OutboundRecord, ResultError> {
    let result = PartResult::new(verdict, model, &context.run);
    Ok(OutboundRecord {
        topic: context.topic.clone(),
        partition: None,
        key: Some(result.part_id.clone().into_bytes()),
        value: Some(result.to_bytes(context.format)?),
        headers: headers(&result, verdict.closed_by, context.format),
    })
}

fn headers(result: &PartResult, closed_by: CloseCause, format: ResultFormat) -> Vec<Header> {
    let line = utf8_percent_encode(&result.line, PATH_SEGMENT);
    // The time is optional in CloudEvents; only one that RFC 3339 cannot write is left out.
    let time = jiff::Timestamp::from_millisecond(result.timing.scored_at)
        .ok()
        .map(|time| format!("{time:.3}"));
    let decision = crate::domain::Decision::from(result.decision).as_str();
    let named = [
        ("ce_specversion", Some("1.0".to_owned())),
        ("ce_id", Some(result.result_id.clone())),
        ("ce_source", Some(format!("/panoptes/{line}"))),
        ("ce_type", Some(EVENT_TYPE.to_owned())),
        ("ce_subject", Some(result.part_id.clone())),
        ("ce_time", time),
        ("ce_dataschema", Some(format.schema_id().to_owned())),
        ("content-type", Some(format.content_type().to_owned())),
        ("decision", Some(decision.to_owned())),
        ("class", result.class.clone()),
        ("model-version", Some(result.model.version.clone())),
        (CLOSED_BY, Some(closed_by.as_str().to_owned())),
        ("traceparent", result.traceparent.clone()),
    ];
    named
        .into_iter()
        .filter_map(|(name, value)| {
            Some(Header {
                name: name.to_owned(),
                value: Some(value?.into_bytes()),
            })
        })
        .collect()
}

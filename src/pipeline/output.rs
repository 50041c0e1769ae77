//! Verdicts and rejects as the records that the results and dead-letter topics carry.

use crate::domain::{ModelIdentity, OutboundRecord, PartVerdict, Reject, Topic};
use crate::schema::dead_letter::{outbound_dead_letter, without_value};
use crate::schema::result::{ResultContext, ResultError, outbound_result};
use crate::scoring::fit_to_limit;
use crate::telemetry;

/// Where results and dead letters go, and in which form.
#[derive(Clone, Debug)]
pub struct OutputSettings {
    /// Results: topic, format, run.
    pub results: ResultContext,
    /// Topic of the dead letters.
    pub dead_letter_topic: Topic,
    /// The largest record that the broker takes.
    pub max_message_bytes: usize,
    /// The model that results name.
    pub model: ModelIdentity,
}

/// Makes the outbound records.
pub(crate) struct Output {
    settings: OutputSettings,
}

impl Output {
    pub(crate) fn new(settings: OutputSettings) -> Self {
        Self { settings }
    }

    pub(crate) fn max_message_bytes(&self) -> usize {
        self.settings.max_message_bytes
    }

    /// The result of a part; maps are dropped, lowest scores first, until it fits the broker.
    pub(crate) fn result(&self, verdict: &mut PartVerdict) -> Result<OutboundRecord, ResultError> {
        let limit = self.settings.max_message_bytes;
        fit_to_limit(verdict, limit, |verdict| {
            outbound_result(verdict, &self.settings.model, &self.settings.results)
        })
    }

    /// The dead letter of a record; one that the broker would refuse goes without its bytes,
    /// which are still in the camera topic.
    pub(crate) fn dead_letter(&self, reject: &Reject) -> OutboundRecord {
        telemetry::record_rejected(reject.reason);
        let source = &reject.record.source;
        tracing::warn!(
            topic = %source.topic,
            partition = source.partition,
            offset = source.offset,
            reason = reject.reason.as_str(),
            error = %reject.error,
            "record sent to the dead letters"
        );
        let letter = outbound_dead_letter(reject, &self.settings.dead_letter_topic);
        if letter.size_bytes() > self.settings.max_message_bytes {
            without_value(letter)
        } else {
            letter
        }
    }
}

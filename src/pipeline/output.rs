//! Verdicts and rejects as the records that the results and dead-letter topics carry.

use std::sync::Arc;

use crate::domain::{
    ModelIdentity, OutboundRecord, PartClosure, PartVerdict, Reject, SourceOffset, Topic,
};
use crate::kafka::closed_parts::ClosedPartsTopic;
use crate::kafka::publisher::Outgoing;
use crate::schema::dead_letter::{outbound_dead_letter, smaller};
use crate::schema::result::{ResultContext, ResultError, outbound_result};
use crate::scoring::{drop_detail, fit_to_limit};
use crate::telemetry;

/// Where results and dead letters go, and in which form.
#[derive(Clone, Debug)]
pub struct OutputSettings {
    /// Results: topic, format, run.
    pub results: ResultContext,
    /// Topic of the dead letters.
    pub dead_letter_topic: Topic,
    /// Topic of the closed parts.
    pub closed_parts: ClosedPartsTopic,
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

    /// Where results and dead letters go.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        let OutputSettings {
            results,
            dead_letter_topic,
            ..
        } = &self.settings;
        vec![results.topic.clone(), dead_letter_topic.clone()]
    }

    /// The result of a part; maps are dropped, lowest scores first, and then regions, until it
    /// fits the message limit. A broker with a lower limit of its own gets it without either.
    pub(crate) fn result(
        self: &Arc<Self>,
        verdict: &mut PartVerdict,
    ) -> Result<Outgoing, ResultError> {
        let limit = self.settings.max_message_bytes;
        let record = fit_to_limit(verdict, limit, |verdict| self.encode(verdict))?;
        let output = Arc::clone(self);
        let mut verdict = verdict.clone();
        Ok(Outgoing {
            record,
            smaller: Box::new(move |_| output.smaller_result(&mut verdict)),
        })
    }

    fn encode(&self, verdict: &PartVerdict) -> Result<OutboundRecord, ResultError> {
        outbound_result(verdict, &self.settings.model, &self.settings.results)
    }

    fn smaller_result(&self, verdict: &mut PartVerdict) -> Option<OutboundRecord> {
        let had_all_maps = !verdict.maps_dropped;
        if !drop_detail(verdict) {
            return None;
        }
        if had_all_maps && verdict.maps_dropped {
            telemetry::maps_dropped();
        }
        tracing::warn!(
            part = %verdict.part.part,
            "the broker's message limit is lower than `output.max_message_bytes`: result published \
             with less detail"
        );
        self.encode(verdict)
            .inspect_err(|error| tracing::error!(%error, "failed to encode a result again"))
            .ok()
    }

    /// Says that a part is closed.
    pub(crate) fn closed_part(&self, closure: &PartClosure) -> OutboundRecord {
        self.settings.closed_parts.record(closure)
    }

    /// The dead letter of a record. One that exceeds the message limit goes without the record's
    /// value, and if need be without its headers and key: they are still in the camera topic.
    pub(crate) fn dead_letter(&self, reject: &Reject) -> Outgoing {
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
        let mut record = outbound_dead_letter(reject, &self.settings.dead_letter_topic);
        while record.size_bytes() > self.settings.max_message_bytes {
            match smaller_letter(record.clone(), source) {
                Some(smaller) => record = smaller,
                None => break,
            }
        }
        let source = source.clone();
        Outgoing {
            record,
            smaller: Box::new(move |record| smaller_letter(record, &source)),
        }
    }
}

fn smaller_letter(record: OutboundRecord, source: &SourceOffset) -> Option<OutboundRecord> {
    let bytes = record.size_bytes();
    let (record, dropped) = smaller(record)?;
    telemetry::dead_letter_cut(dropped);
    tracing::warn!(
        topic = %source.topic,
        partition = source.partition,
        offset = source.offset,
        bytes,
        dropped = dropped.as_str(),
        "dead letter exceeds the message limit: what is dropped is in the camera topic only"
    );
    Some(record)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::{Record, RejectReason};
    use crate::schema::dead_letter::read_note;
    use crate::schema::result::{ResultFormat, Run, RunKind};
    use crate::scoring::testing::{scored_view, verdict_of};

    const LIMIT: usize = 10_000;

    pub(crate) fn output() -> Arc<Output> {
        Arc::new(Output::new(OutputSettings {
            results: ResultContext {
                topic: "results".into(),
                format: ResultFormat::Msgpack,
                run: Run {
                    kind: RunKind::Live,
                    id: "test".to_owned(),
                },
            },
            dead_letter_topic: "dead".into(),
            closed_parts: ClosedPartsTopic::new("closed".into(), "test"),
            max_message_bytes: LIMIT,
            model: ModelIdentity {
                name: "demo".to_owned(),
                version: "1".to_owned(),
            },
        }))
    }

    fn reject(value_bytes: usize, header_bytes: usize) -> Reject {
        let header = crate::domain::Header {
            name: "note".to_owned(),
            value: Some(vec![b'x'; header_bytes]),
        };
        let record = Record {
            source: SourceOffset {
                topic: "cam".into(),
                partition: 0,
                offset: 1,
            },
            generation: 1,
            key: Some(b"part".to_vec()),
            value: Some(vec![7; value_bytes]),
            headers: vec![header],
            timestamp: None,
            lease: None,
        };
        Reject {
            record: Arc::new(record),
            reason: RejectReason::Decode,
            error: "odd".to_owned(),
        }
    }

    #[test]
    fn a_dead_letter_over_the_limit_drops_only_what_it_must() {
        let letter = |reject: Reject| output().dead_letter(&reject).record;
        assert!(letter(reject(100, 100)).value.is_some());
        let without_value = letter(reject(LIMIT, 100));
        assert!(without_value.value.is_none());
        assert_eq!(without_value.headers[0].name, "note");
        let without_headers = letter(reject(100, LIMIT));
        assert!(without_headers.size_bytes() <= LIMIT);
        assert_eq!(without_headers.key, Some(b"part".to_vec()));
        assert_eq!(
            read_note(&without_headers.headers).unwrap().reason,
            "decode"
        );
    }

    #[test]
    fn a_refused_result_loses_its_maps_and_never_its_value() {
        let Outgoing {
            record,
            mut smaller,
        } = output()
            .result(&mut verdict_of(vec![scored_view("top", 0.5, 100)]))
            .unwrap();
        let without_maps = smaller(record.clone()).unwrap();
        assert!(without_maps.size_bytes() < record.size_bytes());
        assert!(without_maps.value.is_some());
        assert_eq!(smaller(without_maps), None);
    }
}

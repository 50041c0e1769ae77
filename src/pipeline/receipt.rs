//! What is noted once a publication is acknowledged: metrics, and that the part is published.

use super::in_flight::InFlightToken;
use super::wall_clock;
use crate::domain::{Decision, Group, PartVerdict, Reject, RejectReason, Timestamp};
use crate::reassembly::ReassemblyBuffer;
use crate::telemetry;

/// Travels with a publication. It keeps the part's records, or the rejected ones, alive until the
/// broker has the result or dead letter, so that the memory budget counts them until then.
#[derive(Debug)]
pub(crate) struct Receipt {
    part: Option<PublishedPart>,
    _rejects: Vec<Reject>,
    reasons: Vec<RejectReason>,
    _token: InFlightToken,
}

#[derive(Debug)]
struct PublishedPart {
    group: Group,
    decision: Decision,
    maps_dropped: bool,
    last_view_at: Timestamp,
}

impl Receipt {
    /// For a part's result and the dead letters of its failed views.
    pub(crate) fn for_part(
        verdict: &PartVerdict,
        rejects: &[Reject],
        group: Group,
        token: InFlightToken,
    ) -> Self {
        Self {
            part: Some(PublishedPart {
                group,
                decision: verdict.decision,
                maps_dropped: verdict.maps_dropped,
                last_view_at: verdict.last_view_at,
            }),
            _rejects: Vec::new(),
            reasons: rejects.iter().map(|reject| reject.reason).collect(),
            _token: token,
        }
    }

    /// For dead letters, and records that need nothing published.
    pub(crate) fn for_unscored(rejects: Vec<Reject>, token: InFlightToken) -> Self {
        Self {
            part: None,
            reasons: rejects.iter().map(|reject| reject.reason).collect(),
            _rejects: rejects,
            _token: token,
        }
    }

    /// Notes that the broker has it all.
    pub(crate) fn close(self, reassembly: &ReassemblyBuffer) {
        for reason in self.reasons {
            telemetry::dead_letter_published(reason);
        }
        if let Some(part) = self.part {
            if let Some(record) = part.group.records().next() {
                reassembly.mark_published(&part.group.part, &record.source, record.generation);
            }
            telemetry::result_published(part.decision, part.maps_dropped);
            telemetry::end_to_end_took(wall_clock().since(part.last_view_at));
        }
    }
}

//! Which parts a replay takes: those that began in its range, of its classes, on its list.
//!
//! It decides by group, after reassembly, since what is left out still moves stream time and still tells
//! late views from new parts. A part began when the first of its records was written, whichever view that
//! is, so it does not matter in which order topics are read.

use std::collections::HashSet;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use crate::domain::{ClassName, PartId, Record, Timestamp};
use crate::reassembly::Event;

/// What is taken; all of it by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// When a part's first record was written.
    pub written: Option<Range<Timestamp>>,
    /// The classes, where not all.
    pub classes: Option<HashSet<ClassName>>,
    /// The parts, where not all.
    pub parts: Option<HashSet<PartId>>,
}

impl Selection {
    /// Leaves what is not taken without a result or a dead letter; its records are finished, and that its
    /// part is closed is remembered.
    pub(crate) fn apply(&self, event: &mut Event) {
        match event {
            Event::Closed(group, closure) => {
                let is_taken = self.takes_written(group.records())
                    && self.takes_part(&group.part.part)
                    && self.takes_class(group.class.as_ref());
                if !is_taken {
                    *event = Event::Expired {
                        rejects: Vec::new(),
                        absorbed: group.records().cloned().collect(),
                        class: group.class.clone(),
                        closure: Arc::clone(closure),
                    };
                }
            }
            Event::Expired {
                rejects,
                absorbed,
                class,
                closure,
            } => {
                let of_views = rejects.iter().map(|reject| &reject.record);
                let is_taken = self.takes_written(of_views.chain(&*absorbed))
                    && self.takes_part(&closure.part.part)
                    && self.takes_class(class.as_ref());
                if !is_taken {
                    absorbed.extend(mem::take(rejects).into_iter().map(|one| one.record));
                }
            }
            Event::Rejected(reject) => {
                let is_taken =
                    self.takes_written([&reject.record]) && self.takes_key(&reject.record);
                if !is_taken {
                    *event = Event::Finished(vec![Arc::clone(&reject.record)]);
                }
            }
            Event::Finished(_) => {}
        }
    }

    fn takes_written<'a>(&self, records: impl IntoIterator<Item = &'a Arc<Record>>) -> bool {
        let first = records.into_iter().filter_map(|one| one.timestamp).min();
        match (&self.written, first) {
            (Some(written), Some(first)) => written.contains(&first),
            _ => true,
        }
    }

    fn takes_part(&self, part: &PartId) -> bool {
        let parts = self.parts.as_ref();
        parts.is_none_or(|parts| parts.contains(part))
    }

    fn takes_class(&self, class: Option<&ClassName>) -> bool {
        let classes = self.classes.as_ref();
        classes.is_none_or(|classes| class.is_some_and(|class| classes.contains(class)))
    }

    /// A record that is no view may be one of any part, unless its key says otherwise.
    fn takes_key(&self, record: &Record) -> bool {
        let Some(parts) = &self.parts else {
            return true;
        };
        let key = record.key.as_deref().map(str::from_utf8);
        match key {
            Some(Ok(key)) => parts.contains(&PartId::from(key)),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        CloseCause, Group, PartClosure, PartKey, Reject, RejectReason, Reuse, ScoringOrder,
        SourceOffset,
    };

    fn record(part: &str, written: i64) -> Record {
        Record {
            source: SourceOffset {
                topic: "cam".into(),
                partition: 0,
                offset: written,
            },
            generation: 1,
            key: Some(part.as_bytes().to_vec()),
            value: None,
            headers: Vec::new(),
            timestamp: Some(Timestamp(written)),
            lease: None,
        }
    }

    /// A part with records written then.
    fn closed(part: &str, class: Option<&str>, written: &[i64]) -> Event {
        let key = PartKey {
            line: "line1".into(),
            part: part.into(),
        };
        let records: Vec<_> = written
            .iter()
            .map(|written| Arc::new(record(part, *written)))
            .collect();
        let closure = PartClosure {
            part: key.clone(),
            opened_by: records[0].source.clone(),
            reuse: Reuse {
                taken_after: Timestamp(0),
                written_after: Timestamp(0),
            },
            views: Vec::new(),
            records: Vec::new(),
        };
        let group = Group {
            part: key,
            class: class.map(ClassName::from),
            views: Vec::new(),
            missing: Vec::new(),
            absorbed: records,
            duplicates: Vec::new(),
            cause: CloseCause::Complete,
            scoring: ScoringOrder::Score,
            first_view_at: Timestamp(0),
            last_view_at: Timestamp(0),
        };
        Event::Closed(group, Arc::new(closure))
    }

    fn is_left_out(selection: &Selection, mut event: Event) -> bool {
        selection.apply(&mut event);
        match event {
            Event::Closed(..) => false,
            Event::Expired { rejects, .. } => rejects.is_empty(),
            Event::Rejected(_) => false,
            Event::Finished(records) => records.len() == 1,
        }
    }

    #[test]
    fn a_part_is_of_the_range_in_which_its_first_record_was_written() {
        let selection = Selection {
            written: Some(Timestamp(100)..Timestamp(200)),
            ..Selection::default()
        };
        let is_left_out = |written: &[i64]| is_left_out(&selection, closed("p", None, written));
        assert!(is_left_out(&[150, 99]), "it began before");
        assert!(!is_left_out(&[250, 199]), "it reaches over the end");
        assert!(is_left_out(&[200, 210]));
        assert!(!is_left_out(&[100]));
    }

    #[test]
    fn classes_and_lists_leave_out_all_else_and_remember_that_it_is_closed() {
        let selection = Selection {
            classes: Some(["gear".into()].into()),
            parts: Some(["p".into()].into()),
            ..Selection::default()
        };
        assert!(!is_left_out(&selection, closed("p", Some("gear"), &[1])));
        for (part, class) in [("q", Some("gear")), ("p", Some("bolt")), ("p", None)] {
            let mut event = closed(part, class, &[1]);
            selection.apply(&mut event);
            match event {
                Event::Expired {
                    rejects,
                    absorbed,
                    closure,
                    ..
                } => {
                    assert_eq!((rejects.len(), absorbed.len()), (0, 1));
                    assert_eq!(closure.part.part.as_str(), part);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn expired_parts_of_other_classes_are_no_dead_letters() {
        let selection = Selection {
            classes: Some(["gear".into()].into()),
            ..Selection::default()
        };
        let expired = |class: Option<&str>| {
            let Event::Closed(group, closure) = closed("p", class, &[1]) else {
                panic!("expected a closed part");
            };
            let reject = |record: &Arc<Record>| Reject {
                record: Arc::clone(record),
                reason: RejectReason::Expired,
                error: String::new(),
            };
            Event::Expired {
                rejects: group.absorbed.iter().map(reject).collect(),
                absorbed: Vec::new(),
                class: group.class,
                closure,
            }
        };
        assert!(!is_left_out(&selection, expired(Some("gear"))));
        assert!(is_left_out(&selection, expired(Some("bolt"))));
        assert!(is_left_out(&selection, expired(None)));
    }

    #[test]
    fn bad_records_of_other_parts_are_no_dead_letters_and_those_of_none_are() {
        let selection = Selection {
            parts: Some(["p".into()].into()),
            ..Selection::default()
        };
        let rejected = |record: Record| {
            Event::Rejected(Reject {
                record: Arc::new(record),
                reason: RejectReason::Decode,
                error: String::new(),
            })
        };
        assert!(is_left_out(&selection, rejected(record("q", 1))));
        assert!(!is_left_out(&selection, rejected(record("p", 1))));
        let unkeyed = Record {
            key: None,
            ..record("q", 1)
        };
        assert!(!is_left_out(&selection, rejected(unkeyed)));
    }
}

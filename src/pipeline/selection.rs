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
                        closure: Arc::clone(closure),
                    };
                }
            }
            Event::Expired {
                rejects,
                absorbed,
                closure,
            } => {
                let of_views = rejects.iter().map(|reject| &reject.record);
                let is_taken = self.takes_written(of_views.chain(&*absorbed))
                    && self.takes_part(&closure.part.part);
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

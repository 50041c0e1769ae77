//! When open groups are due: by stream time, and by the quiet time of their partition number.
//!
//! Every open group has exactly one entry here, taken out when the group closes or is forgotten.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::domain::{CloseCause, PartKey, Timestamp};

/// Distinguishes a group from an earlier or later one of the same part.
pub(crate) type Sequence = u64;

/// When a group closes if it does not complete.
#[derive(Clone, Debug)]
pub(crate) struct Appointment {
    pub(crate) part: PartKey,
    /// Due once stream time is past this.
    pub(crate) deadline: Timestamp,
    /// Due once the partition number has been quiet for longer than this.
    pub(crate) quiet_deadline: Option<(i32, Duration)>,
}

/// A group whose time has come.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub(crate) part: PartKey,
    pub(crate) sequence: Sequence,
    pub(crate) cause: CloseCause,
}

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    appointments: HashMap<Sequence, Appointment>,
    by_deadline: BTreeSet<(Timestamp, Sequence)>,
    by_quiet: HashMap<i32, BTreeSet<(Duration, Sequence)>>,
}

impl Schedule {
    pub(crate) fn insert(&mut self, sequence: Sequence, appointment: Appointment) {
        self.by_deadline.insert((appointment.deadline, sequence));
        if let Some((number, due)) = appointment.quiet_deadline {
            self.by_quiet
                .entry(number)
                .or_default()
                .insert((due, sequence));
        }
        self.appointments.insert(sequence, appointment);
    }

    /// The groups of a partition number, the earliest deadline first. Where numbers are not kept, all.
    pub(crate) fn of_number(&self, number: i32) -> Vec<(Sequence, PartKey)> {
        let mut groups: Vec<(Timestamp, Sequence)> = match self.by_quiet.get(&number) {
            Some(of_number) => of_number
                .iter()
                .filter_map(|(_, sequence)| {
                    let appointment = self.appointments.get(sequence)?;
                    Some((appointment.deadline, *sequence))
                })
                .collect(),
            None => self.by_deadline.iter().copied().collect(),
        };
        groups.sort_unstable();
        let named = |(_, sequence): (Timestamp, Sequence)| {
            let appointment = self.appointments.get(&sequence)?;
            Some((sequence, appointment.part.clone()))
        };
        groups.into_iter().filter_map(named).collect()
    }

    /// The parts of all groups.
    pub(crate) fn parts(&self) -> Vec<PartKey> {
        let appointments = self.appointments.values();
        appointments
            .map(|appointment| appointment.part.clone())
            .collect()
    }

    /// Moves a group's deadline; its quiet deadline stays.
    pub(crate) fn move_deadline(&mut self, sequence: Sequence, deadline: Timestamp) {
        if let Some(appointment) = self.appointments.get_mut(&sequence) {
            self.by_deadline.remove(&(appointment.deadline, sequence));
            appointment.deadline = deadline;
            self.by_deadline.insert((deadline, sequence));
        }
    }

    pub(crate) fn remove(&mut self, sequence: Sequence) -> Option<Appointment> {
        let appointment = self.appointments.remove(&sequence)?;
        self.by_deadline.remove(&(appointment.deadline, sequence));
        if let Some((number, due)) = appointment.quiet_deadline
            && let Some(of_number) = self.by_quiet.get_mut(&number)
        {
            of_number.remove(&(due, sequence));
            if of_number.is_empty() {
                self.by_quiet.remove(&number);
            }
        }
        Some(appointment)
    }

    /// Takes out the groups that stream time has passed, the earliest deadline first.
    pub(crate) fn take_passed(&mut self, stream_time: Timestamp) -> Vec<Due> {
        let mut due = Vec::new();
        while let Some(&(deadline, _)) = self.by_deadline.first() {
            if deadline >= stream_time {
                break;
            }
            due.extend(self.take_earliest(CloseCause::StreamTime));
        }
        due
    }

    /// Takes out the groups whose partition number has been quiet for too long.
    pub(crate) fn take_quiet(&mut self, number: i32, elapsed: Duration) -> Vec<Due> {
        let mut due = Vec::new();
        while let Some(&(deadline, sequence)) = self.by_quiet.get(&number).and_then(BTreeSet::first)
        {
            if deadline >= elapsed {
                break;
            }
            due.extend(self.take(sequence, CloseCause::WallClock));
        }
        due
    }

    /// Takes out the group with the earliest deadline.
    pub(crate) fn take_earliest(&mut self, cause: CloseCause) -> Option<Due> {
        let &(_, sequence) = self.by_deadline.first()?;
        self.take(sequence, cause)
    }

    /// The group with the earliest deadline.
    pub(crate) fn earliest(&self) -> Option<&Appointment> {
        let (_, sequence) = self.by_deadline.first()?;
        self.appointments.get(sequence)
    }

    pub(crate) fn len(&self) -> usize {
        self.appointments.len()
    }

    /// Whether the three indexes agree.
    #[cfg(test)]
    pub(crate) fn is_consistent(&self) -> bool {
        let with_quiet = |one: &&Appointment| one.quiet_deadline.is_some();
        let quiet = self.by_quiet.values().map(BTreeSet::len).sum::<usize>();
        self.by_deadline.len() == self.appointments.len()
            && quiet == self.appointments.values().filter(with_quiet).count()
            && self
                .by_quiet
                .values()
                .all(|of_number| !of_number.is_empty())
    }

    fn take(&mut self, sequence: Sequence, cause: CloseCause) -> Option<Due> {
        let appointment = self.remove(sequence)?;
        Some(Due {
            part: appointment.part,
            sequence,
            cause,
        })
    }
}

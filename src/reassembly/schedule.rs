//! When open groups are due: by the stream time and by the quiet time of their partition number.
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
    /// The partition number of its views.
    pub(crate) number: i32,
    /// Due once the number's stream time is past this.
    pub(crate) deadline: Timestamp,
    /// Due once the number has been quiet for longer than this.
    pub(crate) quiet_deadline: Option<Duration>,
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
    numbers: HashMap<i32, OfNumber>,
}

/// The groups of one partition number.
#[derive(Debug, Default)]
struct OfNumber {
    by_deadline: BTreeSet<(Timestamp, Sequence)>,
    by_quiet: BTreeSet<(Duration, Sequence)>,
}

impl Schedule {
    pub(crate) fn insert(&mut self, sequence: Sequence, appointment: Appointment) {
        let of_number = self.numbers.entry(appointment.number).or_default();
        of_number
            .by_deadline
            .insert((appointment.deadline, sequence));
        if let Some(due) = appointment.quiet_deadline {
            of_number.by_quiet.insert((due, sequence));
        }
        self.appointments.insert(sequence, appointment);
    }

    /// The groups of a partition number, the earliest deadline first.
    pub(crate) fn of_number(&self, number: i32) -> Vec<(Sequence, PartKey)> {
        let Some(of_number) = self.numbers.get(&number) else {
            return Vec::new();
        };
        let named = |(_, sequence): &(Timestamp, Sequence)| {
            let appointment = self.appointments.get(sequence)?;
            Some((*sequence, appointment.part.clone()))
        };
        of_number.by_deadline.iter().filter_map(named).collect()
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
        if let Some(appointment) = self.appointments.get_mut(&sequence)
            && let Some(of_number) = self.numbers.get_mut(&appointment.number)
        {
            let by_deadline = &mut of_number.by_deadline;
            by_deadline.remove(&(appointment.deadline, sequence));
            appointment.deadline = deadline;
            by_deadline.insert((deadline, sequence));
        }
    }

    pub(crate) fn remove(&mut self, sequence: Sequence) -> Option<Appointment> {
        let appointment = self.appointments.remove(&sequence)?;
        if let Some(of_number) = self.numbers.get_mut(&appointment.number) {
            of_number
                .by_deadline
                .remove(&(appointment.deadline, sequence));
            if let Some(due) = appointment.quiet_deadline {
                of_number.by_quiet.remove(&(due, sequence));
            }
            if of_number.by_deadline.is_empty() {
                self.numbers.remove(&appointment.number);
            }
        }
        Some(appointment)
    }

    /// Takes out the groups of a number that its stream time has passed, the earliest deadline first.
    pub(crate) fn take_passed(&mut self, number: i32, stream_time: Timestamp) -> Vec<Due> {
        let mut due = Vec::new();
        while let Some(&(deadline, sequence)) = self.first_of(number) {
            if deadline >= stream_time {
                break;
            }
            due.extend(self.take(sequence, CloseCause::StreamTime));
        }
        due
    }

    /// Takes out the groups whose partition number has been quiet for too long.
    pub(crate) fn take_quiet(&mut self, number: i32, elapsed: Duration) -> Vec<Due> {
        let mut due = Vec::new();
        while let Some(of_number) = self.numbers.get(&number)
            && let Some(&(deadline, sequence)) = of_number.by_quiet.first()
        {
            if deadline >= elapsed {
                break;
            }
            due.extend(self.take(sequence, CloseCause::WallClock));
        }
        due
    }

    /// Takes out the group with the earliest deadline of all.
    pub(crate) fn take_earliest(&mut self, cause: CloseCause) -> Option<Due> {
        let &(_, sequence) = self.first()?;
        self.take(sequence, cause)
    }

    /// The group with the earliest deadline of all.
    pub(crate) fn earliest(&self) -> Option<&Appointment> {
        let (_, sequence) = self.first()?;
        self.appointments.get(sequence)
    }

    pub(crate) fn len(&self) -> usize {
        self.appointments.len()
    }

    /// Whether the indexes agree.
    #[cfg(test)]
    pub(crate) fn is_consistent(&self) -> bool {
        let with_quiet = |one: &&Appointment| one.quiet_deadline.is_some();
        let quiet: usize = self.numbers.values().map(|one| one.by_quiet.len()).sum();
        let due: usize = self.numbers.values().map(|one| one.by_deadline.len()).sum();
        due == self.appointments.len()
            && quiet == self.appointments.values().filter(with_quiet).count()
            && self.numbers.values().all(|one| !one.by_deadline.is_empty())
    }

    fn first_of(&self, number: i32) -> Option<&(Timestamp, Sequence)> {
        self.numbers.get(&number)?.by_deadline.first()
    }

    fn first(&self) -> Option<&(Timestamp, Sequence)> {
        let numbers = self.numbers.values();
        numbers.filter_map(|one| one.by_deadline.first()).min()
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

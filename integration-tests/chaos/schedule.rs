//! What is done to instances and brokers, and when: drawn whole from a seed before anything runs, so
//! that the seed brings the same schedule again, however long its steps take.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::Settings;

/// How long an instance is frozen: longer than `session.timeout.ms` of the tests, six seconds.
const FREEZE_MILLIS: std::ops::Range<u64> = 7_500..11_000;
/// How long a broker is away.
const AWAY_MILLIS: std::ops::Range<u64> = 1_000..9_000;

/// One thing that is done. Instances are numbered in the order of their first start, brokers from 0
/// without the one that stays up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// SIGKILL, and started again at once.
    Kill(usize),
    /// SIGSTOP, while it has something to do.
    Freeze(usize),
    /// SIGCONT.
    Thaw(usize),
    /// One more instance.
    Add(usize),
    /// SIGTERM.
    Remove(usize),
    /// SIGKILL.
    KillBroker(usize),
    /// SIGTERM.
    StopBroker(usize),
    StartBroker(usize),
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, number) = match self {
            Self::Kill(number) => ("kill and restart instance", number),
            Self::Freeze(number) => ("freeze instance", number),
            Self::Thaw(number) => ("thaw instance", number),
            Self::Add(number) => ("add instance", number),
            Self::Remove(number) => ("remove instance", number),
            Self::KillBroker(number) => ("kill broker", number),
            Self::StopBroker(number) => ("stop broker", number),
            Self::StartBroker(number) => ("start broker", number),
        };
        write!(formatter, "{what} {number}")
    }
}

/// An action, and how long after the start it is due when no step takes any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) due: Duration,
    pub(super) action: Action,
}

/// The schedule of a seed: as many disturbances of each kind as the settings say, in random order,
/// one broker and one instance out of service at a time.
pub(super) fn draw(settings: &Settings, seed: u64) -> Vec<Step> {
    let mut drawing = Drawing {
        random: ChaCha8Rng::seed_from_u64(seed),
        usual: settings.instances,
        running: (0..settings.instances).collect(),
        started: settings.instances,
        frozen: None,
        away: None,
        left: vec![
            (Kind::Kill, settings.kills),
            (Kind::Freeze, settings.freezes),
            (Kind::Broker, settings.broker_stops),
            (Kind::Add, settings.additions),
            (Kind::Remove, settings.additions),
        ],
        now: Duration::ZERO,
        pending: Vec::new(),
        steps: Vec::new(),
    };
    while drawing.goes_on_after(settings.gap_millis.clone()) {}
    drawing.steps
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Freeze,
    Broker,
    Add,
    Remove,
}

/// The steps that are drawn, and the line as it will stand after them.
struct Drawing {
    random: ChaCha8Rng,
    /// How many instances there are at least.
    usual: usize,
    running: BTreeSet<usize>,
    /// How many were ever started.
    started: usize,
    frozen: Option<usize>,
    /// The broker that is away.
    away: Option<usize>,
    /// How many disturbances of each kind are to come.
    left: Vec<(Kind, usize)>,
    now: Duration,
    /// What brings back what is out of service.
    pending: Vec<Step>,
    steps: Vec<Step>,
}

impl Drawing {
    /// Draws what comes next after a pause; false when all is done and everything is back.
    fn goes_on_after(&mut self, pause_millis: std::ops::Range<u64>) -> bool {
        let pause = self.between(pause_millis);
        self.now += pause;
        let left = self.left.iter().copied();
        let may_be: Vec<(Kind, usize)> = left
            .filter(|(kind, count)| *count > 0 && self.allows(*kind))
            .collect();
        if may_be.is_empty() {
            // Something must come back first.
            let Some(next) = self.pending.iter().map(|step| step.due).min() else {
                return false;
            };
            self.now = self.now.max(next);
        }
        self.bring_back();
        if let Some(kind) = self.choose(&may_be) {
            self.disturb(kind);
        }
        true
    }

    /// Takes up all that is due to come back.
    fn bring_back(&mut self) {
        self.pending.sort_by_key(|step| step.due);
        let due = self.pending.partition_point(|step| step.due <= self.now);
        for step in self.pending.drain(..due).collect::<Vec<_>>() {
            self.apply(step.action);
            self.steps.push(step);
        }
    }

    fn disturb(&mut self, kind: Kind) {
        let mut left = self.left.iter_mut();
        let (_, count) = left.find(|(it, _)| *it == kind).expect("it was chosen");
        *count -= 1;
        let action = self.action(kind);
        self.apply(action);
        let due = self.now;
        self.steps.push(Step { due, action });
        if let Some((after, action)) = self.end_of(action) {
            let due = self.now + after;
            self.pending.push(Step { due, action });
        }
    }

    fn allows(&self, kind: Kind) -> bool {
        match kind {
            Kind::Kill | Kind::Add => true,
            Kind::Freeze => self.frozen.is_none(),
            Kind::Broker => self.away.is_none(),
            Kind::Remove => self.running.len() > self.usual,
        }
    }

    /// One of these kinds, those of which more are left more often.
    fn choose(&mut self, kinds: &[(Kind, usize)]) -> Option<Kind> {
        let all: usize = kinds.iter().map(|(_, count)| count).sum();
        let mut ticket = self.random.random_range(0..all.max(1));
        for (kind, count) in kinds {
            if ticket < *count {
                return Some(*kind);
            }
            ticket -= count;
        }
        None
    }

    fn action(&mut self, kind: Kind) -> Action {
        match kind {
            Kind::Kill => Action::Kill(self.any_instance()),
            Kind::Freeze => Action::Freeze(self.any_instance()),
            Kind::Add => Action::Add(self.started),
            Kind::Remove => Action::Remove(self.any_instance()),
            Kind::Broker => {
                let broker = self.random.random_range(0..2);
                match self.random.random() {
                    true => Action::KillBroker(broker),
                    false => Action::StopBroker(broker),
                }
            }
        }
    }

    /// One that runs and is not frozen.
    fn any_instance(&mut self) -> usize {
        let awake: Vec<usize> = self
            .running
            .iter()
            .copied()
            .filter(|it| Some(*it) != self.frozen)
            .collect();
        awake[self.random.random_range(0..awake.len())]
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Kill(_) => {}
            Action::Freeze(number) => self.frozen = Some(number),
            Action::Thaw(_) => self.frozen = None,
            Action::Add(number) => {
                self.running.insert(number);
                self.started += 1;
            }
            Action::Remove(number) => {
                self.running.remove(&number);
            }
            Action::KillBroker(number) | Action::StopBroker(number) => self.away = Some(number),
            Action::StartBroker(_) => self.away = None,
        }
    }

    /// What ends an action, and how long after it.
    fn end_of(&mut self, action: Action) -> Option<(Duration, Action)> {
        match action {
            Action::Freeze(number) => Some((self.between(FREEZE_MILLIS), Action::Thaw(number))),
            Action::KillBroker(number) | Action::StopBroker(number) => {
                Some((self.between(AWAY_MILLIS), Action::StartBroker(number)))
            }
            _ => None,
        }
    }

    fn between(&mut self, millis: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(millis))
    }
}

mod tests {
    use super::*;

    fn count(steps: &[Step], is_such: impl Fn(&Action) -> bool) -> usize {
        steps.iter().filter(|step| is_such(&step.action)).count()
    }

    #[test]
    fn a_seed_draws_the_same_chaos_again_and_another_seed_another() {
        let settings = Settings::soak();
        assert_eq!(draw(&settings, 1), draw(&settings, 1));
        assert_ne!(draw(&settings, 1), draw(&settings, 2));
    }

    #[test]
    fn chaos_has_what_was_asked_for_and_ends_with_everything_back() {
        let settings = Settings::soak();
        for seed in 0..200 {
            let steps = draw(&settings, seed);
            assert!(steps.is_sorted_by_key(|step| step.due), "seed {seed}");
            let of = |is_such: fn(&Action) -> bool| count(&steps, is_such);
            assert_eq!(of(|it| matches!(it, Action::Kill(_))), settings.kills);
            assert_eq!(of(|it| matches!(it, Action::Freeze(_))), settings.freezes);
            assert_eq!(of(|it| matches!(it, Action::Thaw(_))), settings.freezes);
            assert_eq!(of(|it| matches!(it, Action::Add(_))), settings.additions);
            assert_eq!(of(|it| matches!(it, Action::Remove(_))), settings.additions);
            assert_eq!(
                of(|it| matches!(it, Action::StartBroker(_))),
                settings.broker_stops
            );
            let is_away = |it: &Action| matches!(it, Action::KillBroker(_) | Action::StopBroker(_));
            assert_eq!(of(is_away), settings.broker_stops);
        }
    }
}

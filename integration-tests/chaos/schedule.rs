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
    let mut line = DrawnLine {
        random: ChaCha8Rng::seed_from_u64(seed),
        usual: settings.instances,
        running: (0..settings.instances).collect(),
        started: settings.instances,
        frozen: None,
        away: None,
    };
    let mut left = vec![
        (Kind::Kill, settings.kills),
        (Kind::Freeze, settings.freezes),
        (Kind::Broker, settings.broker_stops),
        (Kind::Add, settings.additions),
        (Kind::Remove, settings.additions),
    ];
    let (mut steps, mut pending, mut now) = (Vec::new(), Vec::<Step>::new(), Duration::ZERO);
    loop {
        now += line.between(settings.gap_millis.clone());
        left.retain(|(_, count)| *count > 0);
        let may_be: Vec<(Kind, usize)> = left
            .iter()
            .copied()
            .filter(|it| line.allows(it.0))
            .collect();
        if may_be.is_empty() {
            // Something must come back first; when nothing is left to come back, all is done.
            let Some(next) = pending.iter().map(|step| step.due).min() else {
                return steps;
            };
            now = now.max(next);
        }
        pending.sort_by_key(|step| step.due);
        let due = pending.partition_point(|step| step.due <= now);
        for step in pending.drain(..due) {
            line.apply(step.action);
            steps.push(step);
        }
        let Some(kind) = line.choose(&may_be) else {
            continue;
        };
        let (_, count) = left
            .iter_mut()
            .find(|(it, _)| *it == kind)
            .expect("it was chosen");
        *count -= 1;
        let action = line.action(kind);
        line.apply(action);
        steps.push(Step { due: now, action });
        pending.extend(line.end_of(action).map(|(after, action)| Step {
            due: now + after,
            action,
        }));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Freeze,
    Broker,
    Add,
    Remove,
}

/// The line as it will stand after the steps that are drawn.
struct DrawnLine {
    random: ChaCha8Rng,
    /// How many instances there are at least.
    usual: usize,
    running: BTreeSet<usize>,
    /// How many were ever started.
    started: usize,
    frozen: Option<usize>,
    /// The broker that is away.
    away: Option<usize>,
}

impl DrawnLine {
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

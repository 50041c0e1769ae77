//! The times that bound each other: the group's, the brokers', and this instance's own.
//!
//! Pure. A rule is about two of them and names both with their values; what is not set has
//! librdkafka's default. `session.timeout.ms` bounds none of the instance's own: while it waits for
//! work or brokers inside a rebalance, librdkafka goes on with heartbeats by itself. All such waits
//! must end within `max.poll.interval.ms`, else the group goes on without the instance, and what it
//! then commits is refused.

use std::time::Duration;

use super::validation::Rules;
use super::{Delivery, Settings};
use crate::kafka::consumer_settings::LEARNING_TIMEOUT;
use crate::kafka::group_protocol::{GROUP_PROTOCOL, GroupProtocol};

/// librdkafka's defaults.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// Brokers and clients need some time for each step of a transaction.
const SHORTEST_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(1);

/// A time and the key that it stands under.
#[derive(Clone, Copy)]
struct Deadline {
    key: &'static str,
    time: Duration,
}

impl Deadline {
    fn shown(self) -> String {
        humantime::format_duration(self.time).to_string()
    }

    /// As it is named in a rule about another one.
    fn named(self) -> String {
        format!("`{}` ({})", self.key, self.shown())
    }
}

/// The times of a group, as set or by default.
struct GroupTimes {
    max_poll: Deadline,
    session: Deadline,
    heartbeat: Deadline,
}

impl GroupTimes {
    fn of(settings: &Settings) -> Self {
        let property = |key: &'static str, default| {
            let name = key.trim_start_matches("bus.properties.");
            let set = settings.bus.properties.get(name);
            let millis = set.and_then(|value| value.parse().ok());
            let time = millis.map_or(default, Duration::from_millis);
            Deadline { key, time }
        };
        Self {
            max_poll: property("bus.properties.max.poll.interval.ms", MAX_POLL_INTERVAL),
            session: property("bus.properties.session.timeout.ms", SESSION_TIMEOUT),
            heartbeat: property("bus.properties.heartbeat.interval.ms", HEARTBEAT_INTERVAL),
        }
    }
}

/// Heartbeats that are allowed, but so rare that two lost ones end a session.
pub(super) fn rare_heartbeats(settings: &Settings) -> Option<String> {
    let times = GroupTimes::of(settings);
    let are_rare = times.heartbeat.time > times.session.time / 3;
    (by_members(settings) && are_rare).then(|| {
        format!(
            "`{}` is `{}`, above a third of {}: the group may go on without this instance after one \
             lost heartbeat or two",
            times.heartbeat.key,
            times.heartbeat.shown(),
            times.session.named()
        )
    })
}

/// Whether sessions and heartbeats are as members say, not the brokers.
fn by_members(settings: &Settings) -> bool {
    let protocol = settings.bus.properties.get(GROUP_PROTOCOL);
    GroupProtocol::of(protocol) == GroupProtocol::Classic
}

impl Rules<'_> {
    pub(super) fn deadlines(&mut self) {
        let GroupTimes {
            max_poll,
            session,
            heartbeat,
        } = GroupTimes::of(self.settings);
        let bus = &self.settings.bus;
        let drain = Deadline {
            key: "bus.drain_timeout",
            time: bus.drain_timeout,
        };
        let commit = Deadline {
            key: "bus.commit_interval",
            time: bus.commit_interval,
        };
        self.positive(commit.key, commit.time);
        self.positive(drain.key, drain.time);
        if by_members(self.settings) {
            self.shorter(heartbeat, session, "the session ends without one");
            self.require(
                session.time <= max_poll.time,
                session.key,
                session.shown(),
                &format!("must be at most {}", max_poll.named()),
            );
        }
        let reason = "the group goes on without an instance that does not poll for so long";
        self.shorter(commit, max_poll, reason);
        self.shorter(drain, max_poll, reason);
        match self.settings.output.delivery {
            Delivery::ExactlyOnce => self.transaction_deadlines(max_poll, drain),
            Delivery::AtLeastOnce => self.assignment_wait(max_poll, None),
        }
    }

    fn transaction_deadlines(&mut self, max_poll: Deadline, drain: Deadline) {
        let transactions = &self.settings.output.transactions;
        let interval = Deadline {
            key: "output.transactions.interval",
            time: transactions.interval,
        };
        let timeout = Deadline {
            key: "output.transactions.timeout",
            time: transactions.timeout,
        };
        let shortest = SHORTEST_TRANSACTION_TIMEOUT;
        self.require(
            timeout.time >= shortest,
            timeout.key,
            timeout.shown(),
            &format!("must be at least {}", humantime::format_duration(shortest)),
        );
        self.require(
            interval.time < timeout.time / 2,
            interval.key,
            interval.shown(),
            &format!("must be shorter than half of {}", timeout.named()),
        );
        let reason = "what is in flight when partitions are given up goes out with the next one";
        self.shorter(interval, drain, reason);
        for name in [
            "message.timeout.ms",
            "delivery.timeout.ms",
            "socket.timeout.ms",
        ] {
            if let Some(limit) = self.number_property(name) {
                self.require(
                    Duration::from_millis(limit) <= timeout.time,
                    &format!("bus.properties.{name}"),
                    limit,
                    &format!("must be at most {}", timeout.named()),
                );
            }
        }
        self.assignment_wait(max_poll, Some(timeout));
    }

    /// An assignment waits for what the brokers tell of committed offsets and of partitions.
    fn assignment_wait(&mut self, max_poll: Deadline, transactions: Option<Deadline>) {
        let alone = humantime::format_duration(LEARNING_TIMEOUT);
        let (longest, what) = match transactions {
            None => (LEARNING_TIMEOUT, alone.to_string()),
            Some(timeout) => (
                LEARNING_TIMEOUT + 2 * timeout.time,
                format!("{alone} and twice {}", timeout.named()),
            ),
        };
        self.require(
            longest < max_poll.time,
            max_poll.key,
            max_poll.shown(),
            &format!("must be longer than {what}: an assignment may wait so long for brokers"),
        );
    }

    fn shorter(&mut self, one: Deadline, other: Deadline, reason: &str) {
        self.require(
            one.time < other.time || other.time.is_zero(), // which is a problem of its own
            one.key,
            one.shown(),
            &format!("must be shorter than {}: {reason}", other.named()),
        );
    }
}

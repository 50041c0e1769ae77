//! The instances and brokers, and what is done to them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::recovery::Disturbance;
use super::schedule::{Action, Step};
use crate::kafka::Cluster;
use crate::support::config::Config;
use crate::support::process::{FREE_MODEL, Metrics, Panoptes};

/// Long enough for an instance that was frozen to hear that its group went on without it.
const OUTCAST_TIMEOUT: Duration = Duration::from_secs(10);

/// All instances of one line, on a cluster.
pub(super) struct Fleet<'a> {
    cluster: &'a Cluster,
    config: Config,
    name: String,
    instances: BTreeMap<usize, Instance>,
    pub(super) report: FleetReport,
}

/// What was done, and what came of it but for the outcomes.
#[derive(Default)]
pub(super) struct FleetReport {
    pub(super) disturbances: Vec<Disturbance>,
    /// Instances that came back from a freeze to hear that their partitions are others' by now.
    pub(super) zombies: usize,
    /// Instances that ended by themselves, and were started again as a supervisor does.
    pub(super) ended_by_themselves: usize,
    /// Instances that were told to end and could not finish what they had: it is read again.
    pub(super) ended_in_disorder: usize,
    /// Pipelines that were built anew in their processes, as far as those lived to tell.
    pub(super) rebuilds: usize,
}

impl fmt::Display for FleetReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "of the frozen instances {} came back as zombies; pipelines built anew: {}; instances that \
             ended by themselves: {}, in disorder: {}",
            self.zombies, self.rebuilds, self.ended_by_themselves, self.ended_in_disorder,
        )
    }
}

struct Instance {
    config: Config,
    lives: usize,
    process: Panoptes,
    /// How often the group had gone on without it, when it was frozen.
    outcast_before: f64,
}

impl<'a> Fleet<'a> {
    /// Starts so many instances and waits until they are ready.
    pub(super) fn start(cluster: &'a Cluster, config: Config, name: &str, count: usize) -> Self {
        let mut fleet = Self {
            cluster,
            config,
            name: name.to_owned(),
            instances: BTreeMap::new(),
            report: FleetReport::default(),
        };
        for number in 0..count {
            fleet.add(number);
        }
        for instance in fleet.instances.values_mut() {
            instance.process.wait_until_ready();
        }
        fleet
    }

    /// Does all that is in the schedule, in its order and with its pauses.
    pub(super) fn carry_out(&mut self, steps: &[Step]) {
        let mut last_due = Duration::ZERO;
        for step in steps {
            // The pauses are the chaos: nothing is waited for.
            std::thread::sleep(step.due - last_due);
            last_due = step.due;
            self.revive();
            println!("{:>7.1} s: {}", step.due.as_secs_f64(), step.action);
            self.act(step.action);
        }
    }

    /// Stops every instance in order.
    pub(super) fn stop(mut self) -> FleetReport {
        self.revive();
        for number in self.instances.keys().copied().collect::<Vec<_>>() {
            self.remove(number);
        }
        self.report
    }

    fn act(&mut self, action: Action) {
        let now = Instant::now();
        match action {
            Action::Kill(number) => {
                self.note_rebuilds(number);
                self.restart(number);
            }
            Action::Freeze(number) => {
                self.freeze(number);
                return; // which notes itself when the instance works
            }
            Action::Thaw(number) => self.thaw(number),
            Action::Add(number) => self.add(number),
            Action::Remove(number) => self.remove(number),
            Action::KillBroker(number) => self.cluster.others[number].kill(),
            Action::StopBroker(number) => self.cluster.others[number].stop(),
            Action::StartBroker(number) => self.cluster.others[number].resume(),
        }
        self.note(action, now);
    }

    fn note(&mut self, action: Action, at: Instant) {
        self.report.disturbances.push(Disturbance { action, at });
    }

    fn add(&mut self, number: usize) {
        let mut config = self.config.of_another_instance();
        // Every other one is a static member of the group.
        if number % 2 == 1 {
            config = config.property("group.instance.id", &format!("{}-{number}", self.name));
        }
        let process = self.spawn(&config, number, 0);
        let instance = Instance {
            config,
            lives: 1,
            process,
            outcast_before: 0.0,
        };
        self.instances.insert(number, instance);
    }

    fn spawn(&self, config: &Config, number: usize, life: usize) -> Panoptes {
        let name = format!("{}-{number}-{life}", self.name);
        Panoptes::start_with(config, &name, &[FREE_MODEL])
    }

    /// Another life in the place of one that is killed or has ended.
    fn restart(&mut self, number: usize) {
        let Instance {
            config,
            lives,
            process,
            ..
        } = self.instances.remove(&number).expect("it was started");
        process.kill();
        let process = self.spawn(&config, number, lives);
        let instance = Instance {
            config,
            lives: lives + 1,
            process,
            outcast_before: 0.0,
        };
        self.instances.insert(number, instance);
    }

    /// Starts again whatever ended by itself.
    fn revive(&mut self) {
        let mut ended = Vec::new();
        for (number, instance) in &mut self.instances {
            if let Some(status) = instance.process.ended() {
                println!(
                    "instance {number} ended with {status}: {}",
                    instance.process.log_tail()
                );
                ended.push(*number);
            }
        }
        for number in ended {
            self.report.ended_by_themselves += 1;
            self.restart(number);
        }
    }

    fn freeze(&mut self, number: usize) {
        let instance = self.instances.get_mut(&number).expect("it was started");
        instance.process.await_work();
        instance.outcast_before = outcast(&instance.process.metrics());
        instance.process.await_work();
        instance.process.freeze();
        self.note(Action::Freeze(number), Instant::now());
    }

    fn thaw(&mut self, number: usize) {
        let instance = &self.instances[&number];
        instance.process.thaw();
        let thawed = Instant::now();
        while thawed.elapsed() < OUTCAST_TIMEOUT {
            let answer = instance.process.get("/metrics");
            if answer
                .is_some_and(|(_, body)| outcast(&Metrics::parse(&body)) > instance.outcast_before)
            {
                self.report.zombies += 1;
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn remove(&mut self, number: usize) {
        self.note_rebuilds(number);
        let mut instance = self.instances.remove(&number).expect("it was started");
        // Before that it does not listen to signals yet.
        instance.process.await_answer("/livez", 200);
        let status = instance.process.terminate();
        match status.code() {
            Some(0) => {}
            Some(1) => {
                println!(
                    "instance {number} ended in disorder: {}",
                    instance.process.log_tail()
                );
                self.report.ended_in_disorder += 1;
            }
            _ => panic!(
                "instance {number} ended with {status}: {}",
                instance.process.log_tail()
            ),
        }
    }

    fn note_rebuilds(&mut self, number: usize) {
        let answer = self.instances[&number].process.get("/metrics");
        let rebuilds = answer.map_or(0.0, |(_, body)| rebuilds(&Metrics::parse(&body)));
        self.report.rebuilds += rebuilds as usize;
    }
}

fn rebuilds(metrics: &Metrics) -> f64 {
    metrics.sum("panoptes_pipeline_rebuilds_total", &[])
}

/// How often the group went on without this member: it was told so, or its producer could not go on.
fn outcast(metrics: &Metrics) -> f64 {
    metrics.sum("panoptes_rebalances_total", &[("kind", "lost")]) + rebuilds(metrics)
}

//! Two measurements, run by hand: how the pace grows with the instances, and how long a rebalance
//! stops the line. The model is replaced by a fixed delay, so that the machine's own pace says nothing.
//!
//! They check what they measure: each part has one whole result.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::Broker;
use crate::support::config::Config;
use crate::support::line::{Line, PARTITIONS, VIEWS};
use crate::support::process::Panoptes;
use crate::support::shots::Shot;

fn config(line: &Line) -> Config {
    line.exactly_once_config()
        // One part to a batch, so that the delay is a part's.
        .set("model.max_batch", VIEWS.len() as i64)
}

/// An instance whose device takes `delay` for a part, whatever the images.
fn start(line: &Line, name: &str, delay: Duration) -> Panoptes {
    start_with(&config(line), name, delay)
}

fn start_with(config: &Config, name: &str, delay: Duration) -> Panoptes {
    let fail_points = format!(
        "device-blank-maps=return;device-batch=sleep({})",
        delay.as_millis()
    );
    Panoptes::start_with(config, name, &[("FAILPOINTS", &fail_points)])
}

/// Waits until the instances share all partitions of the line evenly.
fn await_shares(instances: &[Panoptes]) {
    let views = i32::try_from(VIEWS.len()).unwrap();
    let share = views * PARTITIONS / i32::try_from(instances.len()).unwrap();
    for instance in instances {
        instance.await_answer("/readyz", 200);
        instance.await_assigned(share);
    }
}

/// A part on the next partition number; all parts have the same images, whose making takes longer than
/// their processing.
fn shots(images: &[Shot], number: usize) -> Vec<Shot> {
    let partition = i32::try_from(number).unwrap() % PARTITIONS;
    let named = |shot: Shot| shot.keyed(Some(name(number).as_bytes()));
    let shots = images.iter().cloned();
    shots
        .map(|shot| named(shot).on_partition(partition))
        .collect()
}

fn name(number: usize) -> String {
    format!("part-{number:05}")
}

/// When each result was seen by a `read_committed` reader.
#[derive(Clone, Default)]
struct Arrivals {
    seen: Arc<Mutex<Vec<(Instant, usize)>>>,
    is_over: Arc<AtomicBool>,
}

impl Arrivals {
    fn watch(line: &Line) -> (Self, std::thread::JoinHandle<()>) {
        let mut client = line.broker.client();
        client.set("group.id", "test-arrivals");
        client.set("isolation.level", "read_committed");
        client.set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = client.create().unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(&line.results_topic(), partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        let arrivals = Self::default();
        let watching = arrivals.clone();
        let thread = std::thread::spawn(move || {
            while !watching.is_over.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                    let key = std::str::from_utf8(message.key().unwrap()).unwrap();
                    let number = key.rsplit('-').next().unwrap().parse().unwrap();
                    watching.seen.lock().unwrap().push((Instant::now(), number));
                }
            }
        });
        (arrivals, thread)
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn await_count(&self, count: usize) {
        let started = Instant::now();
        while self.count() < count {
            assert!(
                started.elapsed() < Duration::from_secs(240),
                "{} of {count} results",
                self.count()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The longest times without a result between `from` and `to`: of all, and of the partition number
    /// that waited longest.
    fn longest_gaps(&self, from: Instant, to: Instant) -> (Duration, Duration) {
        let seen = self.seen.lock().unwrap();
        let mut last = from;
        let mut last_of: HashMap<usize, Instant> = HashMap::new();
        let (mut of_all, mut of_one) = (Duration::ZERO, Duration::ZERO);
        for &(at, number) in seen.iter().filter(|(at, _)| (from..to).contains(at)) {
            of_all = of_all.max(at - last);
            last = at;
            let own = number % usize::try_from(PARTITIONS).unwrap();
            of_one = of_one.max(at - last_of.insert(own, at).unwrap_or(from));
        }
        (of_all, of_one)
    }
}

fn assert_one_whole_result_each(line: &Line, parts: usize) {
    let names: Vec<String> = (0..parts).map(name).collect();
    line.outcomes().assert_one_whole_result_each(&names);
}

#[test]
#[ignore = "a measurement"]
fn scale_pace_of_one_two_and_four_instances() {
    const PARTS: usize = 160;
    let delay = Duration::from_millis(200);
    let line = Line::new(Broker::shared(), "pace");
    let (arrivals, watcher) = Arrivals::watch(&line);
    let images = line.part("same", 1);
    println!("| instances | parts a second | of one instance's |\n| --: | --: | --: |");
    let (mut sent, mut alone) = (0, None);
    for count in [1, 2, 4] {
        let instances: Vec<Panoptes> = (0..count)
            .map(|number| start(&line, &format!("pace-{count}-{number}"), delay))
            .collect();
        await_shares(&instances);
        line.send((sent..sent + PARTS).flat_map(|number| shots(&images, number)));
        arrivals.await_count(sent + PARTS);
        let seen = arrivals.seen.lock().unwrap()[sent..].to_vec();
        let took = seen[PARTS - 1].0 - seen[0].0;
        let pace = (PARTS - 1) as f64 / took.as_secs_f64();
        let ratio = pace / *alone.get_or_insert(pace);
        println!("| {count} | {pace:.2} | {ratio:.2} |");
        sent += PARTS;
        instances.into_iter().for_each(Panoptes::stop_in_order);
    }
    arrivals.is_over.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    assert_one_whole_result_each(&line, sent);
}

#[test]
#[ignore = "a measurement"]
fn scale_how_long_a_rebalance_stops_the_line() {
    const CADENCE: Duration = Duration::from_millis(125);
    let delay = Duration::from_millis(60);
    let line = Line::new(Broker::shared(), "stops");
    let (arrivals, watcher) = Arrivals::watch(&line);
    let start = |number: usize| start(&line, &format!("stops-{number}"), delay);
    let instances = vec![start(0), start(1)];
    await_shares(&instances);
    let third = config(&line);
    let seen = arrivals.clone();
    let changes = std::thread::spawn(move || change_and_report(&seen, instances, &third, delay));
    let images = line.part("same", 1);
    let mut sent = 0;
    while !changes.is_finished() {
        line.send(shots(&images, sent));
        sent += 1;
        std::thread::sleep(CADENCE);
    }
    let instances = changes.join().unwrap();
    arrivals.await_count(sent);
    instances.into_iter().for_each(Panoptes::stop_in_order);
    arrivals.is_over.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    assert_one_whole_result_each(&line, sent);
}

/// Changes the group while parts come, and says how long nothing came out. Gives who is left.
fn change_and_report(
    arrivals: &Arrivals,
    mut instances: Vec<Panoptes>,
    third: &Config,
    delay: Duration,
) -> Vec<Panoptes> {
    println!("| what | no result at all, ms | none of one partition number, ms |");
    println!("| --- | --: | --: |");
    arrivals.await_count(40);
    let report = |what: &str, wait: Duration, change: &mut dyn FnMut()| {
        let from = Instant::now();
        change();
        std::thread::sleep(wait);
        let (all, one) = arrivals.longest_gaps(from, Instant::now());
        println!("| {what} | {} | {} |", all.as_millis(), one.as_millis());
    };
    let settled = Duration::from_secs(15);
    report("nothing", settled, &mut || {});
    report("one joins two", settled, &mut || {
        instances.push(start_with(third, "stops-2", delay));
    });
    report("one of three is stopped in order", settled, &mut || {
        instances.remove(0).stop_in_order();
    });
    report("one of two is killed", 2 * settled, &mut || {
        instances.remove(0).kill();
    });
    instances
}

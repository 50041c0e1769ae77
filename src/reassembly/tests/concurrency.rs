//! The buffer shared between threads.

use std::thread;

use super::*;

const PARTS_EACH: i64 = 300;

/// One thread a camera, all on the same parts, while others close, pause and look.
#[test]
fn threads_that_share_the_buffer_lose_and_double_nothing() {
    let parts: Vec<&'static str> = (0..PARTS_EACH)
        .map(|number| &*Box::leak(format!("p{number}").into_boxed_str()))
        .collect();
    let buffer = small_buffer(ReassemblySettings {
        line: LinePolicy {
            timeout: Duration::from_secs(3_600),
            ..LinePolicy::default()
        },
        ..settings()
    });
    let budget = MemoryBudget::new(1 << 30);
    let events: Vec<Event> = thread::scope(|scope| {
        let cameras: Vec<_> = TOPICS
            .iter()
            .map(|topic| {
                let (buffer, parts) = (&buffer, &parts);
                scope.spawn(move || {
                    let give = |(offset, part): (usize, &&'static str)| {
                        let shot = shot(part, topic, offset as i64).taken_at(offset as i64);
                        buffer.accept(shot.build(None), at(offset as i64))
                    };
                    parts.iter().enumerate().flat_map(give).collect::<Vec<_>>()
                })
            })
            .collect();
        let onlooker = scope.spawn(|| {
            let mut events = Vec::new();
            for millis in 0..PARTS_EACH {
                events.extend(buffer.tick(at(millis)));
                events.extend(buffer.flow(&budget, at(millis)).events);
                buffer.status(at(millis));
            }
            events
        });
        let threads = cameras.into_iter().chain([onlooker]);
        threads.flat_map(|thread| thread.join().unwrap()).collect()
    });
    let closed = events
        .iter()
        .filter(|event| matches!(event, Event::Closed(..)));
    assert_eq!(closed.count() as i64, PARTS_EACH);
    assert_eq!(events.len() as i64, PARTS_EACH, "nothing was rejected");
    assert_eq!(buffer.open_groups(), 0);
    assert_eq!(buffer.counts().complete as i64, PARTS_EACH);
}

/// A rebalance in the midst: what is forgotten and what is closed is all there was.
#[test]
fn a_rebalance_under_load_leaves_no_stale_group_behind() {
    let buffer = small_buffer(settings());
    let partitions = TOPICS.map(|topic| partition(topic, 0));
    thread::scope(|scope| {
        for topic in TOPICS {
            let buffer = &buffer;
            scope.spawn(move || {
                for offset in 0..PARTS_EACH {
                    let part = ["a", "b", "c", "d"][offset as usize % 4];
                    let bytes = offset.to_string();
                    buffer.accept(shot(part, topic, offset).bytes(&bytes).build(None), at(0));
                }
            });
        }
        scope.spawn(|| {
            for generation in 2..50 {
                buffer.assign(&partitions, generation, at(0));
            }
        });
    });
    assert_eq!(
        buffer.open_groups(),
        0,
        "all views were of the first generation"
    );
    assert_eq!(buffer.status(at(0)).open_bytes, 0);
}

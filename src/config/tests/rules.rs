//! What each rule says of values that break it.

use super::*;

#[test]
fn each_rule_names_key_value_and_rule() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["bus.brokers=kafka"],
            "`bus.brokers` is `kafka`: must be `host:port`, several separated by commas",
        ),
        (
            &["bus.brokers=kafka:0"],
            "`bus.brokers` is `kafka:0`: must be `host:port`, several separated by commas",
        ),
        (
            &["bus.group_id="],
            "`bus.group_id` is ``: must be a name of 1 to 256 bytes without spaces around it",
        ),
        (
            &["bus.commit_interval=0s"],
            "`bus.commit_interval` is `0s`: must be longer than 0",
        ),
        (
            &["bus.drain_timeout=0s"],
            "`bus.drain_timeout` is `0s`: must be longer than 0",
        ),
        (
            &["bus.drain_timeout=6m"],
            "`bus.drain_timeout` is `6m`: must be shorter than `bus.properties.max.poll.interval.ms` (5m): the group goes on without an instance that does not poll for so long",
        ),
        (
            &["bus.commit_interval=6m"],
            "`bus.commit_interval` is `6m`: must be shorter than `bus.properties.max.poll.interval.ms` (5m): the group goes on without an instance that does not poll for so long",
        ),
        (
            &["bus.properties.group.id=x"],
            "`bus.properties.group.id` is `x`: is not free to set: set `bus.group_id`",
        ),
        (
            &["bus.properties.enable.auto.commit=true"],
            "`bus.properties.enable.auto.commit` is `true`: is not free to set: offsets are committed by Panoptes alone",
        ),
        (
            &["bus.properties.acks=1"],
            "`bus.properties.acks` is `1`: is not free to set: results are acknowledged by all in-sync replicas before offsets are committed",
        ),
        (
            &["bus.properties.statistics.interval.ms=0"],
            "`bus.properties.statistics.interval.ms` is `0`: is not free to set: the ends of partitions are learnt from statistics",
        ),
        (
            &["bus.properties.sesion.timeout=6"],
            "`bus.properties.sesion.timeout` is `<redacted>`: is no property that librdkafka knows",
        ),
        (
            &["bus.properties.security.protocol=TSL"],
            "`bus.properties.security.protocol` is `TSL`: is no value that librdkafka takes for it",
        ),
        (
            &["bus.properties.auto.offset.reset=middle"],
            "`bus.properties.auto.offset.reset` is `middle`: must be `earliest`, `latest` or `error`",
        ),
        (
            &["bus.properties.client.id="],
            "`bus.properties.client.id`: must not be empty",
        ),
        (
            &["bus.properties.message.max.bytes=1MB"],
            "`bus.properties.message.max.bytes` is `1MB`: must be a whole number",
        ),
        (
            &["input.topics=a b"],
            "`input.topics` is `a b`: must be a topic name: 1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_` and `-`",
        ),
        (
            &["input.topics=a,b,a"],
            "`input.topics` is `a`: must not be named twice",
        ),
        (
            &["input.topic_regex=^a"],
            "`input.topic_regex` is `^a`: must not be set together with `input.topics`",
        ),
        (
            &["input.topics=", "input.topic_regex=cam"],
            "`input.topic_regex` is `cam`: must start with `^`, as Kafka clients tell a pattern from a name by it",
        ),
        (
            &["input.topics=", "input.topic_regex=^("],
            "`input.topic_regex` is `^(`: must be a regular expression: error: unclosed group",
        ),
        (
            &["input.topics=", "input.topic_regex=^cam\\d+"],
            "`input.topic_regex` is `^cam\\d+`: must be a POSIX extended regular expression, as Kafka's client matches it: instead of `\\d` write `[0-9]`",
        ),
        (
            &["input.topics=", "input.topic_regex=^(?:cam|eye)"],
            "`input.topic_regex` is `^(?:cam|eye)`: must be a POSIX extended regular expression, as Kafka's client matches it: instead of `(?` write a plain group `(`",
        ),
        (
            &["reassembly.reuse_after=50s"],
            "`reassembly.reuse_after` is `50s`: must be longer than `reassembly.max_future` (1m), else a view with a wrong time makes its part be forgotten too soon",
        ),
        (
            &["input.topics="],
            "`input.topics`: either `input.topics` or `input.topic_regex` must be set",
        ),
        (
            &["input.line="],
            "`input.line` is ``: must be a name of 1 to 256 bytes without spaces around it",
        ),
        (
            &["views.default=top,left,top"],
            "`views.default` is `top`: must not be named twice",
        ),
        (
            &["views.class.gear="],
            "`views.class.gear`: must name at least one view",
        ),
        (
            &["reassembly.idle_after=5s"],
            "`reassembly.idle_after` is `5s`: must be shorter than `reassembly.timeout` (5s)",
        ),
        (
            &["reassembly.reuse_after=5s"],
            "`reassembly.reuse_after` is `5s`: must be longer than `reassembly.timeout` (5s)",
        ),
        (
            &["reassembly.max_future=0s"],
            "`reassembly.max_future` is `0s`: must be longer than 0",
        ),
        (
            &["reassembly.memory_high=1.5"],
            "`reassembly.memory_high` is `1.5`: must be above 0 and at most 1",
        ),
        (
            &["reassembly.memory_low=0.9"],
            "`reassembly.memory_low` is `0.9`: must be above 0 and below `reassembly.memory_high` (0.8)",
        ),
        (
            &["reassembly.memory_budget=1MiB"],
            "`reassembly.memory_budget` is `1.0 MiB`: must hold at least one record of `limits.max_bytes` (16.0 MiB)",
        ),
        (
            &["lines.line2.timeout=1s"],
            "`lines.line2.timeout` is `1s`: must be longer than `reassembly.idle_after` (2s) and shorter than \
             `reassembly.reuse_after` (1h)",
        ),
        (
            &["limits.max_bytes=0B"],
            "`limits.max_bytes` is `0 B`: must be larger than 0",
        ),
        (
            &["limits.max_width=0"],
            "`limits.max_width` is `0`: must be larger than 0",
        ),
        (
            &["model.path="],
            "`model.path`: must name the folder of a model bundle",
        ),
        (
            &["model.max_batch=0"],
            "`model.max_batch` is `0`: must be at least 1",
        ),
        (
            &["model.workers_per_device=0"],
            "`model.workers_per_device` is `0`: must be 1 to 8",
        ),
        (
            &["model.device=cpu,auto"],
            "`model.device` is `cpu,auto`: must be one device, or several of `cuda:<number>`",
        ),
        (
            &["model.device="],
            "`model.device` is ``: must be one device, or several of `cuda:<number>`",
        ),
        #[cfg(feature = "cuda")]
        (
            &["model.device=cuda:1,cuda:1"],
            "`model.device` is `cuda:1,cuda:1`: must name no device twice; `model.workers_per_device` \
             sets how many batches one is given",
        ),
        #[cfg(not(feature = "cuda"))]
        (
            &["model.device=cuda:0,cuda:1"],
            "`model.device` is `cuda:0,cuda:1`: needs a program that was built with the feature `cuda`; \
             set `auto` or `cpu`",
        ),
        (
            &["output.results_topic=line1.cam.top"],
            "`output.results_topic` is `line1.cam.top`: must not be among the topics that are read",
        ),
        (
            &[
                "input.topics=",
                "input.topic_regex=^line1",
                "output.dead_letter_topic=line1.dead",
            ],
            "`output.dead_letter_topic` is `line1.dead`: must not be among the topics that are read",
        ),
        (
            &["output.results_topic=x", "output.dead_letter_topic=x"],
            "`output.dead_letter_topic` is `x`: must differ from `output.results_topic`",
        ),
        (
            &["bus.group_id=x", "output.dead_letter_topic=x-closed-parts"],
            "`output.closed_parts_topic` is `x-closed-parts`: must differ from \
             `output.results_topic` and `output.dead_letter_topic`",
        ),
        (
            &["limits.max_bytes=100MB"],
            "`limits.max_bytes` is `95.4 MiB`: must be at least 1048576 bytes below the property `receive.message.max.bytes` (100000000), or such records are never received",
        ),
        (
            &["watchdog.stall_after=1s", "output.delivery=at_least_once"],
            "`watchdog.stall_after` is `1s`: must be at least 5s",
        ),
        (
            &["watchdog.stall_after=12s"],
            "`watchdog.stall_after` is `12s`: must be longer than `output.transactions.timeout` (15s)",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "output.transactions.timeout=500ms",
            ],
            "`output.transactions.timeout` is `500ms`: must be at least 1s",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "output.transactions.timeout=3m",
                "watchdog.stall_after=10m",
            ],
            "`bus.properties.max.poll.interval.ms` is `5m`: must be longer than 19s and twice `output.transactions.timeout` (3m): an assignment may wait so long for brokers",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "output.transactions.interval=8s",
            ],
            "`output.transactions.interval` is `8s`: must be shorter than half of `output.transactions.timeout` (15s)",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "output.transactions.max_records=0",
            ],
            "`output.transactions.max_records` is `0`: must be at least 1",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "bus.properties.message.timeout.ms=60000",
            ],
            "`bus.properties.message.timeout.ms` is `60000`: must be at most `output.transactions.timeout` (15s)",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "bus.properties.isolation.level=read_uncommitted",
            ],
            "`bus.properties.isolation.level` is `read_uncommitted`: must be `read_committed` under `exactly_once`: it also decides how committed offsets are read",
        ),
        (
            &["output.max_message_bytes=1kB"],
            "`output.max_message_bytes` is `1000 B`: must be at least 10000 bytes",
        ),
        (
            &["bus.properties.message.max.bytes=500000"],
            "`output.max_message_bytes` is `976.6 KiB`: must be at most the property `message.max.bytes` (500000)",
        ),
        (
            &["output.maps.side=4"],
            "`output.maps.side` is `4`: must be from 8 to 1024",
        ),
        (
            &["telemetry.log_level=panoptes=loud"],
            "`telemetry.log_level` is `panoptes=loud`: must be `error`, `warn`, `info`, `debug`, `trace` or \
             `tracing` directives such as `info,panoptes=debug`",
        ),
    ];
    for (overrides, expected) in cases {
        assert_eq!(&problem_of(overrides), expected, "{overrides:?}");
    }
}

#[test]
fn times_that_bound_each_other_are_named_in_pairs() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["bus.properties.heartbeat.interval.ms=45000"],
            "`bus.properties.heartbeat.interval.ms` is `45s`: must be shorter than `bus.properties.session.timeout.ms` (45s): the session ends without one",
        ),
        (
            &["bus.properties.session.timeout.ms=3000"],
            "`bus.properties.heartbeat.interval.ms` is `3s`: must be shorter than `bus.properties.session.timeout.ms` (3s): the session ends without one",
        ),
        (
            &["bus.properties.session.timeout.ms=300001"],
            "`bus.properties.session.timeout.ms` is `5m 1ms`: must be at most `bus.properties.max.poll.interval.ms` (5m)",
        ),
        (
            &[
                "bus.properties.session.timeout.ms=60001",
                "bus.properties.max.poll.interval.ms=60000",
            ],
            "`bus.properties.session.timeout.ms` is `1m 1ms`: must be at most `bus.properties.max.poll.interval.ms` (1m)",
        ),
        (
            &[
                "bus.drain_timeout=1m",
                "bus.properties.max.poll.interval.ms=60000",
            ],
            "`bus.drain_timeout` is `1m`: must be shorter than `bus.properties.max.poll.interval.ms` (1m): the group goes on without an instance that does not poll for so long",
        ),
        (
            &["bus.properties.max.poll.interval.ms=49000"],
            "`bus.properties.max.poll.interval.ms` is `49s`: must be longer than 19s and twice `output.transactions.timeout` (15s): an assignment may wait so long for brokers",
        ),
        (
            &[
                "output.delivery=at_least_once",
                "bus.drain_timeout=10s",
                "bus.properties.session.timeout.ms=19000",
                "bus.properties.max.poll.interval.ms=19000",
            ],
            "`bus.properties.max.poll.interval.ms` is `19s`: must be longer than 19s: an assignment may wait so long for brokers",
        ),
        (
            &["bus.drain_timeout=100ms"],
            "`output.transactions.interval` is `100ms`: must be shorter than `bus.drain_timeout` (100ms): what is in flight when partitions are given up goes out with the next one",
        ),
    ];
    for (overrides, expected) in cases {
        assert_eq!(&problem_of(overrides), expected, "{overrides:?}");
    }
}

#[test]
fn the_protocol_of_the_group_says_what_may_be_set_beside_it() {
    let protocol = "bus.properties.group.protocol=consumer";
    let cases: &[(&[&str], &str)] = &[
        (
            &["bus.properties.group.protocol=eager"],
            "`bus.properties.group.protocol` is `eager`: must be `classic` or `consumer`",
        ),
        (
            &["bus.properties.group.remote.assignor=range"],
            "`bus.properties.group.remote.assignor` is `range`: is for `bus.properties.group.protocol` `consumer` only",
        ),
        (
            &[protocol, "bus.properties.group.remote.assignor=uniform"],
            "`bus.properties.group.remote.assignor` is `uniform`: must be `range`, under which alone the views of a part meet",
        ),
        (
            &[protocol, "bus.properties.session.timeout.ms=6000"],
            "`bus.properties.session.timeout.ms` is `6000`: is not free to set with `bus.properties.group.protocol` `consumer`: the brokers' `group.consumer.session.timeout.ms` is in force",
        ),
        (
            &[protocol, "bus.properties.heartbeat.interval.ms=500"],
            "`bus.properties.heartbeat.interval.ms` is `500`: is not free to set with `bus.properties.group.protocol` `consumer`: the brokers' `group.consumer.heartbeat.interval.ms` is in force",
        ),
    ];
    for (overrides, expected) in cases {
        assert_eq!(&problem_of(overrides), expected, "{overrides:?}");
    }
    for taken in [
        vec!["bus.properties.group.protocol=classic"],
        vec![protocol],
        vec![protocol, "bus.properties.group.remote.assignor=range"],
    ] {
        flags(&taken).load().unwrap();
    }
}

#[test]
fn times_that_just_fit_are_taken() {
    let fits: &[&[&str]] = &[
        &["bus.properties.session.timeout.ms=300000"],
        &["bus.properties.max.poll.interval.ms=50001"],
        &[
            "bus.drain_timeout=59999ms",
            "bus.properties.max.poll.interval.ms=60000",
        ],
        &["output.transactions.timeout=119s"],
    ];
    for overrides in fits {
        flags(overrides).load().unwrap();
    }
}

#[test]
fn warns_of_heartbeats_that_are_too_rare() {
    let warned = |overrides: &[&str]| {
        let warnings = flags(overrides).load().unwrap().warnings();
        let mut of_heartbeats = warnings.into_iter().filter(|one| one.contains("heartbeat"));
        of_heartbeats.next()
    };
    assert_eq!(
        warned(&["bus.properties.heartbeat.interval.ms=15000"]),
        None
    );
    let warning = warned(&["bus.properties.session.timeout.ms=8999"]).unwrap();
    assert!(
        warning.starts_with(
            "`bus.properties.heartbeat.interval.ms` is `3s`, above a third of \
             `bus.properties.session.timeout.ms` (8s 999ms)"
        ),
        "{warning}"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let error = flags(&["model.max_batch=0", "output.maps.side=1", "nonsense=1"])
        .load()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("3 problems in the settings:\n  `nonsense`"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn warns_of_dead_letters_that_cannot_be_whole() {
    let warnings = flags(&["input.topics=a.top"]).load().unwrap().warnings();
    assert!(warnings[0].contains("limits.max_bytes"), "{warnings:?}");
    let roomy = flags(&["input.topics=a.top", "output.max_message_bytes=17MiB"]);
    assert!(roomy.load().unwrap().warnings().is_empty());
}

#[test]
fn an_escaped_backslash_is_no_class() {
    let settings = flags(&["input.topics=", "input.topic_regex=^line1\\.cam\\\\d\\(?"]);
    settings.load().unwrap();
}

"""Panoptes and the Python consumer on the same broker, parts and weights, in turns.

    compare.py --brokers B --panoptes BINARY --bundle DIR --network FILE --images DIR [--parts N] [--rounds R]

First each reads the same backlog, `--rounds` times: parts a second, CPU seconds a part and peak memory, counted
from the tenth part of the results on. Then each gets the same open-loop load, half of what the slower one
can take: latency from the append of a part's last view to its result. Both publish at least once, both may use
all cores. What they say of each part is held against each other.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgpack
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

VIEWS = ["top", "left", "right", "front", "back"]
PARTITIONS = 4
PATIENCE_S = 120
LATENCY_WARM_UP_S, LATENCY_S = 5, 25
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Bus:
    def __init__(self, brokers):
        self.brokers, self.name = brokers, f"panoptes-peer.{os.getpid()}"
        self.admin = AdminClient({"bootstrap.servers": brokers})
        self.producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, "partitioner": "murmur2_random"})
        self.created = []

    def topic(self, name):
        topic = f"{self.name}.{name}"
        new = NewTopic(topic, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
        self.admin.create_topics([new])[topic].result()
        self.created.append(topic)
        return topic

    def cameras(self, name):
        return [self.topic(f"{name}.{view}") for view in VIEWS]

    def send(self, cameras, part, class_name, images, delivered):
        headers = [("content-type", "image/jpeg"), ("class", class_name)]
        for camera, view in zip(cameras, VIEWS):
            self.producer.produce(
                camera, images[view], part, headers=headers, on_delivery=lambda error, message: delivered(part, error, message)
            )

    def close(self):
        for future in self.admin.delete_topics(self.created).values():
            future.result()


class Results:
    """The results of one contestant, each part once."""

    def __init__(self, bus, topic):
        self.consumer = Consumer({
            "bootstrap.servers": bus.brokers,
            "group.id": f"{topic}.reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        })
        self.consumer.subscribe([topic])
        self.found = {}

    def poll(self, timeout):
        for message in self.consumer.consume(100, timeout=timeout):
            if message.error() is None:
                result = msgpack.unpackb(message.value())
                if result["part_id"] in self.found:
                    sys.exit(f"compare: expected one result a part, found another of `{result['part_id']}`")
                self.found[result["part_id"]] = (time.time(), result)
        return len(self.found)


class Contestant:
    def __init__(self, name, command):
        self.name, self.command = name, command

    def start(self, bus, cameras, results, group):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command(bus, cameras, results, group), stdout=self.log, stderr=self.log)

    def check(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            sys.exit(f"compare: {self.name} ended: {self.log.read().decode()[-2000:]}")

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def peak_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def panoptes(binary, bundle, folder):
    def command(bus, cameras, results, group):
        config = Path(folder) / f"{group}.toml"
        config.write_text(f"""
[bus]
brokers = "{bus.brokers}"
group_id = "{group}"
[input]
topics = {json.dumps(cameras)}
line = "bench"
[views]
default = {json.dumps(VIEWS)}
[model]
path = "{bundle}"
[output]
results_topic = "{results}"
dead_letter_topic = "{results}.dead-letters"
delivery = "at_least_once"
[admin]
listen = "127.0.0.1:0"
""")
        return [binary, "run", "--config", str(config)]

    return command


def python(bundle, network):
    here = Path(__file__).parent

    def command(bus, cameras, results, group):
        return [
            sys.executable, str(here / "consumer.py"), "--brokers", bus.brokers, "--group", group, "--topics",
            ",".join(cameras), "--results", results, "--bundle", bundle, "--network", network,
        ]

    return command


def read_images(folder):
    parts = []
    for part in sorted(Path(folder).glob("*/*")):
        parts.append((part.parent.name, {view: (part / f"{view}.jpg").read_bytes() for view in VIEWS}))
    return parts


def backlog_round(bus, contestant, cameras, number, parts):
    """From the tenth part of the results on: parts a second, CPU seconds a part; and the peak of memory."""
    topic = bus.topic(f"results.{contestant.name}.{number}")
    bus.topic(f"results.{contestant.name}.{number}.dead-letters")
    results = Results(bus, topic)
    contestant.start(bus, cameras, topic, f"{bus.name}.{contestant.name}.{number}")
    began, progress = None, time.time()
    count = 0
    while count < parts:
        contestant.check()
        before, count = count, results.poll(0.05)
        if count > before:
            progress = time.time()
        if time.time() - progress > PATIENCE_S:
            sys.exit(f"compare: {contestant.name} gave `{count}` of `{parts}` results, then none for {PATIENCE_S} s")
        if began is None and count >= max(parts // 10, 1):
            began = (time.time(), contestant.cpu_seconds(), count)
    ended, cpu = time.time(), contestant.cpu_seconds()
    peak = contestant.peak_mib()
    contestant.stop()
    share = max(parts - began[2], 1)
    figures = {
        "parts_per_second": share / (ended - began[0]),
        "cpu_s_per_part": (cpu - began[1]) / share,
        "peak_mib": peak,
    }
    return figures, {part: result for part, (_, result) in results.found.items()}


def latency_round(bus, contestant, images, rate, number):
    """Milliseconds from the append of each part's last view to its result, under an open-loop load."""
    cameras = bus.cameras(f"live.{contestant.name}.{number}.cam")
    topic = bus.topic(f"live.{contestant.name}.{number}.results")
    bus.topic(f"live.{contestant.name}.{number}.results.dead-letters")
    results = Results(bus, topic)
    contestant.start(bus, cameras, topic, f"{bus.name}.live.{contestant.name}.{number}")
    appended = {}

    def delivered(part, error, message):
        if error is not None:
            sys.exit(f"compare: failed to send part `{part}`: {error}")
        appended[part] = max(appended.get(part, 0), message.timestamp()[1] / 1000)

    bus.send(cameras, "warm-up", images[0][0], images[0][1], delivered)
    waited = time.time()
    while results.poll(0.05) < 1:
        bus.producer.poll(0)
        contestant.check()
        if time.time() - waited > PATIENCE_S:
            sys.exit(f"compare: {contestant.name} gave no result for {PATIENCE_S} s")
    # The schedule is fixed: a part is due whatever became of those before.
    count = int(rate * (LATENCY_WARM_UP_S + LATENCY_S))
    start, sent, progress = time.time(), 0, time.time()
    while len(results.found) < count + 1:
        while sent < count and time.time() >= start + sent / rate:
            class_name, views = images[sent % len(images)]
            bus.send(cameras, f"part-{sent:06}", class_name, views, delivered)
            sent += 1
        bus.producer.poll(0)
        before = len(results.found)
        if results.poll(0.002) > before or sent < count:
            progress = time.time()
        contestant.check()
        if time.time() - progress > PATIENCE_S:
            sys.exit(f"compare: {contestant.name} stands still at `{len(results.found)}` of `{count + 1}` results")
    bus.producer.flush(30)
    contestant.stop()
    counted = [f"part-{part:06}" for part in range(int(rate * LATENCY_WARM_UP_S), count)]
    return [(results.found[part][0] - appended[part]) * 1000 for part in counted]


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def agreement(ours, theirs):
    """The largest difference of two scores of a part, and how many decisions differ."""
    largest = max(abs(ours[part]["score"] - theirs[part]["score"]) for part in ours)
    different = sum(ours[part]["decision"] != theirs[part]["decision"] for part in ours)
    if largest > 0.01:
        sys.exit(f"compare: expected the same scores but for 0.01, found them to differ by {largest}")
    return {"largest_score_difference": largest, "different_decisions": different, "parts": len(ours)}


def compare(bus, contestants, images, arguments):
    cameras = bus.cameras("cam")
    for part in range(arguments.parts):
        class_name, views = images[part % len(images)]
        bus.send(cameras, f"part-{part:06}", class_name, views, lambda *_: None)
        bus.producer.poll(0)
    bus.producer.flush(60)
    rounds = {contestant.name: [] for contestant in contestants}
    answers = {}
    for number in range(arguments.rounds):
        for contestant in contestants:
            figures, answers[contestant.name] = backlog_round(bus, contestant, cameras, number, arguments.parts)
            rounds[contestant.name].append(figures)
            print(f"{contestant.name}: {figures}", file=sys.stderr)
    table = {
        name: {key: statistics.median(figures[key] for figures in of) for key in of[0]} for name, of in rounds.items()
    }
    rate = min(of["parts_per_second"] for of in table.values()) / 2
    latencies = {contestant.name: [] for contestant in contestants}
    for number in range(arguments.latency_rounds):
        for contestant in contestants:
            latencies[contestant.name] += latency_round(bus, contestant, images, rate, number)
    for name, of in latencies.items():
        table[name] |= {f"p{share}_ms": quantile(of, share / 100) for share in (50, 95, 99) if of}
    return {
        "contestants": table,
        "latency_load_parts_per_second": rate,
        "agreement": agreement(answers["panoptes"], answers["python"]),
        "parts": arguments.parts,
        "rounds": arguments.rounds,
        "cores": os.cpu_count(),
    }


def main():
    parser = argparse.ArgumentParser()
    for name in ("brokers", "panoptes", "bundle", "network", "images"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--parts", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-rounds", type=int, default=1)
    parser.add_argument("--save")
    arguments = parser.parse_args()
    bus, images = Bus(arguments.brokers), read_images(arguments.images)
    with tempfile.TemporaryDirectory() as folder:
        contestants = [
            Contestant("panoptes", panoptes(arguments.panoptes, arguments.bundle, folder)),
            Contestant("python", python(arguments.bundle, arguments.network)),
        ]
        try:
            report = compare(bus, contestants, images, arguments)
        finally:
            for contestant in contestants:
                if getattr(contestant, "process", None) and contestant.process.poll() is None:
                    contestant.process.kill()
            bus.close()
    if arguments.save:
        Path(arguments.save).write_text(json.dumps(report, indent=2))
    columns = list(report["contestants"]["panoptes"])
    print(f"{'':>10}  " + "  ".join(f"{column:>16}" for column in columns))
    for name, figures in report["contestants"].items():
        print(f"{name:>10}  " + "  ".join(f"{figures[column]:>16.3f}" for column in columns))
    print(f"latency at {report['latency_load_parts_per_second']:.2f} parts a second; {report['agreement']}")


if __name__ == "__main__":
    main()

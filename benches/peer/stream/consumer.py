"""What a good engineer would write instead: one process that gathers, scores and publishes parts.

    consumer.py --brokers B --group G --topics T,T,... --results R --bundle DIR --network FILE

A dict holds the views of the parts that are not complete. Results are published at least once: offsets are
committed once the brokers have the results of all parts that had records below them. Parts that never
become complete are published as they are after a timeout.
"""

import argparse
import signal
import time

import msgpack
from confluent_kafka import Consumer, Producer, TopicPartition

from scorer import Scorer

TIMEOUT_S = 5
COMMIT_INTERVAL_S = 1
# A part at a time: with more ONNX Runtime takes twice the memory and is a fifth slower on this network.
MOST_PARTS = 1


class Group:
    def __init__(self, part, now):
        self.part, self.opened = part, now
        self.class_name, self.views, self.records = None, {}, []


class Pipeline:
    def __init__(self, arguments):
        self.arguments = arguments
        self.views = [topic.rsplit(".", 1)[-1] for topic in arguments.topics]
        self.scorer = Scorer(arguments.bundle, arguments.network, arguments.threads)
        self.groups, self.positions, self.unfinished = {}, {}, {}
        self.consumer = Consumer({
            "bootstrap.servers": arguments.brokers,
            "group.id": arguments.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "partition.assignment.strategy": "range",
        })
        self.producer = Producer({"bootstrap.servers": arguments.brokers, "enable.idempotence": True, "linger.ms": 5})
        self.consumer.subscribe(arguments.topics)
        self.is_running = True

    def run(self):
        committed = time.monotonic()
        ready = []
        while self.is_running:
            # With work at hand only what is there already is taken.
            for message in self.consumer.consume(64, timeout=0 if ready else 0.02):
                if message.error() is None:
                    ready += self.take(message)
            now = time.monotonic()
            ready += self.overdue(now)
            if ready:
                self.publish(ready[:MOST_PARTS])
                ready = ready[MOST_PARTS:]
            self.producer.poll(0)
            if now - committed > COMMIT_INTERVAL_S:
                self.commit()
                committed = now
        self.producer.flush(30)
        self.commit()
        self.consumer.close()

    def take(self, message):
        partition = (message.topic(), message.partition())
        self.positions[partition] = message.offset() + 1
        self.unfinished.setdefault(partition, set()).add(message.offset())
        headers = dict(message.headers() or [])
        part = message.key().decode()
        group = self.groups.get(part)
        if group is None:
            group = self.groups[part] = Group(part, time.monotonic())
        group.class_name = group.class_name or headers.get("class", b"").decode()
        group.records.append((partition, message.offset()))
        view = message.topic().rsplit(".", 1)[-1]
        group.views.setdefault(view, (self.scorer.prepare(message.value()), message))
        if len(group.views) < len(self.views):
            return []
        del self.groups[part]
        return [group]

    def overdue(self, now):
        late = [group for group in self.groups.values() if now - group.opened > TIMEOUT_S]
        for group in late:
            del self.groups[group.part]
        return late

    def publish(self, groups):
        images, subjects = [], []
        for group in groups:
            for view, (prepared, _) in group.views.items():
                if prepared is not None:
                    images.append(prepared[0])
                    subjects.append(f"{group.class_name}/{view}")
        maps = iter(self.scorer.maps(images, subjects)) if images else iter(())
        scored_at = int(time.time() * 1000)
        for group in groups:
            self.produce(group, self.result(group, maps, scored_at))

    def result(self, group, maps, scored_at):
        views, times = [], []
        for view in self.views:
            prepared, message = group.views.get(view, (None, None))
            if message is None:
                views.append({"view": view, "status": "missing"})
                continue
            times.append(message.timestamp()[1])
            source = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
            judged = {"status": "failed"} if prepared is None else {}
            views.append({"view": view, "source": source, "captured_at": times[-1], **judged})
        # Maps come in the order in which the views came.
        for view, (prepared, _) in group.views.items():
            if prepared is not None:
                entry = next(entry for entry in views if entry["view"] == view)
                entry.update(self.scorer.view(next(maps), group.class_name, prepared[1]))
        scores = [view["score"] for view in views if "score" in view]
        score = max(scores, default=None)
        threshold = self.scorer.threshold(group.class_name)
        is_partial = len(scores) < len(self.views)
        if score is not None and threshold is not None and score >= threshold:
            decision = "ng"
        else:
            decision = "review" if is_partial or threshold is None else "ok"
        return {
            "schema_version": 1,
            "part_id": group.part,
            "line": "bench",
            "class": group.class_name,
            "decision": decision,
            "score": score,
            "threshold": threshold,
            "is_partial": is_partial,
            "views": views,
            "timing": {"first_view_at": min(times), "last_view_at": max(times), "scored_at": scored_at},
        }

    def produce(self, group, result):
        headers = [("content-type", "application/msgpack"), ("decision", result["decision"])]

        def finish(error, _):
            if error is None:
                for partition, offset in group.records:
                    self.unfinished[partition].discard(offset)

        self.producer.produce(
            self.arguments.results, msgpack.packb(result), group.part, headers=headers, on_delivery=finish
        )

    def commit(self):
        offsets = [
            TopicPartition(topic, number, min(self.unfinished[topic, number], default=position))
            for (topic, number), position in self.positions.items()
        ]
        if offsets:
            self.consumer.commit(offsets=offsets, asynchronous=True)

    def stop(self, *_):
        self.is_running = False


def main():
    parser = argparse.ArgumentParser()
    for name in ("brokers", "group", "results", "bundle", "network"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--topics", required=True, type=lambda text: text.split(","))
    parser.add_argument("--threads", type=int, default=0)
    pipeline = Pipeline(parser.parse_args())
    signal.signal(signal.SIGTERM, pipeline.stop)
    pipeline.run()


if __name__ == "__main__":
    main()

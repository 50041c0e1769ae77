"""How fast a replay is, beside the model and beside the broker.

    replay.py --brokers B --panoptes BINARY --bundle DIR --work FOLDER --save FILE [--model-parts N] [--small-parts N]
              [--view-bytes BYTES] [--rounds R]

With the model: rendered parts are published, and replayed in each round twice, once whole and once with a SIGKILL in
the midst of it, after which the same command goes on. The model alone is measured before and after each. A replay
counts from the assignment of its partitions to its end; one that was killed without the time that its group takes to
miss the dead process. Each part must then have one result, and the same from both. Of that time, on Linux, goes to the
model what its threads ran (`model_share_of_time`): where the model goes no slower for being in a replay, that is the
share of its rate, without the machine's moods between one measurement and the next.

Without a model: `panoptes bench pipeline --replay`, and `scripts/consumer-perf` on the same topics after each round.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from datetime import datetime
from pathlib import Path

CLASSES = ["bolt", "gear", "bushing", "bracket", "cap", "bearing"]
VIEWS = ["top", "left", "right", "front", "back"]
PARTITIONS = 4
SEED = 910_000
# The views of six parts: as many as the pipeline puts in a batch.
BATCH = 30
# After so long a group misses a process that was killed.
SESSION_MS = 6_000
# The model alone moves by some per cent from one short run to the next.
ALONE_SECONDS = 20


def run(command):
    output = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE)
    if output.returncode != 0:
        sys.exit(f"bench-replay: `{' '.join(map(str, command))}` ended with {output.returncode}")
    return output.stdout


class Line:
    """Topics with rendered parts, and the settings of the line that would score them live."""

    def __init__(self, arguments):
        self.arguments, self.name = arguments, f"bench-replay.{os.getpid()}"
        self.parts = -(-arguments.model_parts // len(CLASSES)) * len(CLASSES)
        work = Path(arguments.work)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        run([
            arguments.panoptes, "synth", "--out", work / "parts", "--classes", ",".join(CLASSES),
            "--parts-per-class", self.parts // len(CLASSES), "--defective-share", 0.25, "--seed", SEED,
        ])
        run([
            arguments.panoptes, "produce", work / "parts/images", "--brokers", arguments.brokers,
            "--topic-prefix", f"{self.name}.cam.", "--create-topics", PARTITIONS,
        ])
        self.config = work / "panoptes.toml"
        topics = [f"{self.name}.cam.{view}" for view in VIEWS]
        sections = {
            "bus": {"brokers": arguments.brokers, "group_id": self.name},
            "bus.properties": {"session.timeout.ms": str(SESSION_MS), "heartbeat.interval.ms": "500"},
            "input": {"topics": topics, "line": "bench"},
            "views": {"default": VIEWS},
            "model": {"path": str(Path(arguments.bundle).resolve())},
            "output": {
                "results_topic": f"{self.name}.results", "dead_letter_topic": f"{self.name}.dead-letters",
            },
            "telemetry": {"log_format": "json"},
        }
        lines = []
        for section, settings in sections.items():
            # TOML writes texts and lists of texts as JSON does.
            lines += [f"[{section}]"] + [f'"{key}" = {json.dumps(value)}' for key, value in settings.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def replay(self, job, kill_at=None):
        """From the assignment to the end, or to the kill when a share `kill_at` of all offsets is done: seconds, and
        those that the threads of the model ran, divided by their number."""
        process = subprocess.Popen(
            [
                self.arguments.panoptes, "replay", "--config", self.config, "--job", f"{self.name}.{job}",
                "--results-topic", self.results(job), "--no-report", "--progress-interval", "100ms",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        assigned = ended = None
        ran_before = ran = 0
        for line in process.stderr:
            told = json.loads(line)
            if told.get("message") == "partitions assigned" and not assigned:
                assigned = datetime.fromisoformat(told["timestamp"]).timestamp()
                ran_before = model_seconds(process.pid)
            if "offsets_done" not in told:
                continue
            is_to_be_killed = kill_at and told["offsets_done"] >= kill_at * (told["offsets_done"] + told["offsets_left"])
            if told["is_complete"] or is_to_be_killed:
                ended, ran = told["time"] / 1e3, model_seconds(process.pid)
            if is_to_be_killed:
                process.send_signal(signal.SIGKILL)
                break
        code = process.wait()
        if code != (-signal.SIGKILL if kill_at else 0):
            sys.exit(f"bench-replay: job `{job}` ended with {code}")
        return ended - assigned, ran - ran_before

    def results(self, job):
        return f"{self.name}.results.{job}"

    def check(self, whole, killed):
        """Each part has one result in both, and the same."""
        compared = json.loads(run([
            self.arguments.panoptes, "compare", self.results(whole), self.results(killed),
            "--brokers", self.arguments.brokers, "--pictures", 0, "--json",
        ]))
        found = {key: compared[key] for key in ("joined", "flipped")}
        for side in ("a", "b"):
            found[f"results_{side}"] = sum(compared[side]["decisions"].values())
            found[f"repeated_{side}"] = compared[side]["repeated"]["count"]
        wanted = {"joined": self.parts, "flipped": 0}
        wanted |= {f"results_{side}": self.parts for side in "ab"} | {f"repeated_{side}": 0 for side in "ab"}
        if found != wanted:
            sys.exit(f"bench-replay: expected {wanted}, found {found}")


def model_seconds(process):
    """What the threads of a process that are the model's have run, divided by their number."""
    ran = []
    for thread in Path(f"/proc/{process}/task").glob("*/stat"):
        name, fields = thread.read_text().split("(", 1)[1].rsplit(")", 1)
        if name.startswith("model-"):
            ran.append(sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK"))
    return sum(ran) / max(len(ran), 1)


def model_alone(arguments):
    rows = json.loads(run([
        arguments.panoptes, "bench", "--json", "model", "--model", arguments.bundle, "--batch", BATCH,
        "--duration", f"{ALONE_SECONDS}s",
    ]))["rows"]
    return rows[0]["images_per_second"] / len(VIEWS)


def with_model(arguments):
    line, rows = Line(arguments), []
    for number in range(arguments.rounds):
        alone = [model_alone(arguments)]
        for what in ("whole", "killed"):
            job = f"{what}-{number}"
            runs = [line.replay(job, kill_at=0.5)] if what == "killed" else []
            runs.append(line.replay(job))
            seconds, model_ran = map(sum, zip(*runs))
            alone.append(model_alone(arguments))
            beside = statistics.mean(alone[-2:])
            rate = line.parts / seconds
            rows.append({
                "round": number + 1, "replay": what, "parts": line.parts, "seconds": seconds, "parts_per_second": rate,
                "model_alone_parts_per_second": beside, "share_of_model_alone": rate / beside,
                "model_share_of_time": model_ran / seconds,
            })
        line.check(f"whole-{number}", f"killed-{number}")
    return rows


def without_model(arguments):
    bench = json.loads(run([
        arguments.panoptes, "bench", "--json", "pipeline", "--replay", "--brokers", arguments.brokers,
        "--parts", arguments.small_parts, "--view-bytes", f"{arguments.view_bytes}B", "--rounds", arguments.rounds,
        "--beside", "scripts/consumer-perf",
    ]))
    rows = []
    for row in bench["rows"]:
        # In all, and without the time to join a group.
        _, beside = map(float, row["beside"].split())
        rows.append({
            "round": row["round"], "parts": arguments.small_parts, "records_per_second": row["records_per_second"],
            "mb_per_second": row["mb_per_second"], "consumer_perf_records_per_second": beside * 1e6 / arguments.view_bytes,
            "consumer_perf_mb_per_second": beside, "share_of_consumer_perf": row["mb_per_second"] / beside,
        })
    return rows


def table(rows):
    show = lambda value: f"{value:.3g}" if isinstance(value, float) and value < 100 else f"{value:.0f}"  # noqa: E731
    lines = [list(rows[0])] + [[v if isinstance(v, str) else show(v) for v in row.values()] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths)))
    print(flush=True)


def main():
    parser = argparse.ArgumentParser()
    for name in ("brokers", "panoptes", "bundle", "work", "save"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model-parts", type=int, default=500)
    parser.add_argument("--small-parts", type=int, default=20_000)
    parser.add_argument("--view-bytes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    figures = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    for name, parts, measure in [
        ("with_model", arguments.model_parts, with_model), ("without_model", arguments.small_parts, without_model),
    ]:
        if parts:
            figures[name] = measure(arguments)
            table(figures[name])
    Path(arguments.save).write_text(json.dumps(figures, indent=2))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""How cost grows: runs `panoptes bench` for each value of one quantity at a time, keeps the figures and draws them.

    growth.py --panoptes BINARY --brokers B --bundle DIR --out FOLDER [CURVE ...]

Curves: views, view-bytes, batch, cores, open-parts, instances. Each writes `<curve>.json` and `<curve>.png` to FOLDER.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402: the drawing must be told first that there is no screen

VIEWS_OF_A_BACKLOG = 40_000
BYTES_OF_A_BACKLOG = 1_000_000_000


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments

    def run(self, *words, cores=None):
        command = [self.arguments.panoptes, "bench", "--json", *map(str, words)]
        if cores:
            command = ["taskset", "--cpu-list", f"0-{cores - 1}", *command]
        output = subprocess.run(command, stdout=subprocess.PIPE)
        if output.returncode != 0:
            sys.exit(f"growth: `{' '.join(command)}` ended with {output.returncode}")
        return json.loads(output.stdout)["rows"]

    def pipeline(self, views, view_bytes, cores=None):
        views_all = min(VIEWS_OF_A_BACKLOG, BYTES_OF_A_BACKLOG // view_bytes)
        rows = self.run(
            "pipeline", "--brokers", self.arguments.brokers, "--views", views, "--view-bytes", f"{view_bytes}B",
            "--parts", max(views_all // views, 20), "--rounds", 3, cores=cores,
        )
        rate = statistics.median(row["parts_per_second"] for row in rows)
        return {
            "parts_per_second": rate,
            "views_per_second": rate * views,
            "mb_per_second": rate * views * view_bytes / 1e6,
            "peak_resident_mib": max(row["peak_resident_mib"] for row in rows),
        }

    def instances(self, count):
        # A stand-in that sleeps: what instances cost each other is to be seen, not how many cores there are.
        rows = self.run(
            "pipeline", "--brokers", self.arguments.brokers, "--instances", count, "--model-time", "4ms",
            "--view-bytes", "1KB", "--parts", 1_000,
        )
        return {key: statistics.median(row[key] for row in rows) for key in ("parts_per_second", "peak_resident_mib")}

    def model(self, batch, cores=None):
        rows = self.run("model", "--model", self.arguments.bundle, "--batch", batch, "--duration", "5s", cores=cores)
        return {"images_per_second": rows[0]["images_per_second"], "batch_ms": rows[0]["batch_ms_median"]}

    def open_parts(self, count):
        # Two views of few bytes: what is kept of a part is what grows.
        rows = self.run(
            "reassembly", "--open", count, "--parts", max(4 * count, 50_000), "--views", 2, "--view-bytes", "64B",
            "--takt", "0ms",
        )
        return {
            "views_per_second": statistics.median(row["views_per_second"] for row in rows),
            "resident_mib": max(row["resident_mib"] for row in rows),
        }


def curves(bench):
    cores = range(1, (os.cpu_count() or 1) + 1)
    return {
        "views": ("views of a part", [1, 2, 4, 8, 16, 32], lambda views: bench.pipeline(views, 20_000)),
        "view-bytes": (
            "bytes of a view", [1_000, 10_000, 100_000, 1_000_000, 4_000_000], lambda size: bench.pipeline(5, size),
        ),
        "batch": ("images of a batch", [1, 2, 5, 10, 20, 30, 60], bench.model),
        "cores": (
            "cores", list(cores), lambda count: bench.pipeline(5, 100_000, cores=count) | bench.model(30, cores=count),
        ),
        "instances": ("instances of a group", [1, 2, 4], bench.instances),
        "open-parts": ("open parts", [100, 1_000, 10_000, 100_000, 1_000_000], bench.open_parts),
    }


def draw(name, label, points, folder):
    quantities = [key for key in points[0] if key != "value"]
    figure, axes = pyplot.subplots(1, len(quantities), figsize=(4 * len(quantities), 3), squeeze=False)
    values = [point["value"] for point in points]
    for axis, quantity in zip(axes[0], quantities):
        axis.plot(values, [point[quantity] for point in points], marker="o")
        if values[-1] > 20 * values[0]:
            axis.set_xscale("log")
        axis.set(xlabel=label, title=quantity.replace("_", " "))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png", dpi=100)


def main():
    parser = argparse.ArgumentParser()
    for name in ("panoptes", "brokers", "bundle", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("curves", nargs="*")
    arguments = parser.parse_args()
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    known = curves(Bench(arguments))
    unknown = [name for name in arguments.curves if name not in known]
    if unknown:
        sys.exit(f"growth: expected curves of `{', '.join(known)}`, found `{', '.join(unknown)}`")
    for name in arguments.curves or known:
        label, values, measure = known[name]
        points = []
        for value in values:
            points.append({"value": value, **measure(value)})
            print(name, points[-1], flush=True)
        (folder / f"{name}.json").write_text(json.dumps(points, indent=2))
        draw(name, label, points, folder)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Runs every variant of variants.toml on every set with every seed, and prints the tables. See README.md."""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target/ablation"
RESULTS = HERE / "results.jsonl"
PLAN = tomllib.loads((HERE / "variants.toml").read_text())
TRAIN_SEED, TEST_SEED = 300_000, 400_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder")
    parser.add_argument("--panoptes", default=str(ROOT / "target/release/panoptes"))
    parser.add_argument("--sets", default="synthetic,imbalanced", help="`spindle` needs its --folder")
    parser.add_argument("--variants", default=",".join(PLAN["variants"]))
    parser.add_argument("--seeds", default=",".join(map(str, PLAN["budget"]["seeds"])))
    parser.add_argument("--folder", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print the tables")
    return parser.parse_args()


def done():
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def experiment(options, set_name, variant):
    """What must be equal for two runs to be seeds of one experiment."""
    code = (HERE / "map_figures.py").read_bytes()
    if variant == "anchor":
        code += (HERE / "dinomaly_anchor.py").read_bytes()
    encoder = pathlib.Path(options.encoder).read_bytes()
    plan = [PLAN["budget"] | {"seeds": []}, PLAN["sets"][set_name], PLAN["variants"][variant]]
    return hashlib.sha256(json.dumps(plan).encode() + code + encoder).hexdigest()[:16]


def build(options):
    """The program that trained and scored: rows of one table should come from one."""
    return hashlib.sha256(pathlib.Path(options.panoptes).read_bytes()).hexdigest()[:12]


def quietly(command, log, **environment):
    """One thread for each matrix product."""
    settings = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with open(log, "w") as file:
        subprocess.run(
            [str(word) for word in command],
            check=True,
            stdout=file,
            stderr=file,
            env=os.environ | settings | environment,
        )


def render(options, folder, side, parts, seed, defective):
    command = [options.panoptes, "synth", "--out", folder, "--size", side, "--parts-per-class", parts]
    command += ["--seed", seed, "--defective-share", defective]
    quietly(command, WORK / "render.log", RAYON_NUM_THREADS=str(os.cpu_count()))


def prepared(options, name):
    """The set's folder, rendered once: train/images, test/images, test/masks."""
    given = dict(entry.split("=", 1) for entry in options.folder)
    if name in given:
        return pathlib.Path(given[name])
    plan = PLAN["sets"][name]
    if "parts_per_class" not in plan:
        sys.exit(f"set `{name}`: expected its folder as `--folder {name}=FOLDER`")
    folder, stamp = WORK / name, json.dumps(plan)
    if folder.exists() and (folder / "plan.json").read_text() == stamp:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    unfinished = WORK / f"{name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    counts = plan["parts_per_class"] if isinstance(plan["parts_per_class"], list) else [plan["parts_per_class"]]
    render(options, unfinished / "train", plan["side"], max(counts), TRAIN_SEED, 0.0)
    for index, images in enumerate(sorted((unfinished / "train/images").iterdir())):
        for part in sorted(images.iterdir())[counts[index % len(counts)] :]:
            shutil.rmtree(part)
    render(options, unfinished / "test", plan["side"], plan["test_parts_per_class"], TEST_SEED, 0.5)
    (unfinished / "plan.json").write_text(stamp)
    unfinished.rename(folder)
    return folder


def ours(options, folder, side, changes, seed, run):
    budget = PLAN["budget"]
    recipe = {
        "input.side": side,
        "input.resize": side,
        "input.map_side": side,
        "input.targets": budget["targets"],
        "network.decoder_depth": budget["decoder_depth"],
        "loss.ramp": budget["ramp"],
        "optimiser.warm_up": budget["warm_up"],
        "run.iterations": budget["iterations"],
        "run.batch": budget["batch"],
        "run.micro_batch": budget["batch"],
        "run.seed": seed,
    }
    train = [options.panoptes, "train", "--data", folder / "train/images", "--encoder", options.encoder]
    train += ["--output", run / "model", "--threads", options.threads]
    for change in [f"{key}={value}" for key, value in recipe.items()] + changes:
        train += ["--set", change]
    quietly(train, run / "train.log")
    score = [options.panoptes, "eval", "--model", run / "model", "--data", folder / "test/images"]
    score += ["--masks", folder / "test/masks", "--maps", run / "maps"]
    quietly(score, run / "eval.log")


def anchor(options, folder, side, seed, run):
    budget = PLAN["budget"]
    command = [sys.executable, HERE / "dinomaly_anchor.py", "--train", folder / "train/images"]
    command += ["--test", folder / "test/images", "--encoder", options.encoder, "--output", run / "maps"]
    command += ["--side", side, "--iterations", budget["iterations"], "--batch", budget["batch"]]
    command += ["--decoder-depth", budget["decoder_depth"], "--warm-up", budget["warm_up"], "--ramp", budget["ramp"]]
    command += ["--targets", ",".join(map(str, budget["targets"])), "--seed", seed, "--threads", options.threads]
    quietly(command, run / "train.log")


def measure(options, set_name, variant, seed):
    from map_figures import figures

    folder, plan = prepared(options, set_name), PLAN["sets"][set_name]
    run = WORK / "runs" / f"{set_name}-{variant}-{seed}"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    began = time.monotonic()
    if variant == "anchor":
        anchor(options, folder, plan["side"], seed, run)
    else:
        ours(options, folder, plan["side"], PLAN["variants"][variant], seed, run)
    found = figures(run / "maps", folder / "test/masks", plan["figures"])
    shutil.rmtree(run / "maps")
    shutil.rmtree(run / "model", ignore_errors=True)
    seconds = round(time.monotonic() - began)
    key = {"experiment": experiment(options, set_name, variant), "set": set_name, "variant": variant, "seed": seed}
    if variant != "anchor":
        key["build"] = build(options)
    return key | {"seconds": seconds, "figures": found}


def table(results, set_name):
    """Mean of the seeds and, with more than one, half the distance between the highest and the lowest."""
    rows, newest = {}, {}
    for result in results:
        if result["set"] == set_name:
            newest[result["variant"]] = result["experiment"]
    for result in results:
        if result["set"] == set_name and result["experiment"] == newest[result["variant"]]:
            rows.setdefault(result["variant"], []).append(result["figures"])
    if not rows:
        return ""
    names = list(next(iter(rows.values()))[0])
    lines = [f"| {set_name} | seeds | " + " | ".join(names) + " |", "| --- | --: |" + " --: |" * len(names)]
    for variant in [name for name in PLAN["variants"] if name in rows]:
        runs = rows[variant]
        cells = []
        for name in names:
            values = [run[name] for run in runs]
            spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        lines.append(f"| {variant} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    options = arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    if not options.table:
        if not options.encoder:
            sys.exit("expected `--encoder FILE`")
        for seed in map(int, options.seeds.split(",")):
            for variant in options.variants.split(","):
                for set_name in options.sets.split(","):
                    is_done = (experiment(options, set_name, variant), seed)
                    if any((run["experiment"], run["seed"]) == is_done for run in done()):
                        continue
                    result = measure(options, set_name, variant, seed)
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(result) + "\n")
                    print(json.dumps(result), flush=True)
    for set_name in PLAN["sets"]:
        print(table(done(), set_name))


if __name__ == "__main__":
    main()

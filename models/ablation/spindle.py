#!/usr/bin/env python3
"""Lays BSData's first spindle (github.com/2Obe/BSData, CC BY-SA 4.0) out as `<class>/<part>/<view>`.

    spindle.py FOLDER OUTPUT

FOLDER has `img/` (the photographs), `mask/` (rasterised labels of the same names, PNG) and `manifest.csv` with
the columns cycle, axial_pos, angle_deg, name, pitting. One inspection cycle is a part, one place a view. Cycles
0 to 19 become `train`, 20 to 56 `test`; later ones were cropped otherwise and are left out.
"""
import csv
import pathlib
import shutil
import sys

LAST_TRAIN, LAST_TEST = 19, 56


def main(source, output):
    with open(source / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        cycle = int(row["cycle"])
        if cycle > LAST_TEST:
            continue
        split = "train" if cycle <= LAST_TRAIN else "test"
        part = pathlib.Path("spindle") / f"cycle-{cycle:02}"
        view = f"{row['axial_pos']}-{int(row['angle_deg']):03}"
        name = pathlib.Path(row["name"]).stem
        files = [("images", source / "img" / f"{name}.jpg")]
        if row["pitting"] == "1":
            files.append(("masks", source / "mask" / f"{name}.png"))
        for kind, file in files:
            folder = output / split / kind / part
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / (view + file.suffix))


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:3]))

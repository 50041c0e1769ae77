#!/usr/bin/env bash
# Trains the demo's model anew, by commands of this repository alone, and measures it.
# Everything it makes but the bundle goes to target/demo-model. Some 30 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

work=target/demo-model
mkdir -p "$work"
cargo build --release --locked
panoptes=target/release/panoptes

# Seeds 1000.. train, 70000.. calibrate, 90000.. measure; none of them is shared. `crack` and `burr`
# are held out: no choice was made by them.
$panoptes synth --out "$work/train" --parts-per-class 40 --seed 1000
$panoptes synth --out "$work/calibrate" --parts-per-class 12 --seed 70000
$panoptes synth --out "$work/test" --parts-per-class 28 --seed 90000 --defective-share 0.5 --kinds all

$panoptes pretrain --output "$work/encoder.safetensors" --iterations 700
$panoptes train --data "$work/train/images" --encoder "$work/encoder.safetensors" \
    --output models/demo --name demo --model-version 1 --iterations 250 --warm-up 30
$panoptes calibrate --model models/demo --data "$work/calibrate/images"
$panoptes eval --model models/demo --data "$work/test/images" --masks "$work/test/masks" \
    --kinds "$work/test/truth.csv" --table "$work/figures.md"

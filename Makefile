# Every target does its own set-up on Debian or Ubuntu with Rust: `make demo`, `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help setup test-setup parity-setup demo test soak parity check format clippy rules alerts doc deny fuzz \
	sanitize scaled-jpeg bench bench-decode bench-peer bench-growth bench-replay

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## Install or name the system packages that a build needs
	@scripts/setup

test-setup:
	@scripts/setup test
	@scripts/kafka-fetch
	@scripts/python-fetch
	@scripts/s3-fetch

parity-setup:
	@scripts/setup parity

# Built for this machine's own vector instructions: a fifth more parts a second.
demo: setup ## Watch a simulated line: no Kafka, no data needed
	RUSTFLAGS="-C target-cpu=native" $(CARGO) run --release --locked --target-dir target/native -- demo

test: test-setup ## Run all tests, those on a real Kafka included
	$(CARGO) test --locked --no-fail-fast --features failpoints
	target/python/bin/python -m unittest discover integration-tests/readers

# By itself, for its figures; `PANOPTES_SOAK_TIMES=10` for one that is ten times as long.
soak: test-setup ## Kill, freeze, add and remove instances and brokers for about 12 minutes
	$(CARGO) test --locked --features failpoints --test integration soak -- --ignored --nocapture --test-threads 1

parity: parity-setup ## Hold the model against timm, transformers, Dinomaly, ToST and INP-Former at full size
	@scripts/parity

check: format rules alerts clippy test scaled-jpeg doc deny fuzz ## Run all that CI runs

format:
	$(CARGO) fmt --check

rules:
	@scripts/rules

alerts:
	@scripts/alerts

clippy: setup
	$(CARGO) clippy --locked --all-targets --features failpoints -- -D warnings

doc: setup
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --no-deps

deny:
	@scripts/deny

sanitize: setup ## Run the tests of the model's kernels, where all `unsafe` is, under AddressSanitizer
	@scripts/sanitize

fuzz: setup ## Fuzz all that reads bytes from the bus, briefly (`scripts/fuzz 600` for longer)
	@scripts/fuzz 5

bench: test-setup ## Measure the model, the stages, the bus and the whole pipeline on a real Kafka
	@scripts/bench

scaled-jpeg: setup ## Test decoding JPEG at reduced size, an option of the build
	@scripts/setup scaled-jpeg
	$(CARGO) test --locked --features scaled-jpeg --lib -- decode:: preprocess:: calibrate::

bench-decode: setup parity-setup ## Measure decoding and preparing images, in turns with libjpeg-turbo and OpenCV
	@scripts/bench-decode

bench-peer: test-setup ## Hold Panoptes against a Python consumer with the same weights on the same broker
	@scripts/bench-peer

bench-growth: test-setup ## Measure and draw how cost grows with views, bytes, batch, cores and open parts
	@scripts/bench-growth

bench-replay: test-setup ## Measure replays, killed ones too, beside the model alone and beside Kafka's own consumer
	@scripts/bench-replay

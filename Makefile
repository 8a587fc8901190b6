# `make demo` and `make test` are all that a fresh machine needs; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
export PYTHON

BINARY := $(or $(CARGO_TARGET_DIR),target)/release/sonomask
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
DIST_NAME = sonomask-$(VERSION)-$(shell uname -m)-linux
DEMO_INPUT := data/examples_ybr_color.dcm

# Idle threads of libgomp would spin against the tests that run beside them.
export GOMP_SPINCOUNT ?= 0
# Binaries find libtorch through their rpath, except doctests and a LIBTORCH of one's own.
export LD_LIBRARY_PATH := $(abspath $(or $(LIBTORCH),.libtorch/torch))/lib$(if $(LD_LIBRARY_PATH),:$(LD_LIBRARY_PATH))

.PHONY: help setup build demo test lint bench bench-official baselines dist clean distclean

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo "Options: CUDA=1 (libtorch with CUDA), LIBTORCH=DIR (one of your own), VERIFY=1 (set-up reads every file again),"
	@echo "         OFFICIAL=... (of benches/official/compare.py: --only NAME, --rounds N, --eager; --help lists them)"

setup: ## Install what is missing: system packages, libtorch, weights, demo recording
	@scripts/setup.sh $(if $(filter 1,$(CUDA)),--cuda) $(if $(filter 1,$(VERIFY)),--verify)

build: setup ## Release build: target/release/sonomask (and where libtorch has CUDA the library for CUDA graphs)
	cargo build --locked --release
	@if [ -e $(or $(LIBTORCH),.libtorch/torch)/lib/libtorch_cuda.so ]; then scripts/shim.sh $(dir $(BINARY))libsonomask_cuda.so; else rm -f $(dir $(BINARY))libsonomask_cuda.so; fi

demo: build ## A phantom without any prompt, and a real echo cine-loop with one box, into out/
	@rm -rf out/phantom out/phantom-found && mkdir -p out
	$(BINARY) phantom --output out/phantom.mp4 --truth out/phantom --frames 30 --set phantom.seed=9000
	$(BINARY) process out/phantom.mp4 --config configs/demo-phantom.toml --output out/demo-phantom.mp4 \
		--report out/demo-phantom.json --masks out/phantom-found --contact-sheet out/demo-phantom.png
	@echo
	@echo "The masks that were found without a prompt, against the phantom's truth:"
	$(BINARY) eval --masks out/phantom-found --truth out/phantom
	@echo
	$(BINARY) process $(DEMO_INPUT) --config configs/demo.toml --output out/demo.mp4 \
		--report out/demo.json --contact-sheet out/demo.png
	@echo
	@echo "The demo is in:"
	@for file in out/demo.mp4 out/demo.json out/demo.png out/demo-phantom.mp4 out/demo-phantom.json out/demo-phantom.png; do \
		test -s $$file || { echo "error: the run left no $$file" >&2; exit 1; }; \
		printf '  %s (%s bytes)\n' "$(CURDIR)/$$file" "$$(stat -c %s $$file)"; \
	done

test: setup ## Every test
	$(PYTHON) -B -m unittest discover -s scripts -p 'test_*.py'
	@mkdir -p target; status=0; \
	echo "cargo test --locked --workspace --no-fail-fast"; \
	cargo test --locked --workspace --no-fail-fast 2>&1 | tee target/test.log || status=$$?; \
	awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8; suites++ } \
		END { printf "\n%d tests passed, %d failed, %d ignored in %d suites\n", passed, failed, ignored, suites; \
			exit passed == 0 }' target/test.log || status=1; \
	exit $$status

lint: setup ## rustfmt, clippy with warnings denied, the C++ for CUDA graphs, cargo-deny
	@cargo fmt --version >/dev/null 2>&1 || { echo "error: rustfmt is missing: rustup component add rustfmt" >&2; exit 1; }
	@cargo clippy --version >/dev/null 2>&1 || { echo "error: clippy is missing: rustup component add clippy" >&2; exit 1; }
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/shim.sh --check
	scripts/deny.sh

bench: setup ## What the stream and its stages cost
	cargo bench --locked

bench-official: build ## This program beside the official PyTorch packages, in turns: benches/results/official.md (several GB, hours)
	@benches/official/setup.sh
	@serve=$$(cargo bench --locked --bench official --no-run --message-format=json | \
		sed -n 's/.*"executable":"\([^"]*official-[^"]*\)".*/\1/p' | tail -n 1); \
	.cache/official/bin/python -B benches/official/compare.py --serve "$$serve" --program $(BINARY) \
		--table benches/results/official.md $(OFFICIAL)

baselines: ## The Python environment of benches/baselines (PyTorch, several GB): the floors a trained model has to clear
	@benches/baselines/setup.sh

# In a bundle nothing else says what it was built from; results of `sonomask bench` name it.
dist: export SONOMASK_COMMIT ?= $(or $(shell git describe --always --abbrev=40 --exclude='*' --dirty=+changes 2>/dev/null),unknown)
dist: build ## The program with its GStreamer, to unpack and run beside a libtorch: out/sonomask-*.tar.gz
	@rm -rf out/dist && mkdir -p out/dist/$(DIST_NAME)/weights
	@$(PYTHON) scripts/bundle.py $(BINARY) out/dist/$(DIST_NAME)
	@scripts/shim.sh out/dist/$(DIST_NAME)/lib/libsonomask_cuda.so
	@cp -r configs pipelines docs README.md ARCHITECTURE.md CONTRIBUTING.md LICENSE-MIT LICENSE-APACHE out/dist/$(DIST_NAME)/
	@mkdir -p out/dist/$(DIST_NAME)/benches/results && cp benches/results/*.md benches/results/occlusion.jpg out/dist/$(DIST_NAME)/benches/results/
	@cp benches/gpu.sh benches/gpu.toml out/dist/$(DIST_NAME)/benches/
	@cp weights/*.safetensors weights/*.md out/dist/$(DIST_NAME)/weights/
	@tar -C out/dist -czf out/$(DIST_NAME).tar.gz --owner=0 --group=0 --sort=name $(DIST_NAME)
	@rm -rf out/dist
	@printf '%s (%s bytes)\n' "$(CURDIR)/out/$(DIST_NAME).tar.gz" "$$(stat -c %s out/$(DIST_NAME).tar.gz)"
	@echo "Unpack it anywhere and run its sonomask. libtorch (PyTorch 2.11.0) is taken from \$$LIBTORCH, from libtorch/ or torch/"
	@echo "beside it, or from Python's torch; glibc has to be as new as here."

clean: ## Remove what was built and the results in out/
	cargo clean
	rm -rf out

distclean: clean ## Also remove what set-up fetched
	rm -rf .libtorch .cache weights/lite_medsam.pth $(DEMO_INPUT)

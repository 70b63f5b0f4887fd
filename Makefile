# `make help` lists the targets.
CACHE ?= $(if $(HARBINGER_CACHE),$(HARBINGER_CACHE),$(HOME)/.cache/harbinger)
DENY := $(CACHE)/cargo-deny-0.20.2/bin/cargo-deny

.PHONY: help tools lint-tools test test-bed test-files lint fuzz bench bench-bed crds manifests demo

help: ## Lists the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

tools: ## Builds the control plane and the EC2 emulator into the cache, once per version
	@testbed/tools/build.sh

test: tools ## Runs every test, those on the real control plane included
	cargo test --workspace --no-run
	cargo test --workspace --lib --bins
	$(MAKE) --jobs=2 test-bed test-files

# Those on the control plane wait a third of their time. Those on files only compute, and must not be in
# the way of answers with a deadline.
test-bed:
	cargo test --workspace --test e2e --test bed

test-files:
	nice -n 15 cargo test --workspace --test it --test fuzz

demo: tools ## Starts the control plane and shows pods that never wait
	cargo build --release
	cargo run --release --package testbed --bin demo

lint-tools: ## Installs cargo-deny into the cache
	@testbed/tools/lint.sh

lint: lint-tools ## Formatting, clippy, licences and sources
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(DENY) check bans licenses sources

fuzz: ## Fuzzes what strangers send, ten minutes each, and tries many more cases of the properties
	HARBINGER_FUZZ_SECONDS=600 cargo test --release --no-default-features --test fuzz -- --nocapture --test-threads=1
	PROPTEST_RNG_SEED=$$(date +%s) PROPTEST_CASES=20000 cargo test --release --no-default-features --lib

bench: ## Runs the benchmarks that need no cluster
	cargo bench --no-default-features

bench-bed: tools ## Runs those on the control plane: an hour
	cargo bench --bench provision --bench gotcha

crds: ## Writes manifests/crds from the types
	cargo run --no-default-features -- crds --out manifests/crds

manifests: tools ## Writes manifests/install.yaml from the chart
	HELM=$(CACHE)/tools/current/bin/helm manifests/render.sh > manifests/install.yaml

# The two commands of the README: make demo, make test. The rest are parts of them.
.DEFAULT_GOAL := help
.PHONY: help demo demo-local test check advisories build image crds bench bench-cluster deps

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST)

demo: ## Millpond in a real Kubernetes on this machine: a Dataset, a pod that reads it, its hit ratio (DEMO=--keep)
	@scripts/deps demo cluster
	@scripts/image --profile dev --crates controller,cache-worker,csi-driver --beside millpond,demo,test-cluster \
	    --tag millpond.test/millpond:demo target/image/millpond-demo.tar
	@. scripts/env && exec target/$$(uname -m)-unknown-linux-musl/debug/millpond-demo cluster $(DEMO)

demo-local: ## A bucket as a local directory, on a real S3 server, every byte checked (DEMO='--help' for its words)
	@scripts/deps demo
	@cargo build --release --locked -p millpond -p demo
	@. scripts/env && exec target/release/millpond-demo local $(DEMO)

test: ## Format, lints, unit, property and kernel-mounted tests, and Millpond in a real Kubernetes
	@tests/run

check: ## Format, lints and dependency rules alone
	@scripts/deps check
	@scripts/check

advisories: ## Security advisories for the dependencies, from a database that is fetched
	@scripts/deps check
	@cargo deny check advisories

build: ## The release binary
	@scripts/deps build
	@cargo build --release --locked -p millpond

image: ## The image for Kubernetes, as an OCI archive: target/image/millpond.tar
	@scripts/deps image
	@scripts/image target/image/millpond.tar

crds: ## Regenerates deploy/crds and deploy/base from the API's types and the chart
	@UPDATE=1 cargo test -q --locked -p millpond-api --test it crds
	@scripts/render

bench: ## The figures of this machine beside their goals (docs/benchmarks.md), 12 minutes; FLAGS="--only large"
	@scripts/deps tests
	@cargo build --release --locked -p millpond -p origin -p bench
	@target/release/millpond-figures $(FLAGS)

bench-cluster: ## The figures of a real Kubernetes on this machine, 15 minutes; FLAGS="--only bound"
	@scripts/deps cluster
	@scripts/image --crates controller,cache-worker,csi-driver --tag millpond.test/millpond:test target/image/millpond.tar
	@cargo build --release --locked -p bench -p test-cluster
	@target/release/millpond-cluster-figures $(FLAGS)

deps: ## Installs what building and testing need; says first what it cannot install
	@scripts/deps

# The two commands of the README: make demo, make test. The rest are parts of them.
.DEFAULT_GOAL := help
.PHONY: help demo demo-local test check build image crds bench bench-cluster deps

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST)

demo: ## Millpond in a real Kubernetes on this machine: a Dataset, a pod that reads it, its hit ratio (DEMO=--keep)
	@scripts/demo $(DEMO)

demo-local: ## A bucket as a local directory, on a real S3 server, every byte checked (DEMO='--help' for its words)
	@scripts/demo-local $(DEMO)

test: deps ## Format, lints, unit, property and kernel-mounted tests, and Millpond in a real Kubernetes
	@tests/run

check: deps ## Format, lints and dependency rules alone
	@scripts/check

build: deps ## The release binary
	@cargo build --release --locked -p millpond

image: deps ## The image for Kubernetes, as an OCI archive: target/image/millpond.tar
	@scripts/image target/image/millpond.tar

crds: ## Writes deploy/crds and deploy/base anew from the API's types and the chart
	@UPDATE=1 cargo test -q --locked -p millpond-api --test crds
	@scripts/render

bench: deps ## The figures of this machine beside their goals (docs/benchmarks.md), 12 minutes; FLAGS="--only large"
	@cargo build --release --locked -p millpond -p origin -p bench
	@target/release/millpond-figures $(FLAGS)

bench-cluster: deps ## The figures of a real Kubernetes on this machine, 15 minutes; FLAGS="--only bound"
	@scripts/image --crates controller,cache-worker,csi-driver --tag millpond.test/millpond:test target/image/millpond.tar
	@cargo build --release --locked -p bench -p test-cluster
	@target/release/millpond-cluster-figures $(FLAGS)

deps: ## Installs what building and testing need
	@scripts/deps

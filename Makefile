# The two commands of the README: make demo, make test. The rest are parts of them.
.DEFAULT_GOAL := help
.PHONY: help demo test check build deps

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST)

demo: ## A bucket as a local directory, on a real S3 server, every byte checked (DEMO='--help' for its words)
	@scripts/demo $(DEMO)

test: deps ## Format, lints, unit, property and kernel-mounted tests
	@tests/run

check: deps ## Format, lints and dependency rules alone
	@scripts/check

build: deps ## The release binary
	@cargo build --release --locked -p millpond

deps: ## Installs what building and testing need
	@scripts/deps

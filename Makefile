# The two commands of the README: make build, make test. The rest are parts of them.
.DEFAULT_GOAL := help
.PHONY: help test check build deps

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST)

test: deps ## Format, lints, unit, property and kernel-mounted tests
	@tests/run

check: deps ## Format, lints and dependency rules alone
	@scripts/check

build: deps ## The release binary
	@cargo build --release --locked -p millpond

deps: ## Installs what building and testing need
	@scripts/deps

# Targets for people and for CI. Every target sets up what it needs (Debian packages, .venv) by itself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
STAMP := .venv/.setup-complete
LAB := .venv/.lab-complete
TESTS := .venv/.tests-complete
NATIVE := .venv/.native-complete
NATIVE_SOURCES := $(shell find native/ \( -name target -o -name fuzz \) -prune -o -type f \( -name '*.rs' -o -name '*.toml' -o -name Cargo.lock \) -print 2>/dev/null)
CONFIG ?= config/bridged.yaml
FUZZ_SECONDS ?= 60
SOAK_MINUTES ?= 60
CRASHES ?= 300
TEST_WORKERS ?= 6
ANSIBLE ?= ansible-core==2.19.14
ARCH ?= amd64
# Most tests wait for something; those that measure have the machine for themselves (tests/quiet_machine.py).
PYTEST := $(PYTHON) -m pytest --numprocesses=$(TEST_WORKERS) --dist=loadfile
# What keeps one processor busy, beside what keeps another one; what each says is printed together.
BESIDE := $(MAKE) --no-print-directory --jobs=3 --output-sync=target
# Runs Debian's kernel for tests/vm.
EMULATOR := command -v qemu-system-x86_64 >/dev/null || bash scripts/bootstrap.sh --tests qemu-system-x86_64:qemu-system-x86
# Debian's Prometheus and promtool, for what tests the rules and dashboards.
PROMETHEUS := bash scripts/prometheus.sh
# Runs programs of other architectures for tests/architectures.
FOREIGN := { command -v qemu-s390x-static && command -v mmdebstrap; } >/dev/null || bash scripts/bootstrap.sh --tests qemu-s390x-static:qemu-user-static mmdebstrap:mmdebstrap
FAST := tests/unit tests/property tests/sim tests/contract tests/vectors
export PATH := $(PATH):/usr/sbin:/sbin
# Daemons of the tests start with compiled code, as installed ones do, and pytest keeps what it rewrote.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: ready test-programs test-ansible test-container test-appliance deb test-package help setup demo run check test test-random test-vm test-monitoring test-architectures lint lint-python lint-native test-native format bench order returning soak crashes fuzz wheel generate pictures lock clean

help: ## what the targets do
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 24

setup: $(NATIVE) ## install what running needs: Debian packages, .venv, the native data plane
	@[ -e bridged/_native.abi3.so ] || bash scripts/native.sh

$(STAMP): requirements.lock pyproject.toml tap/pyproject.toml scripts/bootstrap.sh
	@bash scripts/bootstrap.sh
	@touch $@

# The programs of the lab: openvpn, dnsmasq, iperf3 and others.
$(LAB): $(STAMP)
	@bash scripts/bootstrap.sh --lab
	@touch $@

# Those, and the Python packages of checks and tests.
$(TESTS): $(STAMP) requirements-test.lock
	@bash scripts/bootstrap.sh --tests
	@touch $(LAB) $@

# Tried once for each change of its sources; `make setup` tries again where it could not be built.
$(NATIVE): $(STAMP) $(NATIVE_SOURCES) scripts/native.sh
	@bash scripts/native.sh
	@touch $@

ready: $(NATIVE) $(TESTS) ## install everything that the tests need
	@$(EMULATOR)
	@$(FOREIGN)

demo: $(NATIVE) $(LAB) ## join two LANs on this machine, in network namespaces, and show that it works
	@$(PYTHON) -m tests.lab.demo

run: $(NATIVE) ## start one daemon with $(CONFIG)
	.venv/bin/bridged run --config $(CONFIG)

test-vm: $(NATIVE) $(TESTS) ## the tests that need another kernel, in a virtual machine with Debian's
	@$(EMULATOR)
	@$(PYTEST) tests/vm

test-monitoring: $(NATIVE) $(TESTS) ## the real Prometheus and real troubles, twice as slow as in make test
	@$(PROMETHEUS)
	@BRIDGED_MONITORING_SCALE=30 $(PYTHON) -m pytest --timeout=1800 tests/unit/monitoring tests/system/test_monitoring.py

test-architectures: $(NATIVE) $(TESTS) ## unit, simulation, vectors, Rust tests and two daemons on arm64, armhf and s390x
	@$(FOREIGN)
	@command -v qemu-system-s390x >/dev/null || bash scripts/bootstrap.sh --tests qemu-system-s390x:qemu-system-s390x
	@BRIDGED_ARCHITECTURES=all $(PYTEST) --dist=worksteal tests/architectures

lint: $(NATIVE) $(TESTS) ## format, lint, types, import directions, of native/ too
	@$(BESIDE) lint-python lint-native

lint-python:
	@echo "check: formatting (ruff format)"
	@.venv/bin/ruff format --check .
	@echo "check: lint (ruff check)"
	@.venv/bin/ruff check .
	@echo "check: types (mypy: strict in bridged and bridged_tap; in tests, names, attributes and arguments of calls)"
	@.venv/bin/mypy
	@echo "check: sizes, dead promises, code that only tests use (scripts/checks)"
	@$(PYTHON) -m scripts.checks
	@echo "check: import directions (import-linter)"
	@.venv/bin/lint-imports
	@echo "check: circular imports, also under TYPE_CHECKING"
	@$(PYTHON) scripts/python_circles.py bridged bridged_tap
	@echo "check: types of the native module (stubtest)"
	@if [ -e bridged/_native.abi3.so ]; then .venv/bin/stubtest bridged._native; \
	    else echo "lint: NOT RUN: stubtest, the native data plane is not built"; fi

lint-native:
	@bash scripts/rust.sh lint

test-native: lint-native
	@bash scripts/rust.sh test

check: $(NATIVE) $(TESTS) ## the fast half: lint, Rust tests, unit, property, sim, contract, vectors, corpus replay
	@$(BESIDE) lint-python test-native
	@$(PROMETHEUS)
	@echo "check: tests in $(FAST)"
	@$(PYTEST) $(FAST)

test: $(NATIVE) $(TESTS) ## everything: what check runs, and interop (real OpenVPN) and system tests
	@$(BESIDE) lint-python test-native test-programs
	@echo "test: all tests under tests/ (fast half, interop with real OpenVPN, system, another kernel)"
	@$(PYTEST) tests

# Other programs that the tests run. Fetching waits for the network: beside it the processors have other work.
test-programs: $(TESTS)
	@$(EMULATOR)
	@$(PROMETHEUS)
	@$(FOREIGN)
	@bash scripts/interop.sh

test-random: $(NATIVE) $(TESTS) test-programs ## all tests, those of each file in another order each time; the header says the seed
	@BRIDGED_TEST_ORDER=$${BRIDGED_TEST_ORDER:-$$RANDOM} $(PYTEST) tests

bench: $(NATIVE) $(TESTS) ## our daemons against OpenVPN's, in turn; writes build/bench.json (BENCH="--pairs 5 …")
	@command -v fastd >/dev/null || bash scripts/bootstrap.sh --tests fastd:fastd
	@$(PYTHON) -m tests.bench.run $(BENCH)

order: $(NATIVE) $(TESTS) ## count frames out of order at 1, 2 and 4 workers, in 10 million each (ORDER="--frames N --workers 1 2")
	@$(PYTHON) -m tests.bench.order $(ORDER)

returning: $(NATIVE) $(TESTS) ## a thousand clients that come at once; new ones amid 20,000 forged resets a second (docs/measurements)
	@$(PYTHON) -m tests.bench.returning $(RETURNING)
	@$(PYTHON) -m tests.bench.flooded $(FLOODED)

soak: $(NATIVE) $(TESTS) ## peers come, go, move and renegotiate for SOAK_MINUTES (SOAK="--dataplane native")
	@$(PYTHON) -m tests.bench.soak --minutes $(SOAK_MINUTES) $(SOAK)

crashes: $(NATIVE) $(TESTS) ## kill -9 at CRASHES random moments, another configuration each time: is the host right?
	@$(PYTHON) -m tests.bench.crashes --rounds $(CRASHES)

fuzz: $(TESTS) ## fuzz every target for FUZZ_SECONDS each; add what reaches new code to tests/fuzz/corpus
	@$(PYTHON) -m tests.fuzz.run --seconds $(FUZZ_SECONDS)

wheel: $(TESTS) ## in dist/: sdists, portable and native wheels (x86-64, aarch64, armv7l) of bridged and bridged-tap
	@bash scripts/wheel.sh

deb: $(NATIVE) $(TESTS) ## in dist/: the Debian package, for Debian 12 and 13 (ARCH=amd64, arm64 or armhf; MAINTAINER="Name <address>")
	@$(PYTHON) -m scripts.deb --arch $(ARCH)

test-package: $(NATIVE) $(TESTS) ## the package in fresh Debian 12 and 13 systems, made by mmdebstrap in build/chroots
	@command -v mmdebstrap >/dev/null || bash scripts/bootstrap.sh --tests mmdebstrap:mmdebstrap
	@BRIDGED_PACKAGE_SUITES="bookworm trixie" $(PYTEST) tests/packaging

test-ansible: $(NATIVE) $(TESTS) ## the Ansible role, run for real on a Debian under systemd; brings ansible-core into build/ansible
	@[ -x build/ansible/bin/ansible-playbook ] || { $(PYTHON) -m venv build/ansible && build/ansible/bin/pip install --quiet $(ANSIBLE); }
	@BRIDGED_ANSIBLE=1 $(PYTHON) -m pytest --timeout=900 tests/packaging/test_ansible.py

test-container: $(NATIVE) $(TESTS) ## build the container file's image with podman and with Docker, and run it in networks of its own
	@bash scripts/bootstrap.sh --tests dockerd:docker.io podman:podman buildah:buildah crun:crun mmdebstrap:mmdebstrap
	@BRIDGED_CONTAINERS=1 $(PYTHON) -m pytest --timeout=1200 tests/packaging/test_container_image.py tests/packaging/test_docker_image.py tests/packaging/test_container_file.py

test-appliance: $(NATIVE) $(TESTS) ## the package's life under systemd in virtual machines, Debian 12 and 13 (APPLIANCE="--debian 12")
	@bash scripts/bootstrap.sh --tests qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap mke2fs:e2fsprogs xz:xz-utils
	@$(PYTHON) -m tests.appliance $(APPLIANCE)

format: $(TESTS) ## rewrite the sources in the house format
	@cargo=$$(bash scripts/native.sh --cargo) && cd native && "$$cargo" fmt || echo "format: native/ left as it is"
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

generate: $(STAMP) ## write reference pages, schema, Rust tables, rules and dashboards again from the Python tables
	@$(PYTHON) -m bridged.telemetry.reference
	@$(PYTHON) -m scripts.native_tables
	@$(PYTHON) -m scripts.monitoring

pictures: $(NATIVE) $(TESTS) ## draw docs/pictures again: the dashboards, from a real Prometheus
	@$(PROMETHEUS)
	@$(PYTHON) -m tests.system.monitoring_pictures

lock: $(STAMP) ## write requirements.lock and requirements-test.lock anew from pyproject.toml (needs the network)
	@bash scripts/lock.sh

clean: ## remove what the targets made, .venv included
	rm -rf .venv build dist native/target bridged/_native*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info tap/src/*.egg-info tap/build
	find bridged tap tests -name __pycache__ -type d -prune -exec rm -rf {} +

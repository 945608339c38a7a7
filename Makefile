# setup   everything the other targets need: $(VENV), bin/optimemctl, the planner inside Python; does nothing if nothing has
#         changed
# demo    the main job, on the card or on the simulated one
# test    everything: Go with the race detector, the worker, the simulated card, end to end
# test-torch  the tests that run torch: the worker, the simulated card, end to end
# browser a Chromium for the tests of the report page, if none is found and this is root on a system with apt
# traps   the table of traps for pagers: row, tests, how many passed; fails if a row does
# zoo     some 140 model families of transformers, diffusers, torchvision and timm in all modes, and a table of them; not part
#         of test
# check   format, generated files, lint, types
# TORCH=2.9 uses an environment with that version beside the usual one; PYTHON names the interpreter to make it with.

TORCH ?=
PYTHON ?= python3
VENV := .venv$(if $(TORCH),-torch$(TORCH))
export CGO_CFLAGS ?= -O2 -Wno-deprecated-declarations
LESS := $(if $(TORCH),OPTIMEM_EXAMPLES=0.5)  # of property tests, the second time over
# Tests in which torch does nothing that another version of it could do otherwise: once is enough.
ONCE := $(addprefix tests/worker/test_,calibrations.py channel.py contact.py curriculum.py documents.py forks.py \
	placements.py plan.py planner.py private.py protocol.py ring.py rooms.py session.py) \
	$(addprefix simgpu/tests/test_,check.py nvml.py profile.py shared_card.py)
APART := $(if $(TORCH),$(addprefix --ignore=,$(ONCE)))
SOME := $(if $(TORCH),-run 'Sentences|Person|LeftToTheCPU')  # what compares results
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: setup browser demo test test-go test-torch traps check generate bench soak zoo clean

setup:
	PYTHON=$(PYTHON) tools/venv $(VENV) $(TORCH)
	go build -ldflags "-X main.version=$(VERSION)" -o bin/optimemctl ./cmd/optimemctl
	tools/extension $(VENV)

browser:
	tools/browser

demo: setup
	tools/demo $(VENV)

test: test-go test-torch

test-go: setup browser
	go vet ./...
	go test ./planner ./planner/search ./internal/...  # nothing in them runs at the same time as anything else, and they compute a lot
	go test -race ./bindings/... ./cmd/... ./controller/... ./ipc/... ./planner/contract/... ./planner/probe/...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/optimemctl

test-torch: setup browser
	$(LESS) $(VENV)/bin/python -m pytest --numprocesses auto --dist worksteal $(APART)  # each process has a simulated card of its own
	OPTIMEM_PYTHON=$(CURDIR)/$(VENV)/bin/python go test -race -count=1 -timeout 30m $(SOME) ./tests/...

traps: setup
	$(VENV)/bin/python -m pytest tests/worker -m trap

check: setup generate
	git diff --exit-code -- ipc/testdata
	test -z "$$(gofmt -l bindings cmd controller internal ipc planner tests)"
	go run $(GOLANGCI) run ./...
	$(VENV)/bin/ruff format --check worker tests examples bench simgpu
	$(VENV)/bin/ruff check worker tests examples bench simgpu
	$(VENV)/bin/mypy
	cd simgpu && $(CURDIR)/$(VENV)/bin/mypy

generate:
	go test ./ipc -run Golden -update

bench: setup
	go test -run '^$$' -bench . -benchmem -count 6 ./planner/... ./ipc/...
	$(VENV)/bin/python simgpu/bench/overhead.py
	$(VENV)/bin/python simgpu/bench/peers.py
	$(VENV)/bin/python bench/periods.py
	$(VENV)/bin/python bench/first.py
	$(VENV)/bin/python bench/hooks.py
	$(VENV)/bin/python bench/repointing.py
	$(VENV)/bin/simgpu check

soak: setup
	OPTIMEM_SOAK=10000 $(VENV)/bin/python -m pytest tests/worker/test_soak.py tests/worker/test_storms.py
	go test ./ipc -run '^$$' -fuzz FuzzDecode -fuzztime 10m
	go test ./planner/search -run '^$$' -fuzz FuzzBuild -fuzztime 10m

zoo: setup
	OPTIMEM_ZOO=1 HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest tests/worker/test_zoo.py --numprocesses auto --dist loadgroup

clean:
	rm -rf bin build .venv .venv-torch* worker/optimem/_planner.*

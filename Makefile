# The two commands of a newcomer: `make demo` and `make test`. `make help` lists the others.

# The newest that is supported: a submission takes less CPU time on 3.13. pyenv's may only say that no version is set.
PYTHON ?= $(or $(shell for each in python3.13 python3.12 python3.11; do \
	$$each -c 'import ensurepip, venv' 2>/dev/null && echo $$each && break; done),python3)
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
CHROMIUM := /usr/bin/chromium
CDK := infra/node_modules/.installed
# Their jobs must start and end within seconds, so the others come first; then two parts beside each other.
SERVICE := tests/fundamentals tests/service tests/prove tests/ecs
BESIDE := tests/ecs $(addprefix tests/service/test_,attached_runs.py clusters.py local_stack.py)
SETTINGS ?= $(firstword $(wildcard infra/settings.toml) infra/settings.example.toml)

.DEFAULT_GOAL := help
.PHONY: help env demo up test test-here test-beside check docs configuration pictures prove bench requirements browser builder software image cdk synth clean

help: ## List the commands.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

demo: env ## Start everything, run the example pipeline, show it rule by rule, stop.
	@$(RUN) -m deployments demo

up: env ## Start everything and stay until Ctrl-C.
	@$(RUN) -m deployments up

test: check browser builder software cdk ## Run the whole test suite, the quick checks first; the image is built as root only.
	$(RUN) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile \
		$(addprefix --ignore=,tests/house $(SERVICE))
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line test-here test-beside

test-here:
	$(RUN) -m pytest $(addprefix --ignore=,$(BESIDE)) $(filter-out tests/ecs,$(SERVICE))

# In a place of its own: pytest closes the place of all to others when it starts, PostgreSQL's user among them.
test-beside:
	@mkdir -p build
	$(RUN) -m pytest --basetemp=build/test-beside $(BESIDE)

check: env ## Lint, check types, links and the house's own rules: under a minute.
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	@$(MAKE) --no-print-directory docs
	$(RUN) -m pytest tests/house -q

docs: env ## Make the site of docs/ in build/docs; a broken link is an error.
	@rm -rf build/docs
	$(RUN) -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --doctree-dir build/docs/.doctrees docs build/docs

configuration: env ## Write docs/configuration.md anew from the settings classes.
	$(RUN) -m tests.docs.configuration

pictures: env browser ## Run the example and photograph it in the Prefect UI, for docs/pictures.
	$(RUN) -m tests.docs.pictures

prove: env ## Kill, stop and fill what the service needs, 20 times each, under load: a table, and build/prove.md.
	$(RUN) -m pytest -m slow tests
	$(RUN) -m tests.prove

bench: env ## Compare with bare Snakemake and with Prefect itself: a table, and build/bench.json.
	$(RUN) -m tests.benchmarks

env: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@# Snakemake finds plugins by listing the directories of sys.path, which an editable install does not extend.
	@$(RUN) -c 'import pathlib, sysconfig; \
	pathlib.Path(sysconfig.get_path("purelib"), "prefect_snakemake_plugins.pth").write_text("$(CURDIR)/flows/snakemake_process/plugins\n")'
	@touch $@

requirements: ## Compile requirements.txt anew from pyproject.toml.
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet uv
	echo '# Made by `make requirements` from pyproject.toml: every version that is installed, and no addresses.' > requirements.txt
	$(VENV)/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --quiet >> requirements.txt

browser: ## Install the browser that one test looks at the Prefect UI with.
	@test -x $(CHROMIUM) || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium >/dev/null; }

builder: ## Install what builds the image without Docker, as root; others skip the test that builds it.
	@test "$$(id -u)" != 0 || which buildah mmdebstrap >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends buildah mmdebstrap >/dev/null; }

software: ## Install environment modules, slirp4netns, apptainer and SLURM for the tests, as root; others skip the tests of them.
	@test "$$(id -u)" != 0 || tests/flows/software/install.sh

image: env builder ## Build the image without Docker (needs root), run the service from it, and build it again.
	JOBS_TEST_IMAGE=twice $(RUN) -m pytest tests/deployments/test_image.py

cdk: $(CDK) ## Install the CDK's command line, for the node that is in the environment.

$(CDK): infra/package.json $(INSTALLED)
	@test -x $(VENV)/bin/npm || { echo "There is no node in $(VENV): run make clean env."; exit 1; }
	cd infra && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm install --silent
	@touch $@

synth: cdk ## Synthesize the stacks for AWS (SETTINGS=FILE), and print what they cost idle.
	@rm -rf build/cdk.out
	cd infra && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npx cdk synth --strict --quiet \
		--output $(CURDIR)/build/cdk.out --context settings=$(abspath $(SETTINGS))
	@$(RUN) -m infra.costs build/cdk.out

clean: ## Remove the environment and what tests and demos have left.
	rm -rf $(VENV) .jobs build infra/node_modules .pytest_cache .mypy_cache .ruff_cache

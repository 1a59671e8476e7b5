.PHONY: setup quickstart test check clean

PYTHON := .venv/bin/python

setup: ## virtual environment, packages, browser, starter model; a second run does only what is missing
	@launch/setup.sh

quickstart: setup ## the whole loop on the built-in practice sites, on a laptop
	$(PYTHON) -m launch run quickstart --resume-ok

test: ## set-up, then every test: real Chromium, real model server
	@launch/setup.sh test
	$(PYTHON) -m pytest

check: setup ## format, lint, types, which package may import which
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pyright
	$(PYTHON) -m pytest -q tests/test_structure.py

clean: ## remove what set-up made but the starter, and caches; starter/ and runs/ stay
	rm -rf .venv .setup_s sites/static/pictures .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

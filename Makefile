# `make` lists the targets. Each one sets up first whatever is missing (bin/setup, which takes no time when nothing is).
SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
PYTHON_BIN := $(VENV)/bin/python
RECSYS := $(VENV)/bin/recsys
PETASTORM := .venv-petastorm
PETASTORM_TESTS := tests/models/test_item_encoder.py tests/test_petastorm.py tests/test_doctor.py tests/test_main_job.py tests/infra/test_tables.py
UV := $(VENV)/bin/uv
PYTEST := $(PYTHON_BIN) -m pytest
DEMO_DIR ?= data/demo
TEST_PROCESSES ?= 2
BENCHMARKS := metrics demo ingest history growth models ann kill state_machine driver_memory
# Folders that are linted; the ones that are not there yet are left out.
SOURCES := $(wildcard setup.py recsys_spark jobs tests benchmarks airflow_dags notebooks)
EXTRAS := $(addprefix --extra ,demo implicit ann tune dev)
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet

# Every Spark that a target starts, by python or by spark-submit, has Delta's jars, UTC, enough driver memory and the workers' interpreter.
export SPARK_CONF_DIR := $(abspath $(VENV)/spark/conf)
export PYSPARK_PYTHON := $(abspath $(PYTHON_BIN))

.PHONY: help setup ready demo test test-fast test-petastorm lint fmt wheel lock doctor mlflow bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## check Java, make .venv from the lock, fetch Spark's Delta jars
	@bin/setup

ready:
	@bin/setup --quiet

demo: ready ## the whole pipeline on a year of real-looking purchases; ARGS="..." goes to `recsys demo`
	$(RECSYS) demo $(ARGS)

test: ready ## every test that needs no GPU, in TEST_PROCESSES=2 processes with one Spark each; ARGS="..." goes to pytest
	$(PYTEST) -m "not gpu" -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: ready ## the tests that start no JVM: seconds
	$(PYTEST) -m "not spark and not slow and not gpu" $(ARGS)

test-petastorm: export SPARK_CONF_DIR := $(abspath $(PETASTORM)/spark/conf)
test-petastorm: export PYSPARK_PYTHON := $(abspath $(PETASTORM)/bin/python)
test-petastorm: ## the demo in short and the tests of the line in the second lock: Spark 4.0 with petastorm (makes a 6 GB environment)
	@bin/setup --quiet --petastorm
	$(PETASTORM)/bin/recsys demo --sample 0.05 --set data_root=data/demo-petastorm
	$(PETASTORM)/bin/python -m pytest -m "not gpu" $(PETASTORM_TESTS) $(ARGS)

lint: ready ## ruff, format, types and the import contracts
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

fmt: ready ## sort imports, fix what ruff can fix, format
	$(VENV)/bin/ruff check --fix $(SOURCES)
	$(VENV)/bin/ruff format $(SOURCES)

wheel: ready ## build dist/recsys_spark-*.whl, which a cluster's workers need
	rm -rf build  # what lies there from a build before goes into the wheel, too
	$(UV) build --quiet --python $(PYTHON_BIN) --wheel --no-build-isolation --clear --out-dir dist

lock: ready ## resolve requirements/*.txt anew (UPGRADE=1: to the newest versions)
	$(COMPILE) requirements/tools.in $(if $(UPGRADE),--upgrade) -o requirements/tools.txt
	$(COMPILE) setup.py $(EXTRAS) -c requirements/pins.txt $(if $(UPGRADE),--upgrade) -o requirements/default.txt
	$(COMPILE) setup.py $(EXTRAS) --extra petastorm -c requirements/petastorm-pins.txt $(if $(UPGRADE),--upgrade) -o requirements/petastorm.txt

doctor: ready ## look at this machine and say what is missing
	$(RECSYS) doctor

mlflow: ready ## MLflow's pages on what the demo logged
	$(PYTHON_BIN) -m mlflow ui --backend-store-uri sqlite:///$(DEMO_DIR)/mlflow/mlflow.db $(ARGS)

bench: ready ## every benchmark, hours in all; DATA=folder with ml-1m, ml-100k and ncf-ml-1m
	@test -n "$(DATA)" || { echo "make bench DATA=FOLDER: with ml-1m, ml-100k and ncf-ml-1m in it (docs/guide/benchmarks.md)"; exit 1; }
	@for name in $(BENCHMARKS); do echo "== $$name"; $(PYTHON_BIN) benchmarks/bench_$$name.py || exit 1; done
	$(PYTHON_BIN) benchmarks/bench_top_k.py --data $(DATA)/ml-1m
	$(PYTHON_BIN) benchmarks/bench_ncf.py --data $(DATA)/ncf-ml-1m
	$(PYTHON_BIN) benchmarks/bench_full_ranking.py --ml-1m $(DATA)/ml-1m --ml-100k $(DATA)/ml-100k
	$(PYTHON_BIN) benchmarks/bench_als_engines.py --data ml-1m=$(DATA)/ml-1m
	$(PYTHON_BIN) benchmarks/bench_feature_factors.py --data $(DATA)/ml-1m
	$(UV) venv --quiet --clear --python $(PYTHON_BIN) .venv-peers
	$(UV) pip install --quiet --python .venv-peers/bin/python rectools==0.19.0 lenskit==2025.8.1
	$(PYTHON_BIN) benchmarks/bench_peers.py --data $(DATA)/ml-1m --peers .venv-peers/bin/python

clean: ## remove caches and build output; .venv and data/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov \
		spark-warehouse metastore_db derby.log
	find . -name __pycache__ -type d -not -path './$(VENV)*/*' -prune -exec rm -rf {} +

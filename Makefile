# SPDX-License-Identifier: Apache-2.0
# The commands of this project. Each sets up what it needs first and is quick when that is done.
MODEL_REPOSITORY ?= model_repo
PORT ?= 8001

.DEFAULT_GOAL := help
.PHONY: help serve train test check bench clean

help: ## list the commands
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

serve: ## serve MODEL_REPOSITORY (model_repo, with two sample models) on PORT (8001)
	@scripts/setup.sh serve
ifeq ($(MODEL_REPOSITORY),model_repo)
	@.venv/bin/python -m training.all --repository model_repo --only packaged --if-missing
endif
	@exec .venv/bin/gristmill serve --model-repository '$(MODEL_REPOSITORY)' --grpc-port '$(PORT)'

train: ## train the sample models and publish them into model_repo
	@scripts/setup.sh train
	@.venv/bin/python -m training.all --repository model_repo --if-missing

test: ## run all tests
	@scripts/setup.sh test
	@scripts/test.sh

check: ## formatting, types, include directions, lock annotations
	@scripts/setup.sh check
	@scripts/check.sh

bench: ## run the benchmarks, into bench/results
	@scripts/setup.sh bench
	@.venv/bin/python -m training.all --repository model_repo --if-missing
	@.venv/bin/python -m bench

clean: ## remove builds and caches; keeps .venv and model_repo
	rm -rf build .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

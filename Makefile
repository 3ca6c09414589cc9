# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: help setup demo test lint bench docs clean

help: ## this list
	@awk -F ' ## ' '/^[a-z]+:.* ## / { split($$1, rule, ":"); printf "make %-7s %s\n", rule[1], $$2 }' Makefile

setup: $(VENV)/installed ## create .venv and install dualface into it

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@$(BIN)/python -c 'import open3d' 2>/dev/null || { \
	  echo "open3d does not import: evaluation and viewers need the system library libusb-1.0"; \
	  echo "  Debian/Ubuntu: apt-get install libusb-1.0-0    Fedora: dnf install libusb1    conda: conda install libusb"; \
	  echo "  (dataset generation, training and reconstruction work without it)"; }
	touch $@

# a face the network has not seen: rendered apart, from another seed
demo: setup ## render faces, build shards, train small networks, fuse them, reconstruct a face -> demo/
	rm -rf $(DEMO)
	$(BIN)/dualface synth 300wlp $(DEMO)/faces --count 320 --jobs 2
	$(BIN)/dualface build ftd $(DEMO)/faces $(DEMO)/textures --with-asm $(DEMO)/shards --size 128 --shard-size 160 --jobs 2
	$(BIN)/dualface inspect $(DEMO)/shards -o $(DEMO)/sheet.png
	$(BIN)/dualface inspect $(DEMO)/textures -o $(DEMO)/textures.png
	$(BIN)/dualface train geometry $(DEMO)/shards -o $(DEMO)/run --width 0.125 --parameter-steps 800 \
	  --stream-steps 400 --learning-rate 1e-3 --log-every 100 --validate-every 400
	$(BIN)/dualface train texture $(DEMO)/textures -o $(DEMO)/texture --width 0.125 --steps 150 --learning-rate 1e-3 \
	  --geometry $(DEMO)/run --predicted-albedo --no-landmark-branch --no-contextual --log-every 50 --validate-every 75
	$(BIN)/dualface train fusion $(DEMO)/textures -o $(DEMO)/fusion --geometry $(DEMO)/run --texture $(DEMO)/texture \
	  --no-identity --no-alignment --camera-distance inf --steps 60 --warm-up-steps 20 --log-every 20 --validate-every 60
	$(BIN)/dualface synth 300wlp $(DEMO)/unseen --count 4 --seed 1
	$(BIN)/dualface reconstruct $(DEMO)/unseen/SYNTH/SYNTH_000000_0.jpg --checkpoint $(DEMO)/fusion -o $(DEMO)/out \
	  --landmarks $(DEMO)/unseen/landmarks/SYNTH/SYNTH_000000_0_pts.mat --refine 60 --neutral --turntable
	@echo "done: look at $(DEMO)/sheet.png, $(DEMO)/textures.png, $(DEMO)/run/curves.png, $(DEMO)/fusion/samples and $(DEMO)/out"

lint: setup ## flake8 with pydoclint, and the types (mypy)
	$(BIN)/flake8
	$(BIN)/mypy

test: lint ## lint and every test that needs neither a GPU nor minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

bench: setup ## time each operation beside its baseline, one table -> benchmarks/results/
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py

docs: setup ## the pages of docs/ as HTML, every link among them checked -> build/docs/
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	rm -rf docs/api  # pages of modules that are no more
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs

clean: ## remove .venv, demo and the pages made
	rm -rf $(VENV) $(DEMO) build docs/api *.egg-info

# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: help setup demo test lint clean

help:
	@echo "make setup   create $(VENV) and install dualface into it"
	@echo "make demo    render faces, build ASMD shards, train a small geometry stream, reconstruct a face -> $(DEMO)/"
	@echo "make test    lint and every test that needs neither a GPU nor minutes"
	@echo "make clean   remove $(VENV) and $(DEMO)"

setup: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@$(BIN)/python -c 'import open3d' 2>/dev/null || { \
	  echo "open3d does not import: evaluation and viewers need the system library libusb-1.0"; \
	  echo "  Debian/Ubuntu: apt-get install libusb-1.0-0    Fedora: dnf install libusb1    conda: conda install libusb"; \
	  echo "  (dataset generation, training and reconstruction work without it)"; }
	touch $@

demo: setup
	$(BIN)/python -m cli.demo $(DEMO)

lint: setup
	$(BIN)/flake8

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

clean:
	rm -rf $(VENV) $(DEMO) *.egg-info

# Two commands: `make demo` and `make test`. Each sets up what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check torture format lock clean

demo: $(READY)  ## distil, measure and show a real clip
	$(BIN)/vidistill demo --out runs/demo $(if $(VIDEO),--video "$(VIDEO)")

test: $(READY)  ## style, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadscope --no-loadscope-reorder -m "not real_data"

check: $(READY)  ## the real-data checks; VIDISTILL_DATA names the folder
	$(BIN)/pytest tests/real_data -m real_data

torture: $(READY)  ## odd videos and networks, each right or refused; needs ffmpeg; some 10 minutes each
	$(BIN)/python benchmarks/torture_videos.py
	$(BIN)/python benchmarks/torture_networks.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vidistill needs Python 3.11 or newer; make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

lock: $(READY)  ## pin what is installed now
	$(BIN)/python -m pip freeze --all --exclude-editable --local | sed 's/+cpu//' | grep -v -e '^-e' -e ' @ ' -e '^pip==' > requirements.lock

clean:  ## what set-up made; runs stay
	rm -rf $(VENV)

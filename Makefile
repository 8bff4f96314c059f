# Each target makes its own environment in .venv, once. Another Python: make demo PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# A worker for each core, a file for a worker at a time, in the order of tests/conftest.py. A test that hangs ends them all, named.
SIDE_BY_SIDE := -n logical --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -o faulthandler_exit_on_timeout=true

.PHONY: help demo test test-full lab explorer book page bench bench-gpu readme badges types mutants venv

help:
	@echo "make demo       compress a BERT, train a twentieth of it, draw the trade-off (a few minutes)"
	@echo "make test       all tests but the long ones"
	@echo "make test-full  the long ones too"
	@echo "make lab        the course in JupyterLab"
	@echo "make explorer   the board of chapter 11 as a page of its own, by Voila"
	@echo "make book       the course as pages to read without Jupyter, in build/book"
	@echo "make page       one page with matrices to cut, for a browser and nothing else, build/page.html"
	@echo "make bench      speed and memory beside other libraries (a quarter of an hour)"
	@echo "make bench-gpu  steps, decompositions and passes of BERTs on a GPU (half an hour)"
	@echo "make readme     the README's table and picture again, from the records"
	@echo "make types      what pyright says of the files that pyproject.toml lists"
	@echo "make mutants    faults put into the code one by one; those that no test notices are listed (two hours; tests/mutants.md)"
	@echo "make badges     the repository's address and tag, from pyproject.toml to where they are needed"

demo: .venv/demo-installed
	$(BIN)/mpo-tutorial demo

test: .venv/test-installed
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not full"

test-full: .venv/test-installed
	$(BIN)/python -m pytest --hypothesis-profile=thorough

page: .venv/demo-installed
	$(BIN)/python docs/make_page.py

bench: .venv/bench-installed
	$(BIN)/mpo-tutorial bench

bench-gpu: .venv/bench-installed
	$(BIN)/mpo-tutorial bench-gpu --resume

lab: .venv/lab-installed
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

explorer: .venv/explorer-installed
	$(BIN)/python docs/make_explorer.py
	$(BIN)/voila build/explorer.ipynb

book: .venv/book-installed
	$(BIN)/python docs/make_book.py
	@echo "open build/book/index.html"

readme: .venv/demo-installed
	$(BIN)/python docs/make_readme.py

badges: $(BIN)/python
	$(BIN)/python docs/make_badges.py

types: .venv/test-installed
	$(BIN)/pyright

mutants: .venv/mutants-installed
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2
	$(BIN)/mutmut results

venv: $(BIN)/python

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; give another: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/demo-installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[offline]"
	@touch $@

# Besides, Colab's ipywidgets, in a folder of its own that a test puts in front.
.venv/test-installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[offline,lab,dev]"
	$(BIN)/python -m pip install --disable-pip-version-check --upgrade --no-deps --target .venv/ipywidgets-7 ipywidgets==7.7.1 ipython_genutils==0.2.0
	$(BIN)/python -m pip install --disable-pip-version-check --upgrade --no-deps --target .venv/torchvision torchvision==0.28.0
	@touch $@

.venv/mutants-installed: .venv/test-installed
	$(INSTALL) -e ".[mutants]"
	@touch $@

.venv/bench-installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[bench,offline]"
	@touch $@

.venv/lab-installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[offline,lab]"
	@touch $@

.venv/explorer-installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[offline,lab,explorer]"
	@touch $@

.venv/book-installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[offline,lab,book]"
	@touch $@

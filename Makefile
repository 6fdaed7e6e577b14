# make setup    a .venv in which python, pytest, panoptic and the node just work
# make test     checks the style, runs all tests; TESTS="test/ros ..." those only, WORKERS=2 at a time
# make docs     builds the site with warnings as errors: docs/_build/index.html
# make demo     a drive through the real node; BAG=... TOPIC=... MODEL=... RESOLUTION=... OUTPUT=...
# make fuzz     hostile input to every way in: MINUTES=10 SEED=1
# make faults   kills, full disks, stalls and the like: ROUNDS=10
# make soak     the node's way of a frame for the frames of HOURS=24 at 30 Hz, with a picture
# make audit    known holes in what is installed, and in the code
# make lock     writes requirements/*.lock anew from the lists beside them
# Each with ROS=jazzy in .venv-jazzy, with Jazzy instead of Kilted; LOCKED=1 installs only what has
# the hash in requirements/*.lock
# make clean    removes these folders and what was built; demo/ stays

PYTHON ?= python3
ROS ?= kilted
VENV := $(CURDIR)/.venv$(if $(filter-out kilted,$(ROS)),-$(ROS))
ifeq ($(wildcard requirements/ros-$(ROS).txt),)
$(error ROS=$(ROS): there are wheels of $(patsubst requirements/ros-%.txt,%,$(wildcard requirements/ros-*.txt)))
endif
PACKAGES := $(if $(LOCKED),--require-hashes -r requirements/$(ROS).lock,-r requirements/run.txt -r requirements/ros-$(ROS).txt)
listed = $(if $(LOCKED),--require-hashes -r requirements/$(1).lock,-r requirements/$(1).txt)
SHARE := $(VENV)/share/panoptic_ros
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INSTALL := $(VENV)/bin/uv pip install --quiet
WORKERS ?= 2

# .venv holds a ROS 2 of its own: one that is sourced would mix with it.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH RMW_IMPLEMENTATION
unexport ROS_DISTRO _ROS_WHEELS_BOOTSTRAP_COMPLETE
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
export VIRTUAL_ENV := $(VENV)
export PATH := $(VENV)/bin:$(PATH)

.PHONY: setup test docs demo fuzz faults soak audit lock clean

setup: $(VENV)/.package $(VENV)/.test

test: setup
	ruff check
	ruff format --check
	lint-imports
	pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

docs: $(VENV)/.docs $(VENV)/.package
	sphinx-build -W --keep-going -q docs docs/_build

demo: $(VENV)/.package
	panoptic demo $(if $(BAG),--bag "$(BAG)") $(if $(TOPIC),--topic "$(TOPIC)") \
		$(if $(MODEL),--model "$(MODEL)") $(if $(RESOLUTION),--resolution "$(RESOLUTION)") \
		$(if $(OUTPUT),--output "$(OUTPUT)")

fuzz: $(VENV)/.package $(VENV)/.test
	nice python -m campaigns.fuzz --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

faults: $(VENV)/.package $(VENV)/.test
	nice python -m campaigns.faults --rounds $(or $(ROUNDS),10) $(if $(SEED),--seed $(SEED))

soak: $(VENV)/.package $(VENV)/.test
	nice python -m campaigns.soak --hours $(or $(HOURS),24) --output docs/soak.png

audit: $(VENV)/.package $(VENV)/.audit
	bandit --quiet --configfile pyproject.toml --recursive panoptic_ros scripts launch
	pip-audit --strict --requirement requirements/$(ROS).lock --require-hashes --disable-pip

LOCK := uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url
lock: $(VENV)/.uv
	$(foreach ros,kilted jazzy,$(LOCK) --python-version 3.10 -o requirements/$(ros).lock \
		requirements/run.txt requirements/ros-$(ros).txt requirements/test.txt;)
	$(foreach list,docs audit uv,$(LOCK) --python-version 3.11 -o requirements/$(list).lock requirements/$(list).txt;)

clean:
	rm -rf .venv .venv-* build install log dist docs/_build docs/generated *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

# Links packages from its cache instead of unpacking them: another environment takes seconds.
$(VENV)/.uv: requirements/uv.txt $(VENV)/.python
	$(PIP) install $(call listed,uv)
	touch $@

$(VENV)/.run: requirements/run.txt requirements/ros-$(ROS).txt $(VENV)/.uv
	@echo "installing torch, ROS 2 $(ROS) and others into $(notdir $(VENV)): minutes, once"
	$(INSTALL) $(PACKAGES)
	touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.run
	$(if $(LOCKED),,$(INSTALL) -r requirements/test.txt)
	touch $@

$(VENV)/.audit: requirements/audit.txt $(VENV)/.run
	$(INSTALL) $(call listed,audit)
	touch $@

$(VENV)/.docs: requirements/docs.txt $(VENV)/.run
	$(INSTALL) $(call listed,docs)
	touch $@

# Editable: the code runs from the source tree, only the messages are built. Launch files and
# configurations are linked for ros2 launch, file by file, as it follows no linked folder.
$(VENV)/.package: setup.py pyproject.toml package.xml CMakeLists.txt cmake/ros_wheels.cmake \
		$(wildcard msg/*.msg) $(VENV)/.run
	$(PIP) install --no-deps --no-build-isolation --editable .
	cp --recursive --symbolic-link --force $(CURDIR)/config $(CURDIR)/launch $(SHARE)
	touch $@

# `make demo`: the whole way, from generated recordings to what a network learned of them.
# `make study`: what each ingredient is worth, into docs/results.md; about 14 hours on two cores.
# `make bounds`: the commands with the lowest and the newest versions of what they need; gigabytes.
# `make test`: the checks and tests that a change must pass.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
CLIPS ?= 320
STEPS ?= 2000
FEATURES ?= logmel+intensity
TRANSFORMER ?= --transformer --positions relative
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt --editable

.PHONY: demo study test soak bounds check clean

test: $(VENV)/.test check
	$(BIN)/pytest -n auto --dist loadfile

# What the tests do a little of, many times over: kills of a build, damaged recordings, and hostile
# files of every other kind.
soak: $(VENV)/.test
	AVPREP_TEST_KILLS=40 $(BIN)/pytest tests/avprep/build/test_scale.py
	$(BIN)/python -m tests.fuzz --count 2000
	$(BIN)/python -m tests.attack --count 1000
	$(BIN)/python -m tests.kills
	$(BIN)/python -m tests.kills --ends --twice

# PYTHONS="python3.11 python3.13": those with which the newest versions are tried.
PYTHONS ?= $(PYTHON)
bounds:
	$(PYTHON) -m tests.bounds --lowest $(PYTHON) --newest $(PYTHONS)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.test: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[test]"
	touch $@

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[prep,train]"
	touch $@

# Each step is a file that the step writes last, so that an interrupted demo goes on where it was.
# What was made with other settings is made again.
$(DEMO)/.clips: FORCE
	@mkdir -p $(@D)
	@echo "$(CLIPS)" | cmp -s - $@ || { cd $(@D) && rm -rf world shards avsa; \
		echo "$(CLIPS)" > $(@F); }

$(DEMO)/.training: FORCE $(DEMO)/.clips
	@echo "$(STEPS) $(FEATURES) $(TRANSFORMER)" | cmp -s - $@ || { cd $(@D) && rm -rf avsa; \
		echo "$(STEPS) $(FEATURES) $(TRANSFORMER)" > $(@F); }

FORCE:

demo: $(DEMO)/avsa/avsa-bin.result.json $(DEMO)/avsa/retrieval.result.json \
		$(DEMO)/avsa/locate.result.json $(DEMO)/clip.png $(DEMO)/avsa/heat.mp4
	@echo
	@echo "Places never seen in training. Does a sound belong to a view (AVSA-Bin, frozen features)?"
	@echo "By the match of picture and sound alone: to which view does a sound belong (retrieval;"
	@echo "'source in other views': only another view shows one), and where does it sound (locate)?"
	@$(BIN)/avtrain report $(DEMO)/avsa
	@echo "Pictures: $(DEMO)/clip.png (a clip of the set), $(DEMO)/avsa/curves.png (the training),"
	@echo "$(DEMO)/avsa/heat.mp4 (where the sound comes from, in a place never seen in training)"

$(DEMO)/world/README.md: $(DEMO)/.clips | $(VENV)/.run
	$(BIN)/avprep demo $(DEMO)/world --clips $(CLIPS)

$(DEMO)/shards/manifest.json: $(DEMO)/world/README.md
	$(BIN)/avprep build-shards $(DEMO)/world --out $(DEMO)/shards --hfov 70:90

$(DEMO)/clip.png: $(DEMO)/shards/manifest.json
	$(BIN)/avprep preview $(DEMO)/shards --raw $(DEMO)/world --at 5 --out $@

# A run that a signal stops ends with status 0, but says nothing on standard output.
$(DEMO)/avsa/.trained: $(DEMO)/shards/manifest.json $(DEMO)/.training
	@said=$$($(BIN)/avtrain pretrain $(DEMO)/shards --task avsa --preset tiny \
		--features $(FEATURES) $(TRANSFORMER) --steps $(STEPS) --out $(DEMO)/avsa --resume) && \
		if [ -n "$$said" ]; then echo "$$said"; touch $@; else \
		echo "The training is not finished; the same command continues it." >&2; exit 1; fi

$(DEMO)/avsa/avsa-bin.result.json: $(DEMO)/avsa/.trained
	$(BIN)/avtrain eval avsa $(DEMO)/shards --checkpoint $(DEMO)/avsa/checkpoint.pt \
		--out $(DEMO)/avsa

$(DEMO)/avsa/retrieval.result.json: $(DEMO)/avsa/.trained
	$(BIN)/avtrain eval retrieval $(DEMO)/shards --checkpoint $(DEMO)/avsa/checkpoint.pt \
		--views 4 --out $(DEMO)/avsa

$(DEMO)/avsa/locate.result.json: $(DEMO)/avsa/.trained
	$(BIN)/avtrain eval locate $(DEMO)/shards --checkpoint $(DEMO)/avsa/checkpoint.pt \
		--out $(DEMO)/avsa

$(DEMO)/avsa/heat.mp4: $(DEMO)/avsa/.trained
	place=$$(head -n 1 $(DEMO)/world/test.txt) && $(BIN)/avtrain locate \
		$(DEMO)/world/video/$$place-0.mp4 --checkpoint $(DEMO)/avsa/checkpoint.pt --out $@

# Finished jobs are kept: the same command goes on. SEEDS, MORE_SEEDS (further ones of some rows),
# STEPS and CLIPS decide what is made; JOBS run at a time; ONLY=REGEX names some; BF16=1 trains in
# bfloat16; TRAIN=OPTIONS adds options to every pretraining; BEGIN=FILE takes what another
# machine made (docs/study.zip); QUICK=1 shows in minutes that everything runs.
study: CLIPS := $(if $(QUICK),28,2400)
study: STEPS := $(if $(QUICK),6,4000)
study: SEEDS := $(if $(QUICK),1,5)
study: $(VENV)/.run
	$(BIN)/python -m benchmarks.study --clips $(CLIPS) --steps $(STEPS) --seeds $(SEEDS) \
		$(if $(MORE_SEEDS),--more-seeds $(MORE_SEEDS)) \
		$(if $(STUDY),--out $(STUDY)) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(ONLY),--only '$(ONLY)') $(if $(BEGIN),--begin-with $(BEGIN)) \
		$(if $(BF16),--bf16) $(if $(QUICK),--quick) $(if $(TRAIN),--train='$(TRAIN)')

clean:
	rm -rf $(VENV) $(DEMO)

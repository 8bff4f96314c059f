import json
from dataclasses import replace

import pytest
from matplotlib import pyplot as plt

from mpo_tutorial.course import widgets
from mpo_tutorial.course.squeeze_explorers import LiveSqueeze, SqueezeExplorer
from mpo_tutorial.experiments import squeezing
from mpo_tutorial.experiments.plans import Plan
from mpo_tutorial.experiments.squeeze import MET, Squeeze
from mpo_tutorial.experiments.tuned import Tuned

PLAN = Plan(step=6, steps=6, between=1, ratio=0.7, refresh=2)


@pytest.fixture(scope="module")
def squeezed(tiny_light_run, tmp_path_factory) -> tuple[dict, dict]:
    """The record of a squeezing, and what is left of each of the model's matrices in the end, counted in the model."""
    prepared = Tuned.of_run(tiny_light_run).prepared
    record = squeezing.run(prepared, PLAN, tmp_path_factory.mktemp("squeezed"), keep_model=False)
    layers = {name: m.mpo for name, m in prepared.model.named_modules() if hasattr(m, "mpo")}
    left = {name: mpo.n_params / mpo.to_matrix().numel() for name, mpo in layers.items()}
    return json.loads(json.dumps(record)), left


def test_what_is_left_follows_the_cuts(squeezed, tiny_light_run):
    record, left = squeezed
    explorer = SqueezeExplorer.of_record(record)
    assert explorer.dense == record["parameters"]["dense"]
    assert explorer.last == len(record["steps"]) - 1 >= 3
    assert explorer.shares(explorer.last) == pytest.approx(left)
    whole = {name: m.mpo for name, m in Tuned.of_run(tiny_light_run).model.named_modules() if hasattr(m, "mpo")}
    assert explorer.shares(0) == pytest.approx({n: mpo.n_params / mpo.to_matrix().numel() for n, mpo in whole.items()})
    for number in range(1, explorer.last + 1):
        (cut,) = record["steps"][number]["cuts"]
        before, after = explorer.shares(number - 1), explorer.shares(number)
        assert (
            {name for name in after if after[name] != before[name]} == {cut["matrix"]} == {explorer.picks()[number - 1]}
        )


def test_words_say_what_was_cut_and_what_it_cost(squeezed):
    record, _ = squeezed
    explorer = SqueezeExplorer.of_record(record)
    start, step = explorer.in_words(0), record["steps"][1]
    (cut,) = step["cuts"]
    assert start.startswith(f"Before the first cut: {100 * record['steps'][0]['parameters'] / explorer.dense:.1f} % of")
    said = explorer.in_words(1)
    for part in (
        f"from {', '.join(map(str, cut['before']))} to {', '.join(map(str, cut['after']))}",
        f"error, as a share of the outputs' norm, {cut['estimate']:.3g} estimated, {cut['error']:.3g} in truth",
        f"Loss {step['loss_before']:.3f} after the cut, {step['loss_after']:.3f} after tuning",
        f"accuracy {100 * step['validation']['accuracy']:.1f} %, AUC {step['validation']['auc']:.3f}.",
    ):
        assert part in said
    unseen = SqueezeExplorer([{**step, "validation": None}], record["matrices"], "absolute")
    assert unseen.in_words(0).endswith("% of the numbers are left.")
    assert f"error {cut['estimate']:.3g} estimated, {cut['error']:.3g} in truth;" in unseen.in_words(0)
    together = {**step, "cuts": [cut, cut]}
    assert "Step 0: 2 matrices are cut;" in SqueezeExplorer([together], record["matrices"], "outputs").in_words(0)


def test_the_slider_goes_through_either_squeezing(squeezed):
    record, _ = squeezed
    short = {**record, "steps": record["steps"][:3]}
    explorers = {"long": SqueezeExplorer.of_record(record), "short": SqueezeExplorer.of_record(short)}
    name, slider, shown = widgets.squeeze_replay(explorers).children
    assert slider.max == explorers["long"].last
    assert "Step 2: " in shown.value
    slider.value = slider.max
    assert f"Step {explorers['long'].last}: " in shown.value
    name.value = "short"
    assert (slider.max, slider.value) == (2, 2)
    assert "Step 2: " in shown.value
    slider.value = 0
    assert "Before the first cut" in shown.value
    name.value = "long"
    slider.value = 3
    assert "Step 3: " in shown.value
    assert not plt.get_fignums()


def test_the_button_squeezes_until_the_end(tiny_light_run):
    prepared = Tuned.of_run(tiny_light_run).prepared
    live = LiveSqueeze(Squeeze(prepared, replace(PLAN, steps=2, ratio=0.9)))
    button, shown = widgets.live_squeeze(live).children
    assert "Before the first cut" in shown.value
    presses = 0
    while not button.disabled:
        button.click()
        presses += 1
        assert f"Step {presses}: " in shown.value
    assert live.squeeze.stopped == MET
    assert presses == len(live.squeeze.steps) - 1 > 1
    assert f"It has ended: {MET}." in shown.value
    live.advance()
    assert len(live.squeeze.steps) == presses + 1
    assert not plt.get_fignums()

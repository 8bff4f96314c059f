"""The study that sets squeezing against one cut."""

from dataclasses import replace

import pytest

from mpo_tutorial.experiments import compare, records, squeezes, study
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.light import LIGHT
from mpo_tutorial.experiments.plans import Plan
from mpo_tutorial.experiments.squeezes import FITTED, GREEDY, HALF, MILDER, QUARTER, RATIOS, SQUEEZE, UNCUT, WAYS
from mpo_tutorial.experiments.tuned import config_of_run


@pytest.fixture
def small(monkeypatch):
    """Few seeds and rates of the primary pair, a variant that takes over a rate, and the uncut model; steps for a tiny model."""
    names = (f"{GREEDY}, {HALF}", f"{FITTED}, {HALF}", f"{FITTED}, {QUARTER}", UNCUT)
    variants = {}
    for name in names:
        variant = SQUEEZE.variants[name]
        plan = replace(variant.plan, steps=4, between=1, step=6, ratio=0.8 if variant.plan.ratio == 0.5 else 0.7)
        variants[name] = replace(variant, rates=variant.rates[:2], seeds=1, plan=plan)
    splits = {"tuned_on": ("validation",), "opened": ("test",)}  # of its sentences none are left out
    found = replace(SQUEEZE, variants=variants, tuning_seeds=(100,), most_seeds=0, **splits)
    monkeypatch.setattr(squeezes, "SQUEEZE", found)
    return found


def test_the_study_squeezes_light_runs_and_chooses_rates_at_half(small, tiny_light_run, tmp_path):
    base = replace(config_of_run(tiny_light_run), epochs=1)
    made = squeezes.study(base, tmp_path / "starts")
    points = study.run(made, tmp_path / "out", progress=False)
    stages = [point["stage"] for point in points]
    assert stages.count("tuning") == 6
    assert stages.count("final") == 4
    assert stages.count("floors") == 2
    assert sorted(path.name for path in (tmp_path / "starts").iterdir() if path.is_dir()) == [
        "centred-0",
        "centred-100",
    ]
    start = config_of_run(tmp_path / "starts" / "centred-0")
    assert (start.learning_rate, start.seed) == (squeezes.START_RATES["centred"], 0)
    rates = compare.chosen_rates(points, small)
    for point in points:
        if point["stage"] == "final":
            name, setting, result = point["setting"]["variant"], point["setting"], point["result"]
            plan = Plan(**setting["plan"])
            assert setting["config"]["learning_rate"] == rates[name.replace(QUARTER, HALF)]
            assert (setting["splits"].count("test") == 2) == (name in small.primary)
            assert result["bytes"] == 4 * result["parameters"]["total"] > result["stored_bytes"]
            assert (result["cuts"] == 0) == (name == UNCUT)
            if name.startswith(GREEDY):
                assert len(result["steps"]["errors"]) == result["cuts"] == len(result["steps"]["estimates"])
                assert result["steps"]["parameters"] == sorted(result["steps"]["parameters"], reverse=True)
                assert result["steps"]["done"][-1] == plan.steps
    summary = compare.summarise(points, small)
    assert summary["primary"].keys() == {"test"}
    again = study.run(made, tmp_path / "out", resume=True, progress=False)
    assert again == points


def test_what_was_fixed_beforehand():
    assert SQUEEZE.primary == (f"{GREEDY}, {HALF}", f"{FITTED}, {HALF}")
    assert (SQUEEZE.margin, SQUEEZE.tuned_on) == (0.01, ("validation", "unused"))
    greedy, fitted = (SQUEEZE.variants[name] for name in SQUEEZE.primary)
    assert greedy.rates == fitted.rates
    assert greedy.seeds == fitted.seeds == 10
    assert (greedy.plan.schedule, greedy.plan.error, greedy.plan.fitted) == ("greedy", "outputs", True)
    assert (fitted.plan.schedule, fitted.plan.allot, fitted.plan.fitted) == ("once", "alike", True)
    assert len(SQUEEZE.variants) == 2 * len(WAYS) + len(MILDER) + 1
    for name, variant in SQUEEZE.variants.items():
        assert variant.plan.steps == 200
        assert variant.plan.gauge == variant.options.get("gauge", "centred")
        if name != UNCUT:
            assert variant.plan.ratio == {**RATIOS, **MILDER}[name.rpartition(", ")[2]]
        if not name.endswith(HALF) and name != UNCUT:
            of_half = SQUEEZE.variants[variant.rate_of].plan
            assert of_half == replace(variant.plan, ratio=RATIOS[HALF], between=of_half.between)
            if variant.plan.schedule == "greedy":
                assert of_half.between == 2 * variant.plan.between
            else:
                assert of_half.between == variant.plan.between
    assert len(SQUEEZE.tuning_seeds) == 3
    assert not set(SQUEEZE.tuning_seeds) & set(range(SQUEEZE.most_seeds))


def test_squeezing_starts_from_light_runs_at_their_best_rates():
    chosen = compare.chosen_rates(records.shipped_points("light"), LIGHT)
    assert {"centred": chosen["light"], "tt-svd": chosen["light, gauge tt-svd"]} == squeezes.START_RATES


def test_a_variant_brings_along_the_one_whose_rate_it_takes(tmp_path):
    made = squeezes.study(RunConfig(), tmp_path, [f"{FITTED}, {QUARTER}"])
    assert {setting["variant"] for setting in made.stages["tuning"]([])} == {f"{FITTED}, {HALF}"}

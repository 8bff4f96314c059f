from collections import Counter

import pytest

from mpo_tutorial.experiments import compare, light, records
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.light import LIGHT
from mpo_tutorial.models.methods import METHODS


@pytest.fixture(scope="module")
def points() -> list[dict]:
    return records.shipped_points("light")


def test_the_record_holds_every_run_of_its_grid(points):
    """Those of each variant that it has, and no others: what `--resume` would find."""
    made = {p["setting"]["variant"] for p in points}
    study = light.study(RunConfig(micro_batch_size=32), [name for name in LIGHT.variants if name in made])
    for stage, settings in study.stages.items():
        asked = Counter(map(_key, settings(points)))
        assert Counter(_key(p["setting"]) for p in points if p["stage"] == stage) == asked


def _key(setting: dict) -> str:
    from mpo_tutorial.experiments.study import key_of

    return key_of(setting)


def test_nobody_looks_where_it_must_not(points):
    for p in points:
        splits = set(p["setting"]["splits"])
        assert splits == set(p["result"]) - {"parameters", "stored_bytes", "train_sentences", "seconds", "strength"}
        if p["stage"] == "tuning":
            assert splits == {"validation", "unused"}
            assert p["setting"]["config"]["seed"] in LIGHT.tuning_seeds
        else:
            assert ("confirmation" in splits) == (p["setting"]["variant"] in LIGHT.primary)
            assert p["setting"]["config"]["seed"] not in LIGHT.tuning_seeds


def test_variants_differ_from_their_names_alone(points):
    """Of the pair all but the method is equal, and both are read by the mean."""
    ours, other = ({**p["setting"]["config"], "seed": 0} for p in _first(points, *LIGHT.primary))
    assert ours["pooling"] == other["pooling"] == "mean"
    assert {name for name in ours if ours[name] != other[name]} == {"method", "rest", "learning_rate"}
    for p in points:
        config, name = p["setting"]["config"], p["setting"]["variant"]
        assert config["pooling"] == ("pooler" if "pooler" in name else "mean")
        assert (config["task"] == "imdb") == ("imdb" in name)
        assert (config["train_size"] == 500) == ("500" in name)


def _first(points: list[dict], *names: str) -> list[dict]:
    return [next(p for p in points if p["stage"] == "final" and p["setting"]["variant"] == name) for name in names]


def test_controls_train_as_many_numbers_as_light(points):
    """As the blocks A and B have; the cores of a decomposition that is not square have a few more."""
    trained = {name: _first(points, name)[0]["result"]["parameters"]["trained"] for name in _tested(points)}
    assert trained["random mask"] == trained["random subspace"] == trained["light, gauge amb"]
    assert trained["light"] == trained["light, gauge tt-svd"] >= trained["light, gauge amb"]


def _tested(points: list[dict]) -> set[str]:
    return {p["setting"]["variant"] for p in points if p["stage"] == "final"}


def test_the_margin_and_the_seeds_were_set_beforehand(points):
    assert (LIGHT.margin, LIGHT.variants["light"].seeds, LIGHT.primary) == (0.01, 10, ("light", "full"))
    found = compare.summarise(points, LIGHT)["primary"]
    assert found["confirmation"]["seeds"] == found["test"]["seeds"] >= 10
    assert found["confirmation"]["seeds"] >= found["confirmation"]["seeds_needed"]  # so it decides


def test_default_rates_are_those_that_the_study_chose(points):
    variants = {"light": "light", "full": "full", "head": "head only", "bitfit": "BitFit"}
    variants |= {"mask": "random mask", "subspace": "random subspace"}
    variants |= {"last-1": "last layer", "last-2": "last 2 layers", "last-3": "last 3 layers"}
    rates = compare.chosen_rates(points, LIGHT)
    assert {method: METHODS[method].learning_rate for method in variants} == {
        method: rates[name] for method, name in variants.items()
    }

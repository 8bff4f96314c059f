import hashlib
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from small_studies import cluster, killed_in_training

from mpo_tutorial.experiments import bench, compare, records, statistics, study
from mpo_tutorial.experiments.compare import GRIDS, MARGIN, SEEDS, TUNING_SEEDS, chosen_rates, summarise
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.tuned import config_of_run
from mpo_tutorial.models.methods import METHODS


@pytest.fixture(scope="module")
def points() -> list[dict]:
    return records.shipped_points("compare")


def point(stage: str, method: str, rate: float, seed: int, right) -> dict:
    split = "validation" if stage == "tuning" else "test"
    config = {"method": method, "learning_rate": rate, "seed": seed}
    return {"stage": stage, "setting": {"config": config}, "result": {split: statistics.score(right)}}


def test_shipped_comparison_holds_every_run(points):
    for method, rates in GRIDS.items():
        tuned = [p for p in points if (p["stage"], p["setting"]["config"]["method"]) == ("tuning", method)]
        found = [(p["setting"]["config"]["learning_rate"], p["setting"]["config"]["seed"]) for p in tuned]
        assert found == [(rate, seed) for rate in rates for seed in TUNING_SEEDS]
        final = [p for p in points if (p["stage"], p["setting"]["config"]["method"]) == ("final", method)]
        assert [p["setting"]["config"]["seed"] for p in final] == [*SEEDS]
        assert all(p["result"]["test"]["n"] == 2000 and p["result"]["validation"]["n"] == 500 for p in final)
        assert not any("test" in p["result"] for p in tuned)


def test_the_best_rate_on_the_validation_set_is_chosen():
    half, most = np.arange(100) < 50, np.arange(100) < 90
    tuned = [
        point("tuning", method, rate, seed, most if (rate == best) == (seed == 0) or rate == best else half)
        for method, best in (("light", 1e-4), ("full", 1e-5))
        for rate in (1e-5, 1e-4, 1e-3)
        for seed in (0, 1)
    ]
    assert chosen_rates(tuned) == {"light": 1e-4, "full": 1e-5}
    assert chosen_rates([*tuned, point("final", "light", 1e-2, 0, most)]) == {"light": 1e-4, "full": 1e-5}


def test_default_rates_are_the_best_of_grids_of_one_size(points):
    assert len({len(rates) for rates in GRIDS.values()}) == 1
    for method, rates in GRIDS.items():
        means = [
            np.mean(
                [
                    p["result"]["validation"]["accuracy"]
                    for p in points
                    if p["stage"] == "tuning"
                    and (p["setting"]["config"]["learning_rate"], p["setting"]["config"]["method"]) == (rate, method)
                ]
            )
            for rate in rates
        ]
        assert rates[int(np.argmax(means))] == chosen_rates(points)[method] == METHODS[method].learning_rate


def test_the_difference_is_paired_by_seeds():
    def final(light: list[int], full: list[int]) -> dict:
        runs = [("light", light), ("full", full)]
        return summarise(
            [point("final", m, 1e-4, seed, np.arange(1000) < n) for m, found in runs for seed, n in enumerate(found)]
        )

    found = final([800, 900, 700], [810, 912, 708])
    pairs = np.array([-0.010, -0.012, -0.008])
    half = 4.302652730 * pairs.std(ddof=1) / np.sqrt(3)
    assert found["difference"]["mean"] == pytest.approx(-0.01)
    assert found["difference"]["interval"] == pytest.approx([-0.01 - half, -0.01 + half])
    assert found["difference"]["not_inferior"]
    assert found["accuracy"]["light"]["mean"] == pytest.approx(0.8)
    worse = final([750, 850, 650], [810, 912, 708])["difference"]
    assert (worse["margin"], worse["not_inferior"]) == (MARGIN, False)
    assert final([800], [810])["difference"]["not_inferior"] is False
    assert final([800, 700], [800, 700])["difference"]["seeds_needed"] is None


def test_shipped_comparisons_follow_from_their_runs(points):
    """Light minus full by seeds, as read from the record by hand: -0.4, -2.7, -1.5 and -0.3, -2.55, -5.4 points."""
    for name, differences in (("compare", [-0.4, -2.7, -1.5]), ("compare-3-epochs", [-0.3, -2.55, -5.4])):
        found = summarise(records.shipped_points(name))
        assert found["difference"]["mean"] == pytest.approx(np.mean(differences) / 100)
        assert found["difference"]["interval"] == pytest.approx(
            np.array(statistics.over_seeds(differences)["interval"]) / 100
        )
    assert all(p["result"]["parameters"]["trained"] <= 1_110_000 for p in summarise(points)["final"]["light"])


def small(light_run) -> study.Study:
    config = config_of_run(light_run).as_dict() | {"epochs": 1, "train_size": 40}
    return compare.study(RunConfig(**config), seeds=(0, 1))


def results(points: list[dict]) -> list[tuple]:
    """What must be equal to the last bit: all but the seconds."""
    return [(p["stage"], p["setting"], {k: v for k, v in p["result"].items() if k != "seconds"}) for p in points]


@pytest.fixture(scope="module")
def made(tiny_light_run, tmp_path_factory) -> list[dict]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "GRIDS", {"light": (5e-3,), "full": (1e-3, 3e-3)})
        return study.run(small(tiny_light_run), tmp_path_factory.mktemp("compare"), progress=False)


def test_a_comparison_tunes_and_then_measures(made):
    assert [p["stage"] for p in made] == ["tuning"] * 3 + ["final"] * 4
    rate = chosen_rates(made)["full"]
    assert {p["setting"]["config"]["learning_rate"] for p in made[5:]} == {rate}
    for p in made:
        assert p["result"].keys() >= {"parameters", "stored_bytes", "train_sentences", "validation", "seconds"}
        assert ("test" in p["result"]) == (p["stage"] == "final")
    assert "tuning: light, rate 0.005, seed 0: validation 0." in compare.describe(made[0])


@pytest.mark.parametrize("makers", ["processes", "cluster"])
@pytest.mark.parametrize("deaths", [0, 2])
def test_whoever_makes_them_comparisons_are_equal_to_the_last_bit(
    made, tiny_light_run, tmp_path, monkeypatch, makers, deaths
):
    monkeypatch.setattr(compare, "GRIDS", {"light": (5e-3,), "full": (1e-3, 3e-3)})
    marks = tmp_path / "marks"
    marks.mkdir()
    measure = partial(killed_in_training, marks=marks, deaths=deaths)
    mortal = replace(small(tiny_light_run), measure=measure)
    if makers == "processes":
        found = study.run(mortal, tmp_path / "out", workers=2, progress=False)
    else:
        with cluster(tmp_path) as address:
            found = study.run(mortal, tmp_path / "out", scheduler=address, progress=False)
    assert len(list(marks.iterdir())) == deaths
    assert results(found) == results(made)
    assert {p["hardware"]["threads"] for p in found} == {1}


def digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def old_runs(name: str) -> dict:
    """The runs of a comparison as the records of before had them."""
    found = {"tuning": [], "final": []}
    for p in records.shipped_points(name):
        result = dict(p["result"])
        config = {k: v for k, v in p["setting"]["config"].items() if k != "matrices"}
        made = {key: p[key] for key in ("date", "versions", "hardware")}
        run = {**made, "config": config, "peak_memory_bytes": result.pop("process_peak_bytes"), **result}
        found[p["stage"]].append({"kind": "finetune", **run})
    return found


def old_points() -> dict:
    """The points of the two records that are one now, as they were."""
    cut = records.shipped_points("cuts")
    rename = {f"*.layer.{k}.*": f"layer {k}" for k in range(6)}
    ratios = [
        {
            "seed": p["setting"]["seed"],
            "way": p["setting"]["way"],
            "ratio": p["setting"]["cut"]["ratio"],
            "part": rename.get(p["setting"]["cut"]["matrices"], p["setting"]["cut"]["matrices"]),
            **p["result"],
        }
        for p in cut
        if p["stage"] == "ratios"
    ]
    bonds = [
        {"part": p["setting"]["cut"]["matrices"], "max_bond": p["setting"]["cut"]["max_bond"], **p["result"]}
        for p in cut
        if p["stage"] == "bonds"
    ]
    uncut = [
        (p["setting"]["seed"], p["result"]["accuracy"], p["result"]["states"]) for p in cut if p["stage"] == "uncut"
    ]
    return {"ratios": ratios, "bonds": bonds, "uncut": uncut}


def old_errors() -> list:
    return sorted(
        [p["setting"]["seed"], p["setting"]["ratio"], p["setting"]["way"], matrix, error]
        for p in records.shipped_points("legwise")
        for matrix, error in p["result"]["errors"].items()
    )


# Taken from the files of commit 0495471, before docs/convert_records.py (see commit 52861c8) made points of them.
DIGESTS = {
    "compare tuning": "0da427f3a263c7d6",
    "compare final": "16e2c34c6791a704",
    "compare-3-epochs tuning": "9e0fb29cb9146f19",
    "compare-3-epochs final": "de24c71a212edaf4",
    "ratios": "8bf6b4f370153e00",
    "bonds": "3d96e9bdc7c180e0",
    "uncut": "3e60e19049b9dbb5",
    "legwise": "262908f31479e0a0",
    "bench": "c6076136623aed0a",
    "bench passes": "0954ae9e3bf76125",
}


def test_the_conversion_of_the_records_kept_every_value():
    found = {
        f"{name} {stage}": digest(runs)
        for name in ("compare", "compare-3-epochs")
        for stage, runs in old_runs(name).items()
    }
    found |= {name: digest(rows) for name, rows in old_points().items()}
    found["legwise"] = digest(old_errors())
    summary = bench.summarise(records.shipped_points("bench"))
    found["bench"] = digest([summary[part] for part in ("decomposition", "evaluation", "slider", "peers")])
    found["bench passes"] = digest(
        [row for part in ("layer", "model") for row in summary[part] if row["contender"] != "counted limit"]
    )
    assert found == DIGESTS

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import warm
from small_studies import cluster, killed_in_training

from mpo_tutorial.experiments import compare, statistics, study, workers
from mpo_tutorial.experiments.compare import TRIAL, Comparison, Variant, chosen_rates, open_left_out, summarise
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.tasks import load_task
from mpo_tutorial.experiments.tuned import config_of_run

PAIR = replace(
    TRIAL,
    margin=0.02,
    variants={"light": Variant((5e-3,), {}, 2), "full": Variant((1e-3, 3e-3), {"method": "full"}, 2)},
)


def point(stage: str, variant: str, rate: float, seed: int, **splits) -> dict:
    """A point of whose sentences so many of a thousand, or those that a split is given, were right."""
    result = {
        split: statistics.score(np.arange(1000) < right if isinstance(right, int) else right)
        for split, right in splits.items()
    }
    config = {"learning_rate": rate, "seed": seed}
    counts = {"parameters": {"trained": 1, "total": 2}, "stored_bytes": 4}
    return {
        "stage": stage,
        "setting": {"variant": variant, "config": config, "splits": [*splits]},
        "result": {**counts, **result},
    }


def test_the_best_rate_over_the_tuning_seeds_is_chosen():
    """For one seed alone another rate looks better."""
    half, most = np.arange(100) < 50, np.arange(100) < 90
    tuned = [
        point("tuning", name, rate, seed, validation=most if (rate == best) == (seed == 0) or rate == best else half)
        for name, best in (("light", 1e-4), ("full", 1e-5))
        for rate in (1e-5, 1e-4, 1e-3)
        for seed in (0, 1)
    ]
    assert chosen_rates(tuned, PAIR) == {"light": 1e-4, "full": 1e-5}
    tested = point("final", "light", 1e-2, 0, validation=most)
    assert chosen_rates([*tuned, tested], PAIR) == {"light": 1e-4, "full": 1e-5}


def test_sentences_count_alike_where_several_splits_tune():
    """Of 100 and 1,000 sentences: the mean of the two accuracies would choose the other rate."""
    few = {1e-4: np.arange(100) < 90, 2e-4: np.arange(100) < 60}
    many = {1e-4: 700, 2e-4: 720}
    tuned = [point("tuning", "light", rate, 0, validation=few[rate], unused=many[rate]) for rate in few]
    wide = replace(PAIR, tuned_on=("validation", "unused"))
    assert compare.tuned(tuned, wide)["light"] == {1e-4: [790 / 1100], 2e-4: [780 / 1100]}
    assert chosen_rates(tuned, wide) == {"light": 1e-4}
    assert chosen_rates(tuned, replace(wide, tuned_on=("unused",))) == {"light": 2e-4}


def test_the_difference_is_paired_by_seeds():
    def final(light: list[int], full: list[int], comparison: Comparison = PAIR) -> dict:
        runs = [("light", light), ("full", full)]
        tested = [point("final", m, 1e-4, seed, test=n) for m, found in runs for seed, n in enumerate(found)]
        return summarise(tested[::-1], comparison)

    found = final([800, 900, 700], [810, 912, 708])
    pairs = np.array([-0.010, -0.012, -0.008])
    half = 4.302652730 * pairs.std(ddof=1) / np.sqrt(3)
    decided = found["primary"]["test"]
    assert decided["mean"] == pytest.approx(-0.01)
    assert decided["interval"] == pytest.approx([-0.01 - half, -0.01 + half])
    assert decided["not_inferior"]
    assert found["variants"]["light"]["test"]["mean"] == pytest.approx(0.8)
    assert found["variants"]["light"]["minus_beside"]["mean"] == pytest.approx(-0.01)
    assert found["variants"]["full"]["minus_beside"] is None
    assert (
        final([800, 900, 700], [810, 912, 708], replace(PAIR, margin=0.014))["primary"]["test"]["not_inferior"] is False
    )
    worse = final([750, 850, 650], [810, 912, 708])["primary"]["test"]
    assert (worse["margin"], worse["not_inferior"]) == (0.02, False)
    assert final([800], [810])["primary"]["test"]["not_inferior"] is False
    assert final([800, 700], [800, 700])["primary"]["test"]["seeds_needed"] is None
    longer = final([800, 900, 700, 100], [810, 912, 708])["primary"]["test"]
    assert (longer["seeds"], longer["mean"]) == (3, decided["mean"])


def test_each_variant_is_set_against_its_own():
    variants = {
        **PAIR.variants,
        "light, imdb": Variant((1e-3,), {}, 2, "full, imdb"),
        "full, imdb": Variant((1e-3,), {}, 2),
    }
    right = {"light": 800, "full": 850, "light, imdb": 600, "full, imdb": 500}
    tested = [point("final", name, 1e-3, seed, test=n + seed) for name, n in right.items() for seed in (0, 1)]
    found = summarise(tested, replace(PAIR, variants=variants))["variants"]
    assert found["light, imdb"]["minus_beside"]["mean"] == pytest.approx(0.1)
    assert found["light"]["minus_beside"]["mean"] == pytest.approx(-0.05)
    assert found["full, imdb"]["minus_beside"]["mean"] == pytest.approx(-0.35)


@pytest.mark.parametrize(("most", "seeds"), [(0, 2), (30, 10), (6, 6)])
def test_the_pilots_spread_says_how_many_seeds_decide(most, seeds):
    """Differences of -0.01, 0.01 and 0.03 have a standard deviation of 0.02, for which a margin of 0.02 asks for 10 seeds
    (power of the paired t test, 80 %, one side of 2.5 %); a variant that is not of the pair keeps its own number.
    """
    other = Variant((1e-3,), {"method": "head"}, 3)
    asked = replace(PAIR, variants={**PAIR.variants, "head": other}, most_seeds=most, tuning_seeds=(7, 8, 9))
    made = compare.study(asked, RunConfig(model="minilm", epochs=1))
    right = {"light": (490, 510, 530), "full": (500, 500, 500), "head": (400, 400, 400)}
    pilot = []
    for setting in made.stages["tuning"]([]):
        seed, rate = setting["config"]["seed"], setting["config"]["learning_rate"]
        n = right[setting["variant"]][seed - 7] - (100 if rate == 3e-3 else 0)
        pilot.append(point("tuning", setting["variant"], rate, seed, validation=n))
    found = [setting["variant"] for setting in made.stages["final"](pilot)]
    assert {name: found.count(name) for name in right} == {"light": seeds, "full": seeds, "head": 3}


def test_the_opened_split_is_for_the_pair_alone():
    asked = replace(
        PAIR, variants={**PAIR.variants, "head": Variant((1e-3,), {"method": "head"}, 1)}, opened=("confirmation",)
    )
    made = compare.study(asked, RunConfig(model="minilm", epochs=1))
    tuned = [
        point("tuning", s["variant"], s["config"]["learning_rate"], 0, validation=500)
        for s in made.stages["tuning"]([])
    ]
    assert {split for s in made.stages["tuning"]([]) for split in s["splits"]} == {"validation"}
    looked = {s["variant"]: s["splits"] for s in made.stages["final"](tuned)}
    assert looked["light"] == looked["full"] == ["validation", "test", "confirmation"]
    assert looked["head"] == ["validation", "test"]


def test_sentences_left_out_are_no_runs_own():
    task = load_task("rotten_tomatoes")
    open_left_out(task, ["validation", "test"])
    assert not task.splits.keys() & {"unused", "confirmation"}
    open_left_out(task, ["test", "unused"])
    found = task.splits
    texts = {name: {text for text, _ in rows} for name, rows in {**found, "used": task.train(None)}.items()}
    assert (len(found["unused"]), len(found["confirmation"])) == (1000, len(found["train"]) - 4200)
    assert texts["used"] | texts["unused"] | texts["confirmation"] == texts["train"]
    apart = ["used", "unused", "confirmation", "validation", "test"]
    assert all(not texts[one] & texts[other] for one in apart for other in apart if one != other)
    assert not {text for text, _ in task.train(500)} - texts["used"]


def test_a_strange_variant_is_refused():
    with pytest.raises(ValueError, match="variants are light; full; got 'fool'"):
        compare.study(PAIR, RunConfig(), ["light", "fool"])


def small(light_run) -> study.Study:
    config = config_of_run(light_run).as_dict() | {"epochs": 1, "train_size": 40}
    return compare.study(PAIR, RunConfig(**config))


def results(points: list[dict]) -> list[tuple]:
    """What must be equal to the last bit: all but the seconds."""
    return [(p["stage"], p["setting"], {k: v for k, v in p["result"].items() if k != "seconds"}) for p in points]


@pytest.fixture(scope="module")
def made(tiny_light_run, tmp_path_factory) -> list[dict]:
    return study.run(small(tiny_light_run), tmp_path_factory.mktemp("compare"), progress=False)


def test_a_comparison_tunes_and_then_measures(made):
    assert [p["stage"] for p in made] == ["tuning"] * 3 + ["final"] * 4 + ["floors"] * 2
    rate = chosen_rates(made, PAIR)["full"]
    assert {p["setting"]["config"]["learning_rate"] for p in made[5:7]} == {rate}
    for p in made[:7]:
        assert p["result"].keys() >= {"parameters", "stored_bytes", "train_sentences", "validation", "seconds"}
        assert ("test" in p["result"]) == (p["stage"] == "final")
    assert "tuning: light, rate 0.005, seed 0: validation 0." in compare.describe(made[0])


@pytest.mark.parametrize("makers", ["processes", pytest.param("cluster", marks=pytest.mark.full)])
def test_whoever_makes_them_and_dies_comparisons_are_equal_to_the_last_bit(
    made, tiny_light_run, tmp_path, monkeypatch, makers
):
    """Workers of processes have their imports behind them; test_study has them start as they do elsewhere."""
    monkeypatch.setattr(workers, "get_context", lambda _: warm.context)
    deaths = 2
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


def _tuned(variant: str, right: dict[float, int], stage: str = "tuning", seeds=(0,)) -> list[dict]:
    return [point(stage, variant, rate, seed, validation=n) for rate, n in right.items() for seed in seeds]


@pytest.mark.parametrize(
    ("right", "beyond"),
    [
        ({1e-4: 500, 2e-4: 600, 4e-4: 700}, 8e-4),
        ({1e-4: 700, 2e-4: 600, 4e-4: 500}, 5e-5),
        ({1e-4: 600, 2e-4: 700, 4e-4: 500}, None),
        ({1e-4: 500, 2e-4: 500, 4e-4: 500}, None),
        ({1e-4: 500, 2e-4: 700, 4e-4: 700}, None),
        ({1e-4: 700, 3e-4: 600, 9e-4: 500}, 1e-4 / 3),
        ({1e-4: 700}, None),
    ],
)
def test_a_grid_goes_on_beyond_an_end_that_is_better_than_what_is_beside_it(right, beyond):
    asked = replace(PAIR, variants={"light": Variant(tuple(right), {}, 2)}, moves=2, tuning_seeds=(7, 8))
    stages = compare.study(asked, RunConfig(model="minilm", epochs=1)).stages
    assert list(stages) == ["tuning", "tuning, moved 1", "tuning, moved 2", "final", "floors"]
    points = _tuned("light", right, seeds=(7, 8))
    found = stages["tuning, moved 1"](points)
    assert [s["config"]["seed"] for s in found] == ([] if beyond is None else [7, 8])
    assert all(s["config"]["learning_rate"] == pytest.approx(beyond, rel=1e-5) for s in found)
    assert all(s["splits"] == ["validation"] for s in found)


def test_a_grid_that_has_stopped_does_not_go_on_again():
    """The second's best lies inside after one move; the first goes on; and what moved counts when rates are chosen."""
    rates = (1e-4, 2e-4)
    both = {"light": Variant(rates, {}, 2), "full": Variant(rates, {"method": "full"}, 2)}
    stages = compare.study(replace(PAIR, variants=both, moves=2), RunConfig(model="minilm", epochs=1)).stages
    points = [*_tuned("light", {1e-4: 500, 2e-4: 600}), *_tuned("full", {1e-4: 500, 2e-4: 600})]
    moved = stages["tuning, moved 1"](points)
    assert [(s["variant"], s["config"]["learning_rate"]) for s in moved] == [("light", 4e-4), ("full", 4e-4)]
    points += [*_tuned("light", {4e-4: 650}, "tuning, moved 1"), *_tuned("full", {4e-4: 550}, "tuning, moved 1")]
    moved = stages["tuning, moved 2"](points)
    assert [(s["variant"], s["config"]["learning_rate"]) for s in moved] == [("light", 8e-4)]
    assert chosen_rates(points, PAIR) == {"light": 4e-4, "full": 2e-4}


@pytest.mark.parametrize(("epochs", "share", "tried"), [(3, 0.5, 2), (2, 0.5, 1), (1, 0.5, 1), (3, 1.0, 3)])
def test_rates_are_tried_for_a_share_of_the_epochs(epochs, share, tried):
    asked = replace(PAIR, tuned_for=share)
    stages = compare.study(asked, RunConfig(model="minilm", epochs=epochs)).stages
    tuning = stages["tuning"]([])
    assert {s["config"]["epochs"] for s in tuning} == {tried}
    points = [point("tuning", s["variant"], s["config"]["learning_rate"], 0, validation=500) for s in tuning]
    assert {s["config"]["epochs"] for s in stages["final"](points)} == {epochs}


def test_a_difference_is_of_two_that_were_tested():
    runs = {"light": [800, 900, 700], "full": [810, 912, 708, 500]}
    tested = [point("final", name, 1e-4, seed, test=n) for name, found in runs.items() for seed, n in enumerate(found)]
    found = summarise(tested, PAIR)
    assert compare.difference(found, "light", "full") == found["variants"]["light"]["minus_beside"]
    assert compare.difference(found, "full", "light")["mean"] == pytest.approx(0.01)
    assert compare.difference(found, "light", "light") is None
    assert compare.difference(found, "light", "head") is None

from collections import Counter
from dataclasses import replace

import pytest

from mpo_tutorial.experiments import rivals
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.rivals import LIGHT, LORA, RIVALS, among, costs
from mpo_tutorial.models.convert import count
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.methods import METHODS

EQUAL = (LORA, "light, A M B by PEFT", "DoRA", "AdaLoRA", "adapter", "prefix, 242 keys")


def trained(name: str) -> int:
    options = RIVALS.variants[name].options
    config = RunConfig(rest="head", **{key: options[key] for key in options if key != "rest"})
    config = replace(config, rest=options.get("rest", "head"))
    model, _ = load("minilm")
    METHODS[config.method].apply(model, config.way)
    return METHODS[config.method].n_trained(model, config.way)


def test_who_is_set_against_light_trains_as_many_numbers():
    ours = trained(LIGHT)
    assert ours == 1_117_058  # as in the record of `light`
    for name in EQUAL:
        assert trained(name) == pytest.approx(ours, rel=0.1), name
    assert trained(LORA) == pytest.approx(ours, rel=0.005)


@pytest.mark.parametrize("share", [0.01, 0.001])
def test_who_trains_a_share_trains_about_that(share):
    total = count(load("minilm")[0])
    named = [name for name in RIVALS.variants if name.endswith(f" {100 * share:g} %")]
    assert {name.split(",")[0] for name in named} == {"LoRA", "light", "adapter"}
    for name in named:
        assert trained(name) == pytest.approx(share * total, rel=0.15), name


def test_all_are_tuned_by_one_rule_and_the_pair_decides():
    for name, variant in RIVALS.variants.items():
        low, middle, high = variant.rates
        assert (2 * low, 2 * middle) == (middle, high)
        assert middle == METHODS[variant.options["method"]].learning_rate, name
        assert variant.seeds == (10 if name in RIVALS.primary else 5)
        assert variant.beside in RIVALS.variants
    assert RIVALS.primary == ("light", "LoRA")
    assert (RIVALS.margin, RIVALS.tuned_for, RIVALS.moves, len(RIVALS.tuning_seeds)) == (0.01, 0.5, 3, 3)
    tested = {variant.options["method"] for variant in RIVALS.variants.values()}
    assert set(METHODS) - tested == {"mask", "subspace"}  # light's controls, which its own study has


def test_elsewhere_the_same_methods_meet_with_the_same_sizes():
    for place, options in rivals.ELSEWHERE.items():
        there = {name: v for name, v in RIVALS.variants.items() if name.endswith(f", {place}")}
        assert {name.removesuffix(f", {place}") for name in there} == {"light", "LoRA", "full", "adapter"}
        for name, variant in there.items():
            assert variant.options == {**RIVALS.variants[name.removesuffix(f", {place}")].options, **options}
            assert variant.beside == f"full, {place}"


def test_methods_that_a_reader_names_are_compared_by_the_same_rule(tiny_model, tiny_task):
    base = RunConfig(model=tiny_model, task=tiny_task, train_size=40)
    comparison, told = among(["lora", "light", "bitfit"], base, 4000)
    assert [*comparison.variants] == ["LoRA", "light", "BitFit"]
    assert comparison.primary == ("LoRA", "light")
    assert {variant.beside for variant in comparison.variants.values()} == {"LoRA"}
    assert {variant.seeds for variant in comparison.variants.values()} == {3}
    assert (comparison.tuned_for, comparison.moves, len(comparison.tuning_seeds)) == (0.5, 3, 3)
    size = comparison.variants["LoRA"].options["size"]
    assert told[0] == f"LoRA: the rank that trains about 4,000 numbers is {size:g}."
    assert told[1:] == ["light has no size to choose.", "BitFit has no size to choose."]
    plain, told = among(["light", "full"], base)
    assert told == []
    assert plain.variants["light"].beside == plain.variants["full"].beside == "full"


@pytest.mark.parametrize(
    ("methods", "budget", "message"),
    [
        (["light", "lighter"], None, "methods are light, full, .*; got 'lighter'"),
        (["light"], None, "two or more methods are compared, each given once, got light"),
        (["light", "lora", "light"], None, "each given once, got light, lora, light"),
        (
            ["light", "lora"],
            10**9,
            "no rank makes lora train 1,000,000,000 numbers to within a tenth; the nearest is 256",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(tiny_model, tiny_task, methods, budget, message):
    with pytest.raises(ValueError, match=message):
        among(methods, RunConfig(model=tiny_model, task=tiny_task), budget)


def test_costs_are_taken_in_turns_of_short_runs_with_nothing_beside(tiny_model, tiny_task):
    base = RunConfig(model=tiny_model, task=tiny_task, batch_size=4, micro_batch_size=2, epochs=3)
    comparison, _ = among(["light", "lora"], base)
    made = rivals.costs_study(comparison, base)
    assert made.serial
    settings = made.stages["costs"]([])
    assert [(s["variant"], s["turn"]) for s in settings] == [(n, t) for t in range(3) for n in ("light", "LoRA")]
    for setting in settings:
        config = setting["config"]
        assert (config["epochs"], config["train_size"], config["seed"]) == (1, 80, 0)
        assert config["method"] == {"light": "light", "LoRA": "lora"}[setting["variant"]]
    few = rivals.costs_study(comparison, replace(base, batch_size=32)).stages["costs"]([])
    assert {s["config"]["train_size"] for s in few} == {104}  # all that there are
    recorded = Counter(s["variant"] for s in rivals.costs_study(RIVALS, RunConfig()).stages["costs"]([]))
    assert set(recorded.values()) == {3}
    assert RIVALS.variants.keys() - recorded == {n for n in RIVALS.variants if n.endswith("500 sentences")}


def test_a_step_of_a_run_is_timed_in_its_own_process(tiny_model, tiny_task):
    """Seconds are positive, and of a step: the epoch has 20 of them. The peak is not this process's, which has torch's memory."""
    base = RunConfig(model=tiny_model, task=tiny_task, batch_size=2, micro_batch_size=2)
    made = rivals.costs_study(among(["light", "full"], base)[0], base)
    found = made.measure(made.stages["costs"]([])[0])
    assert 0 < found["seconds_a_step"] < 3
    assert 10**8 < found["peak_memory_bytes"] < 10**10


def test_costs_are_medians_over_the_turns():
    points = [
        {"setting": {"variant": name}, "result": {"seconds_a_step": seconds, "peak_memory_bytes": peak}}
        for name, seconds, peak in [
            ("a", 1.0, 7),
            ("b", 5.0, 1),
            ("a", 9.0, 5),
            ("b", 6.0, 1),
            ("a", 2.0, 6),
            ("b", 9.0, 1),
        ]
    ]
    assert costs(points) == {
        "a": {"seconds_a_step": 2.0, "peak_memory_bytes": 6},
        "b": {"seconds_a_step": 6.0, "peak_memory_bytes": 1},
    }

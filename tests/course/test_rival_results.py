import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mpo_tutorial.course import rival_results
from mpo_tutorial.course.rival_results import HEAD, accuracy_by_size, cells, pareto, yardsticks
from mpo_tutorial.experiments import statistics
from mpo_tutorial.experiments.compare import Comparison, Variant, summarise

NAMES = ("light", "LoRA", "full", "light, imdb", "full, imdb")
OF = replace(
    Comparison("some", 1, {n: Variant((1e-3,), beside="full, imdb" if "imdb" in n else "full") for n in NAMES}),
    primary=("light", "LoRA"),
    tuned_for=0.5,
)
RIGHT = {
    "light": (800, 820),
    "LoRA": (790, 800),
    "full": (830, 830),
    "light, imdb": (600, 610),
    "full, imdb": (650, 640),
}
TRAINED = {"light": 1_000_000, "LoRA": 1_000_100, "full": 20_000_000, "light, imdb": 7, "full, imdb": 9}
MACHINE = {"cpu": "2 x a processor", "gpu": None, "threads": 2}


@pytest.fixture
def points() -> list[dict]:
    return [
        {
            "stage": "final",
            "setting": {
                "variant": name,
                "config": {"learning_rate": 1e-3, "seed": seed, "task": "films", "epochs": 2, "batch_size": 32},
                "splits": ["test"],
            },
            "result": {
                "parameters": {"trained": TRAINED[name], "total": 20_000_000},
                "stored_bytes": 4 * TRAINED[name],
                "train_sentences": 3200,
                "test": statistics.score(np.arange(1000) < right),
            },
            "date": "2026-11-28",
            "hardware": MACHINE,
            "versions": {"torch": "2.13.0"},
        }
        for name, found in RIGHT.items()
        for seed, right in enumerate(found)
    ]


@pytest.fixture
def spent() -> list[dict]:
    return [
        {
            "setting": {"variant": "LoRA", "turn": turn},
            "result": {"seconds_a_step": seconds, "peak_memory_bytes": 1_500_000_000},
            "hardware": MACHINE,
        }
        for turn, seconds in enumerate((0.5, 0.25, 0.75))
    ]


def test_a_row_has_both_differences_and_the_costs(points, spent):
    summary = summarise(points, OF)
    rows = {row[0]: dict(zip(HEAD, row, strict=True)) for row in cells(summary, OF, rival_results.costs(spent))}
    assert [*rows] == [*RIGHT]
    lora = rows["LoRA"]
    assert lora["trained"] == "1,000,100"
    assert lora["of all"] == "5.00 %"
    assert lora["test accuracy [95 %]"].startswith("79.5 [")
    assert lora["minus full [95 %]"].startswith("-3.5 [")
    assert lora["minus LoRA [95 %]"] == ""
    assert (lora["seeds"], lora["rate"], lora["a step"]) == ("2", "0.001", "0.50 s")
    assert (lora["peak memory"], lora["to store"]) == ("1.50 GB", "4.0 MB")
    assert rows["light"]["minus LoRA [95 %]"].startswith("+1.5 [")
    assert (rows["light"]["a step"], rows["light"]["peak memory"]) == ("", "")
    assert rows["full"]["minus full [95 %]"] == ""
    assert rows["light, imdb"]["minus full [95 %]"].startswith("-4.0 [")
    assert rows["light, imdb"]["minus LoRA [95 %]"] == ""  # nobody ran it there
    assert rows["light, imdb"]["to store"] == "0.0 kB"


def test_yardsticks_have_the_same_data():
    assert yardsticks(OF, "light") == yardsticks(OF, "full") == ("full", "LoRA")
    assert yardsticks(OF, "light, imdb") == ("full, imdb", "LoRA, imdb")
    alone = replace(OF, variants={"light": Variant((1e-3,), beside="light")})
    assert yardsticks(alone, "light") == ("full", "LoRA")


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=9))
def test_the_front_is_what_nothing_else_beats(found):
    """By its definition, one of equals standing for all."""
    unbeaten = {
        pair
        for pair in found.values()
        if not any(other != pair and other[0] <= pair[0] and other[1] >= pair[1] for other in found.values())
    }
    front = [found[name] for name in pareto(found)]
    assert set(front) == unbeaten
    assert front == sorted(unbeaten)


def test_points_stand_side_by_side_and_the_front_passes_the_best(ax, points):
    summary = summarise(points, OF)
    accuracy_by_size(ax, summary, ["full", "LoRA", "light"])
    places = {text.get_text(): text.xy[0] for text in ax.texts}
    assert np.log10(places["LoRA"] / places["light"]) == pytest.approx(rival_results.GAP, rel=0.01)
    assert places["full"] == pytest.approx(20_000_000)
    for (line, _, (bars,)), name in zip(ax.containers, ("light", "LoRA", "full"), strict=True):
        assert line.get_ydata()[0] == pytest.approx(np.mean(RIGHT[name]) / 10)
        ends = summary["variants"][name]["test"]["interval"]
        assert bars.get_segments()[0][:, 1] == pytest.approx([100 * end for end in ends])
    (front,) = [line for line in ax.lines if line.get_color() == rival_results.ORANGE]
    assert list(front.get_xdata()) == [places["light"], places["full"]]
    assert ax.get_xscale() == "log"


def test_what_is_written_says_what_was_found(points, spent, tmp_path):
    table, told, picture = rival_results.write(summarise(points, OF), OF, spent, tmp_path)
    lines = table.read_text().splitlines()
    assert lines[0] == f"| {' | '.join(HEAD)} |"
    assert sum(line.startswith("| ") for line in lines) == 1 + len(RIGHT)
    assert "Light minus LoRA, paired by 2 seeds, on the test set (1,000 sentences): +1.5 [" in table.read_text()
    assert "Rates, tried with 50% of the epochs, are the best in their grids" in table.read_text()
    assert (
        "medians over 3 turns of up to 20 steps in a process of their own, 2 x a processor, 2 threads."
        in table.read_text()
    )
    found = json.loads(told.read_text())
    assert found["primary"]["test"]["mean"] == pytest.approx(0.015)
    assert found["variants"]["LoRA"]["seconds_a_step"] == 0.5
    assert found["variants"]["LoRA"]["minus_full"]["mean"] == pytest.approx(-0.035)
    assert found["variants"]["LoRA"]["minus_lora"] is None
    assert found["variants"]["light, imdb"]["minus_full"]["mean"] == pytest.approx(-0.04)
    with Image.open(picture) as image:
        said = image.info["Description"]
    assert "LoRA 1,000,100 trained, 79.5 [" in said
    assert "imdb" not in said
    assert said.endswith("The front: light, full.")

"""The board of chapter 11, over the shipped records and a tiny model, and its widget."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import mpo_tutorial as mt
from mpo_tutorial.course import widgets
from mpo_tutorial.course.dashboard import HERE, LIGHT, Dashboard, Setting
from mpo_tutorial.maths.metric import output_error
from mpo_tutorial.models.families import matches, mpo_matrices
from mpo_tutorial.models.truncation import metric_of


@pytest.fixture(scope="module")
def studies() -> tuple[dict, dict]:
    light = mt.compare.summarise(mt.shipped_points("light"), mt.light.LIGHT)
    return light, mt.cut_results.summarise(mt.shipped_points("cuts"))


@pytest.fixture
def board(studies, tiny_tuned) -> Dashboard:
    return Dashboard(*studies, lambda: tiny_tuned)


def whole(board: Dashboard) -> Setting:
    return Setting(caps=board.widest)


def cut_by_hand(tuned, setting: Setting) -> dict[str, tuple[torch.Tensor, mt.MPO]]:
    """Of every matrix: itself, and its chain as a plain cut leaves it."""
    found = {}
    for name, layer in mpo_matrices(tuned.model).items():
        full = layer.mpo.shape.full_bonds
        caps = tuple(map(min, setting.caps, full)) if matches(name, setting.matrices) else full
        found[name] = (layer.mpo.to_matrix(), layer.mpo.truncate(caps))
    return found


@pytest.mark.parametrize("matrices", ["all", "attention", "feed-forward"])
def test_what_is_counted_is_what_a_cut_leaves(board, tiny_tuned, matrices):
    setting = Setting(matrices=matrices, cut="plain", caps=tuple(max(1, cap // 2) for cap in board.widest))
    counted, made = board.counted(setting), cut_by_hand(tiny_tuned, setting)
    numbers = sum(mpo.n_params for _, mpo in made.values())
    part = [pair for name, pair in made.items() if matches(name, matrices)]
    assert counted["numbers"] == numbers
    assert counted["left"] == pytest.approx(sum(mpo.n_params for _, mpo in part) / sum(m.numel() for m, _ in part))
    full = sum(core.numel() for layer in mt.mpo_layers(tiny_tuned.model) for core in layer.cores)
    assert board.counted(whole(board))["bytes"] - counted["bytes"] == 4 * (full - numbers)
    lost = math.sqrt(sum((m - mpo.to_matrix()).square().sum().item() for m, mpo in made.values()))
    norm = math.sqrt(sum(m.square().sum().item() for m, _ in made.values()))
    assert lost / norm <= counted["bound"] + 1e-6
    assert 0 < counted["kept"] < 1 == board.counted(whole(board))["kept"]


def test_with_one_bond_cut_the_bound_is_the_error(board, tiny_tuned):
    setting = replace(whole(board), cut="plain", caps=(*board.widest[:1], 3, *board.widest[2:]))
    measured = board.measure(setting, 20)
    assert measured["weights"] == pytest.approx(board.counted(setting)["bound"], rel=1e-4)
    made = cut_by_hand(tiny_tuned, setting)
    lost, norm = np.zeros(2), np.zeros(2)
    moments = tiny_tuned.inputs.of(tiny_tuned.model, list(made))
    for name, layer in mpo_matrices(tiny_tuned.model).items():
        matrix, mpo = made[name]
        metric = metric_of(layer, moments[name])
        lost += (matrix - mpo.to_matrix()).square().sum().item(), output_error(matrix, mpo.to_matrix(), metric) ** 2
        norm += matrix.square().sum().item(), output_error(matrix, 0 * matrix, metric) ** 2
    assert [measured["weights"], measured["outputs"]] == pytest.approx(np.sqrt(lost / norm).tolist(), rel=1e-4)


def test_the_entropy_that_is_kept_is_that_of_the_central_bonds(board):
    caps = (*board.widest[:1], 1, 1, *board.widest[3:])
    assert board.counted(replace(whole(board), cut="plain", caps=caps))["kept"] == pytest.approx(0, abs=1e-9)
    outer = (1, *board.widest[1:-1], 1)
    assert 0 < board.counted(replace(whole(board), cut="plain", caps=outer))["kept"] < 1


def test_a_fitted_cut_is_nearer_to_the_outputs_and_judged(board, tiny_tuned):
    plain = Setting(cut="plain", caps=tuple(max(1, cap // 2) for cap in board.widest))
    shares = []
    found = {cut: board.measure(replace(plain, cut=cut), 40, shares.append) for cut in ("plain", "fitted")}
    assert found["fitted"]["outputs"] < found["plain"]["outputs"]
    assert found["fitted"]["weights"] > found["plain"]["weights"]
    assert shares[-1] == 1 and shares.index(1) < len(shares) - 1
    uncut = board.measure(whole(board), 40)
    assert uncut["accuracy"] == tiny_tuned.judge(tiny_tuned.model, 40)["accuracy"]
    assert uncut["weights"] == uncut["outputs"] == 0
    table = board.table(plain)
    assert table["error of the outputs here"] == f"{100 * found['plain']['outputs']:.1f} %"
    assert table[f"accuracy here, {uncut['n']} sentences"] == f"{100 * found['plain']['accuracy']:.1f} %"


def test_the_record_is_the_nearest_or_says_that_nothing_is_cut(board, studies):
    rows = {(row["way"], row["part"], row["ratio"]): row for row in studies[1]["summary"]}
    for ratio in (0.2, 0.4, 0.6, 0.8):
        caps = next(
            tuple(min(cap, most) for most in board.widest)
            for cap in range(max(board.widest), 0, -1)
            if board.counted(Setting(cut="plain", caps=tuple(min(cap, most) for most in board.widest)))["left"] <= ratio
        )
        found = board.on_record(Setting(cut="fitted", caps=caps))
        nearest = min(
            (0.2, 0.4, 0.6, 0.8), key=lambda at: abs(at - board.counted(Setting(cut="plain", caps=caps))["left"])
        )
        assert found["ratio"] == nearest
        assert found["auc"] == rows["fitted", "all", nearest]["auc"]
        assert found["accuracy"] == rows["fitted", "all", nearest]["accuracy"]
    light = studies[0]["variants"]
    for setting in (whole(board), replace(whole(board), cut="plain")):
        found = board.on_record(setting)
        assert (found["ratio"], found["of"]) == (None, "test")
        assert found["accuracy"] == light[LIGHT]["test"]
        assert found["auc"] == rows["uncut", "none", None]["auc"]
    other = Setting(task="imdb, 128 tokens", method="full", cut="plain", caps=tuple(1 for _ in board.widest))
    assert board.on_record(other)["accuracy"] == light["full, imdb"]["test"]
    assert board.on_record(other)["auc"] is None
    assert "numbers in all chains" not in board.table(other)


def test_methods_are_those_that_a_task_was_tried_with(board):
    assert set(board.methods("imdb, 128 tokens")) == {"light", "full"} == set(board.methods(f"{HERE}, 500 sentences"))
    first = board.methods(HERE)
    assert {"light", "full", "BitFit", "last 2 layers", "random mask"} <= set(first)
    assert not [name for name in first if "imdb" in name or "pooler" in name or "gauge" in name or "500" in name]


def test_a_model_that_is_not_here_is_not_measured(board):
    with pytest.raises(ValueError, match="of BitFit on rotten_tomatoes there is the record alone"):
        board.measure(replace(whole(board), method="BitFit"), 10)


def test_a_setting_comes_back_from_its_text(board):
    for setting in (
        whole(board),
        Setting(matrices="attention", cut="fitted", caps=tuple(max(1, cap // 3) for cap in board.widest)),
        Setting(task="imdb, 128 tokens", method="full", caps=board.widest),
    ):
        assert board.setting_of(setting.as_query()) == setting
        assert board.setting_of(f" ?{setting.as_query()}\n") == setting


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version=1", "version=2", "no setting of version 1"),
        ("&version=1", "", "no setting of version 1"),
        ("cut=plain", "cut=deep", "cut is one of none, plain, fitted, got 'deep'"),
        ("matrices=all", "matrices=*.layer.0.*", "matrices is one of all, attention, feed-forward"),
        ("task=rotten_tomatoes", "task=imdb", "task is one of rotten_tomatoes"),
        ("method=light", "method=lora", "method is one of light, full"),
        ("caps=1", "caps=0", "the bonds are 4 numbers from 1 to"),
        ("caps=1", "caps=999", "the bonds are 4 numbers from 1 to"),
        ("caps=1%2C", "caps=", "the bonds are 4 numbers from 1 to"),
        ("caps=1", "caps=x", "a setting has task, method, matrices, cut, caps"),
        ("cut=plain", "slice=plain", "a setting has task, method, matrices, cut, caps"),
        ("cut=plain", "cut=__import__('os')", "cut is one of none, plain, fitted"),
    ],
)
def test_a_text_that_is_no_setting_gets_a_sentence(board, old, new, said):
    text = Setting(cut="plain", caps=tuple(1 for _ in board.widest)).as_query()
    assert old in text
    with pytest.raises(ValueError, match=said.replace("*", r"\*")):
        board.setting_of(text.replace(old, new, 1))


def test_the_figure_marks_all_settings_that_it_gets(board):
    one = Setting(cut="plain", caps=tuple(max(1, cap // 2) for cap in board.widest))
    two = replace(one, caps=tuple(max(1, cap // 4) for cap in board.widest))
    figure = board.figure(one, two)
    for ax in figure.axes:
        upright = [
            line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
        ]
        for setting in (one, two):
            assert any(x == pytest.approx(100 * board.counted(setting)["left"]) for x in upright)


def named(widget) -> dict:
    """The controls by what stands on them, and what is told and shown at the end."""
    *rows, told, shown = widget.children
    return {child.description: child for row in rows for child in row.children} | {"told": told, "shown": shown}


def test_controls_move_the_table_and_the_picture(board):
    found = named(widgets.dashboard(board, ""))
    first = found["shown"].value
    assert ">now</th></tr>" in first and "plain, in all, bonds" in first
    found["all bonds"].value = 3
    assert [found[f"bond {k}"].value for k in range(1, 5)] == [min(3, most) for most in board.widest]
    setting = Setting(cut="plain", caps=tuple(min(3, most) for most in board.widest))
    assert f">{board.counted(setting)['numbers']:,}</td>" in found["shown"].value
    assert found["setting"].value == setting.as_query()
    found["keep for comparison"].click()
    found["bond 2"].value = 1
    shown = found["shown"].value
    assert re.search(">now</th><th [^>]*>kept</th>", shown)
    moved = replace(setting, caps=(setting.caps[0], 1, *setting.caps[2:]))
    numbers = [f"{board.counted(one)['numbers']:,}" for one in (moved, setting)]
    assert re.search(f">{numbers[0]}</td><td [^>]*>{numbers[1]}</td>", shown)
    found["task"].value = "imdb, 128 tokens"
    assert tuple(found["method"].options) == board.methods("imdb, 128 tokens")
    assert found["bond 2"].disabled and found["cut"].disabled


def test_a_measurement_stands_in_the_table_and_controls_come_back(board, monkeypatch):
    monkeypatch.setattr(widgets, "SENTENCES", 10)
    found = named(widgets.dashboard(board, ""))
    found["measure on 10 sentences"].click()
    assert "accuracy here, 10 sentences" in found["shown"].value
    assert not found["cut"].disabled


def test_a_text_restores_a_setting_and_a_bad_one_gets_a_sentence(board, monkeypatch):
    setting = Setting(matrices="attention", cut="fitted", caps=tuple(1 for _ in board.widest))
    found = named(widgets.dashboard(board, ""))
    found["setting"].value = setting.as_query()
    found["restore"].click()
    assert (found["cut in"].value, found["cut"].value, found["bond 3"].value) == ("attention", "fitted", 1)
    found["setting"].value = "<b>nonsense</b>"
    found["restore"].click()
    assert "no setting of version 1" in found["told"].value
    assert found["bond 3"].value == 1
    monkeypatch.setenv("QUERY_STRING", setting.as_query())  # Voila's, from the page's address
    assert named(widgets.dashboard(board))["cut in"].value == "attention"

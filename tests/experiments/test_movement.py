from dataclasses import replace

import numpy as np
import pytest
import torch
from tangents import projected, tangent
from transformers import AutoTokenizer, BertConfig, BertModel

from mpo_tutorial.experiments import forms, movement, records, statistics
from mpo_tutorial.experiments.compress import save_compressed
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare, run
from mpo_tutorial.experiments.movement import CHANGES, EDGES, ORDERS, RANKS, UPDATE, mean_gradient, order_of
from mpo_tutorial.experiments.movement_results import movement_table, reach_table, summarise, table_1_of
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import balanced_shape
from mpo_tutorial.models.families import KINDS

QUERY = "bert.encoder.layer.1.attention.self.query"
INTERMEDIATE = "bert.encoder.layer.0.intermediate.dense"


@pytest.fixture(scope="module")
def config(tiny_movement) -> RunConfig:
    return RunConfig(**tiny_movement[1]["setting"]["config"])


@pytest.fixture(scope="module")
def weights(config, tmp_path_factory) -> tuple[dict, dict]:
    """Of the second seed's model, before and after full fine-tuning made here anew."""
    prepared = prepare(config)
    before = {name: tensor.clone().numpy() for name, tensor in prepared.model.state_dict().items()}
    run(prepared, tmp_path_factory.mktemp("full"), progress=False)
    return before, {name: tensor.numpy() for name, tensor in prepared.model.state_dict().items()}


def in_reach(matrix: np.ndarray, change: np.ndarray, n_cores: int = 5) -> float:
    """By autograd through TT-SVD's cores, and a dense solver."""
    matrix, change = (torch.tensor(numbers, dtype=torch.float64) for numbers in (matrix, change))
    part = projected(tangent(MPO.from_matrix(matrix, balanced_shape(*matrix.shape, n_cores))), change)
    return float((part**2).sum() / change.square().sum())


def test_what_is_recorded_of_a_matrix_is_what_full_fine_tuning_did(tiny_movement, weights):
    before, after = weights
    found = tiny_movement[1]["result"]["matrices"]
    assert {name.rpartition(".")[0] for name in before if name.endswith("weight")} > set(found)
    for name in (QUERY, INTERMEDIATE, "bert.embeddings.word_embeddings"):
        matrix, update = before[f"{name}.weight"], after[f"{name}.weight"] - before[f"{name}.weight"]
        if name in (QUERY, INTERMEDIATE):
            matrix, update = matrix.T, update.T
        row = found[name]
        assert tuple(row["size"]) == update.shape
        assert row["moved"] == pytest.approx(np.linalg.norm(update) / np.linalg.norm(matrix), abs=1e-5)
        for k, edge in enumerate(EDGES):
            assert sum(row["sizes"][: k + 1]) == pytest.approx((np.abs(update) <= edge).mean(), abs=1e-4)
        assert sum(row["sizes"]) == pytest.approx(1, abs=1e-3)
        assert row["rows"] == pytest.approx(np.any(update, axis=1).mean(), abs=1e-5)
        values = np.linalg.svd(update, compute_uv=False) ** 2
        shares = [values[:rank].sum() / values.sum() for rank in RANKS]
        np.testing.assert_allclose(row["spectrum"], shares, atol=1e-5)
    assert found["bert.embeddings.word_embeddings"]["rows"] < 0.01
    assert "shares" not in found["bert.embeddings.word_embeddings"]


def test_rows_that_no_sentence_has_are_told_from_those_that_moved(tiny_movement, weights):
    before, after = (of["bert.embeddings.word_embeddings.weight"] for of in weights)
    update = np.abs(after - before)
    update = update[update.any(axis=1)]
    expected = ((update <= 1e-4).mean(), ((update > 1e-4) & (update <= 1e-3)).mean(), (update > 1e-3).mean())
    found = summarise(tiny_movement[1:])["kinds"]
    shares = [found["word embedding"]["in_moved_rows"][size]["mean"] for size in ("small", "middle", "large")]
    assert shares == pytest.approx(expected, abs=0.03)  # of a few rows in 30,000, with five digits
    assert [kind for kind in found if "in_moved_rows" in found[kind]] == ["word embedding"]


def test_the_update_in_reach_is_what_the_cores_can_move(tiny_movement, weights):
    before, after = weights
    for name in (QUERY, INTERMEDIATE):
        matrix, update = before[f"{name}.weight"].T, (after[f"{name}.weight"] - before[f"{name}.weight"]).T
        usual, three, sides, *orders = tiny_movement[1]["result"]["matrices"][name]["shares"][UPDATE]
        assert usual == pytest.approx(in_reach(matrix, update), abs=2e-5)
        assert three == pytest.approx(in_reach(matrix, update, 3), abs=2e-5)
        assert 0 < sides < 1
        rows, columns = order_of("norms", torch.tensor(matrix), torch.tensor(update), "query", 2, 1)
        shares = dict(zip(ORDERS, orders, strict=True))
        assert shares["norms"] == pytest.approx(in_reach(matrix[rows][:, columns], update[rows][:, columns]), abs=2e-5)
        assert len({usual, *(share for share in orders if share)}) > 5
        assert (shares["heads apart"] is None) == (name == INTERMEDIATE)


def test_the_gradient_is_the_slope_of_the_mean_loss_over_the_drawn_sentences(config):
    prepared = prepare(replace(config, micro_batch_size=8))
    model = prepared.model.double()
    n = 20
    gradients = mean_gradient(prepared, n)
    drawn = np.random.default_rng(config.seed).permutation(40)[:n]
    sentences = [prepared.task.train(40)[k] for k in drawn]
    texts, labels = zip(*sentences, strict=True)
    batch = prepared.tokenizer(list(texts), padding=True, return_tensors="pt")
    for name, gradient in gradients.items():
        module = model.get_submodule(name)
        direction = torch.randn(gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        of_weight = direction if "word_embeddings" in name else direction.T
        losses = []
        with torch.no_grad():
            for step in (1e-4, -2e-4):
                module.weight += step * of_weight
                losses.append(model(**batch, labels=torch.tensor(labels)).loss.item())
            module.weight += 1e-4 * of_weight
        assert (losses[0] - losses[1]) / 2e-4 == pytest.approx((gradient * direction).sum().item(), rel=1e-4, abs=1e-8)
        assert gradient.norm() > 0


def test_gradients_of_the_two_heads_differ_and_seeds_do(tiny_movement):
    for point in tiny_movement:
        shares = point["result"]["matrices"][QUERY]["shares"]
        assert set(shares) == set(CHANGES)
        assert len({tuple(found) for found in shares.values()}) == 3
    first, second = (point["result"]["matrices"] for point in tiny_movement)
    for change in CHANGES:
        assert first[QUERY]["shares"][change] != second[QUERY]["shares"][change]


def test_orders_of_rows_and_columns():
    generator = torch.Generator().manual_seed(0)
    matrix, gradient = torch.randn(2, 12, 6, generator=generator)

    def order(name: str, kind: str = "query", seed: int = 0) -> tuple[list, list] | None:
        found = order_of(name, matrix, gradient, kind, 3, seed)
        return found and tuple(side.tolist() for side in found)

    for name in ORDERS:
        rows, columns = order(name)
        assert (sorted(rows), sorted(columns)) == ([*range(12)], [*range(6)])
    assert order("heads apart") == ([*range(12)], [0, 2, 4, 1, 3, 5])
    assert order("heads apart", "attention output") == ([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11], [*range(6)])
    assert order("heads apart", "feed-forward in") is None
    rows, columns = order("norms")
    assert (np.diff(np.linalg.norm(matrix[rows], axis=1)) > 0).all()
    assert (np.diff(np.linalg.norm(matrix[:, columns], axis=0)) > 0).all()
    for name, numbers in (("singular vectors", matrix), ("gradient", gradient)):
        rows, columns = order(name)
        values, vectors = np.linalg.eigh(numbers @ numbers.T)
        steps = np.diff(vectors[rows, values.argmax()])
        assert (steps > 0).all() or (steps < 0).all()
        values, vectors = np.linalg.eigh(numbers.T @ numbers)
        steps = np.diff(vectors[columns, values.argmax()])
        assert (steps > 0).all() or (steps < 0).all()
    draws = [order(name, seed=seed) for name in movement.DRAWN for seed in (0, 1)]
    assert len({tuple(rows) for rows, _ in draws}) == len(draws)
    assert order("random 1") == order("random 1")


def test_the_summary_is_of_seeds_means_over_matrices(tiny_movement):
    record = summarise(tiny_movement)
    assert record["seeds"] == [0, 1]
    assert set(record["kinds"]) == {"word embedding", *KINDS, "pooler"}
    of_kind = [
        [row["moved"] for name, row in point["result"]["matrices"].items() if name.endswith("query")]
        for point in tiny_movement
    ]
    assert record["kinds"]["query"]["moved"] == statistics.over_seeds(np.mean(of_kind, axis=1))
    weighted = []
    for point in tiny_movement:
        rows = [
            row
            for name, row in point["result"]["matrices"].items()
            if "intermediate" in name or name.endswith("output.dense")
        ]
        rows = [row for row in rows if 60 in row["size"]]
        small = [sum(share for share, edge in zip(row["sizes"], EDGES, strict=False) if edge <= 1e-4) for row in rows]
        weighted.append(np.average(small, weights=[np.prod(row["size"]) for row in rows]))
    assert record["parts"]["feed-forward"]["small"]["mean"] == pytest.approx(np.mean(weighted))
    for size, directions in (((24, 24), 36 + 36 - 1), ((24, 60), 144 + 100 - 1), ((60, 24), None)):
        rows = [point["result"]["matrices"] for point in tiny_movement]
        found = [
            row["shares"][UPDATE][2]
            for row in (row for of in rows for row in of.values())
            if tuple(row["size"]) == size
        ]
        summarised = [
            row["gains"][UPDATE].get("legs in, out") for row in record["matrices"] if tuple(row["size"]) == size
        ]
        expected = [None if share is None else share * np.prod(size) / directions for share in found]
        assert summarised == (expected if directions is None else pytest.approx(expected))
    draws = [row["shares"][UPDATE][3:6] for row in tiny_movement[0]["result"]["matrices"].values() if "shares" in row]
    first = [row for row in record["matrices"] if row["seed"] == 0 and "gains" in row]
    expected = [np.mean(draw) / row["dimension"] for draw, row in zip(draws, first, strict=True)]
    assert expected == pytest.approx([row["gains"][UPDATE]["random order"] for row in first])
    reached = [row for row in record["matrices"] if "gains" in row]
    for way, found in record["reach"][UPDATE].items():
        by_seed = [
            [
                row["gains"][UPDATE][way]
                for row in record["matrices"]
                if row["seed"] == seed and way in row.get("gains", {}).get(UPDATE, {})
            ]
            for seed in (0, 1)
        ]
        assert found["gain"]["interval"] == pytest.approx(statistics.over_seeds(np.mean(by_seed, axis=1))["interval"])
        usual = [
            [
                row["gains"][UPDATE]["usual legs"]
                for row in reached
                if row["seed"] == seed and way in row["gains"][UPDATE]
            ]
            for seed in (0, 1)
        ]
        assert found["minus_usual"]["mean"] == pytest.approx(np.mean(by_seed) - np.mean(usual), abs=1e-12)
        means = np.mean(by_seed, axis=0)
        assert (found["least"], found["most"]) == pytest.approx((means.min(), means.max()))


def test_sizes_are_summed_as_in_table_1():
    sizes = np.zeros(len(EDGES) + 1)
    for change, share in ((0, 0.1), (1e-4, 0.2), (1.1e-4, 0.3), (1e-3, 0.15), (1.1e-3, 0.05), (5, 0.2)):
        sizes[sum(change > edge for edge in EDGES)] += share
    assert table_1_of(sizes) == pytest.approx((0.3, 0.45, 0.25))
    assert table_1_of(sizes, rows=0.9) == pytest.approx(
        (0.2 / 0.9, 0.5, 0.25 / 0.9)
    )  # the first tenth is of rows that stayed


def test_the_tables_have_a_row_for_each_kind_and_way(tiny_movement):
    record = summarise(tiny_movement)
    head, rows = movement_table(tiny_movement)
    assert [row[0] for row in rows if "moved" not in row[0]] == [*record["kinds"]]
    moved = record["kinds"]["query"]["moved"]
    low, high = moved["interval"]
    assert rows[1][0] == "word embedding, rows that moved"
    assert rows[2][:2] == ("query", f"{100 * moved['mean']:.2f} [{100 * low:.2f}, {100 * high:.2f}]")
    assert {len(row) for row in rows} == {len(head)}
    head, rows = reach_table(tiny_movement[:1])
    assert [row[0] for row in rows] == [*record["reach"][UPDATE]]
    assert not any("[" in cell for row in rows for cell in row)  # one seed has no interval
    assert {len(row) for row in rows} == {len(head)}


def test_a_study_of_another_method_or_a_compressed_model_is_refused(tiny_model, tiny_task, tmp_path):
    with pytest.raises(ValueError, match="needs the method full, got 'light'"):
        movement.study(RunConfig(tiny_model, tiny_task))
    save_compressed(tiny_model, tmp_path / "small")
    with pytest.raises(ValueError, match="full fine-tuning is for the dense model"):
        movement.study(RunConfig(str(tmp_path / "small"), tiny_task, "full"))


def test_a_matrix_without_reach_is_refused_before_anything_is_trained(tiny_model, tiny_task, tmp_path, monkeypatch):
    sizes = {"hidden_size": 22, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 60}
    BertModel(BertConfig(**sizes, max_position_embeddings=64)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    (study,) = movement.study(RunConfig(str(tmp_path), tiny_task, "full"), 1).stages.values()
    monkeypatch.setattr(movement, "mean_gradient", lambda _: pytest.fail("a gradient was taken"))
    with pytest.raises(ValueError, match=r"got the padding \(2, 2\); take other legs"):
        movement.measure(*study([]))


@pytest.mark.parametrize("change", [{}, None, [], {"a": {}}, {"a": {"moved": "1"}}])
def test_what_is_no_account_of_matrices_is_named(tiny_movement, change):
    result = tiny_movement[0]["result"]
    forms.require(result, "it", movement.form({}), "")
    with pytest.raises(ValueError, match="it must have what became of each matrix at matrices"):
        forms.require({**result, "matrices": change}, "it", movement.form({}), "")


def test_the_shipped_record_is_of_full_fine_tuning_at_its_chosen_rate():
    points, light = records.shipped_points("movement"), records.shipped_points("light")
    assert [point["setting"]["config"]["seed"] for point in points] == [*range(movement.SEEDS)]
    chosen = {
        p["setting"]["config"]["learning_rate"]
        for p in light
        if p["setting"]["variant"] == "full" and p["stage"] != "tuning"
    }
    assert {point["setting"]["config"]["learning_rate"] for point in points} == chosen
    for point in points:
        assert (point["study"], point["version"]) == ("movement", movement.VERSION)
        assert point["setting"]["legs"] == movement.LEGS
        assert point["setting"]["orders"] == [*ORDERS]
        assert point["setting"]["config"]["pooling"] == "mean"
        assert len(point["result"]["matrices"]) == 37

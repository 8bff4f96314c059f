import sys

import pytest
import torch

from mpo_tutorial.course import bench_tables
from mpo_tutorial.experiments import bench, study
from mpo_tutorial.experiments.contenders import Sizes, bert_like, decomposer, layer_of
from mpo_tutorial.maths.contraction import multiplications
from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.maths.shapes import balanced_shape

TINY = Sizes(
    hidden=24, feed_forward=48, vocabulary=97, layers=1, tokens=(8,), model_tokens=(16,), bonds=(None,)
)  # 24 units have 12 heads of 2
LAYERS = ("nn.Linear", "MPOLinear", "tensorly-torch, reconstructed", "tensorly-torch, factorized")


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> dict:
    """A real run, with every peer that the tests install, processes for the memory included."""
    points = study.run(bench.study(TINY, repeat=1), tmp_path_factory.mktemp("bench"), progress=False)
    return bench.summarise(points)


def test_every_contender_has_a_row_with_seconds_and_memory(record):
    assert {row["library"] for row in record["decomposition"]} == {"mpo_tutorial", "tensorly", "quimb", "torchTT"}
    assert [row["contender"] for row in record["layer"]] == [*LAYERS, "counted limit"]
    assert [row["contender"] for row in record["model"]] == [*LAYERS[:3], "counted limit"]
    for row in (*record["decomposition"], *record["layer"], *record["model"]):
        if "missing" not in row:
            assert row["seconds"] > 0
            assert row.get("contender") == "counted limit" or row["peak_bytes"] > 1e8
    assert {name for name in record["peers"] if record["peers"][name] != "not installed"} >= {
        "tensorly",
        "tensorly-torch",
        "quimb",
    }


def test_every_library_decomposes_without_loss(record):
    for row in record["decomposition"]:
        if "missing" not in row:
            assert 0 < row["error"] < 1e-5
            counts = [count for count, *_ in TINY.matrices().values()]
            assert row["seconds"] == pytest.approx(
                sum(count * seconds for count, seconds in zip(counts, row["kinds"].values(), strict=True))
            )


def test_the_limit_is_the_dense_time_and_the_counted_multiplications(record):
    seconds = {row["contender"]: row["seconds"] for row in record["layer"]}
    shape = balanced_shape(24, 48)
    counted = multiplications(shape, shape.full_bonds) / (3 * 8 * 24 * 48)
    assert seconds["counted limit"] == pytest.approx(seconds["nn.Linear"] * (1 + counted))


def test_the_tables_hold_the_record(record):
    page = bench_tables.markdown(record)
    for name in (*LAYERS, "counted limit", "mpo_tutorial", "quimb", "Asked for"):
        assert name in page
    assert [table.title for table in bench_tables.tables(record)][-1] == "Asked for"
    for table in bench_tables.tables(record):
        assert all(len(row) == len(table.head) for row in table.rows)


@pytest.mark.parametrize("bond", [None, 3])
def test_contenders_do_the_same_work(bond):
    """The same output, the same gradient of the input and of every trained core; no gradient of the central one."""
    shape = balanced_shape(24, 40)
    x = torch.randn(5, 24, requires_grad=True)
    found = {}
    for name in LAYERS:
        layer = layer_of(name, shape, bond)
        out = layer(x)
        out.square().sum().backward()
        found[name] = (out.detach(), x.grad.clone())
        x.grad = None
        if name != "nn.Linear":
            cores = list(layer.cores if name == "MPOLinear" else layer.weight.factors)
            assert [core.grad is None for core in cores] == [False, False, True, False, False]
            gradients = [
                core.grad if name == "MPOLinear" else core.grad.transpose(1, 2)
                for core in cores
                if core.grad is not None
            ]
            for gradient, expected in zip(gradients, found.setdefault("cores", gradients), strict=True):
                torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)
    for name in LAYERS[1:]:
        torch.testing.assert_close(found[name], found["nn.Linear"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(97, 24), (24, 48), (48, 24)])
@pytest.mark.parametrize("library", ["mpo_tutorial", "tensorly", "quimb"])
def test_decomposers_rebuild_the_matrix(library, size):
    assert relative_error(decomposer(library, *size, "cpu")()(), bert_like(*size)) < 1e-5


@pytest.mark.parametrize(("library", "module"), [("quimb", "quimb.tensor"), ("torchTT", "torchtt")])
def test_a_missing_library_is_said_to_be_missing(monkeypatch, library, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert decomposer(library, 24, 48, "cpu") is None
    rows = [{"library": "tensorly", "seconds": 1.0, "error": 1e-6}, {"library": library, "missing": "not installed"}]
    assert bench_tables._decomposition(rows).rows[1] == (library, "not installed", "", "", "")


def test_a_missing_layer_is_said_to_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tltorch", None)
    assert layer_of("tensorly-torch, reconstructed", balanced_shape(24, 48), None) is None


def test_a_missed_target_is_called_missed():
    met, missed, narrow, impossible = (
        bench_tables.Target("", 0.8, 0.85, 0.7).verdict,
        bench_tables.Target("", 0.9, 0.85).verdict,
        bench_tables.Target("", 0.9, 0.85, 0.8).verdict,
        bench_tables.Target("", 0.9, 0.85, 0.88).verdict,
    )
    assert (met, missed) == ("met", "NOT met")
    assert narrow == "NOT met; it takes 1.06 times the counted limit, which is at 0.80"
    assert impossible == "NOT met; out of reach, for the counted limit itself is at 0.88"


def test_bad_input_is_refused():
    for options, message in (
        ({"repeat": 0}, "repeat is at least 1, got 0"),
        ({"device": "tpu"}, "cpu or cuda, got 'tpu'"),
    ):
        with pytest.raises(ValueError, match=message):
            bench.study(TINY, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="there is none; take --device cpu"):
        bench.study(TINY, device="cuda")


def test_the_command_refuses_in_one_line(mpo_tutorial_command, tmp_path):
    done = mpo_tutorial_command("bench", "--repeat", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (2, "")
    assert done.stderr.strip().splitlines() == ["mpo-tutorial: repeat is at least 1, got 0"]
    assert not list(tmp_path.iterdir())

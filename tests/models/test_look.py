import json
import re

import pytest
import torch
from matplotlib.image import imread
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForPreTraining,
)

from mpo_tutorial.course.figures import draw_ledger
from mpo_tutorial.experiments.compress import save_compressed
from mpo_tutorial.experiments.finetune import locked
from mpo_tutorial.models.convert import count, outline
from mpo_tutorial.models.families import PAPERS
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.look import look_at
from mpo_tutorial.models.truncation import Cut


def test_a_config_is_enough(tiny_config, tmp_path):
    config = tiny_config("albert")
    config.save_pretrained(tmp_path)
    view = look_at(str(tmp_path / "config.json"), n_cores=3)
    dense = outline(config).base_model
    assert view.dense == count(dense)
    assert view.total == count(dense) + view.ledger.total - view.ledger.dense
    assert view.auxiliary == view.ledger.auxiliary
    in_matrices = sum(dense.get_submodule(row.name.removeprefix("albert.")).weight.numel() for row in view.ledger.rows)
    assert view.everything == count(dense) - in_matrices + view.ledger.auxiliary
    assert view.ledger.largest_error is None


def test_parts_of_a_view_are_counted_like_models_of_their_own(tiny_config, tmp_path):
    tiny_config("mobilebert").save_pretrained(tmp_path)
    path = str(tmp_path / "config.json")
    everything = look_at(path, n_cores=3, matrices="all")
    for parts in (PAPERS, "attention"):
        some, alone = everything.only(parts), look_at(path, n_cores=3, matrices=parts)
        assert (some.total, some.auxiliary, some.everything) == (alone.total, alone.auxiliary, alone.everything)
        assert some.cells() == alone.cells()


def test_with_weights_the_errors_are_there(tiny_model):
    assert look_at(tiny_model, max_bond=4).ledger.largest_error > 0.1
    assert look_at(tiny_model).ledger.largest_error < 1e-5


def test_the_picture_has_a_bar_for_every_matrix(tiny_model, tmp_path):
    view = look_at(tiny_model, n_cores=3)
    path = draw_ledger(view, tmp_path)
    assert path.name.startswith("ledger-")
    height = imread(path).shape[0]
    some = look_at(tiny_model, n_cores=3, matrices="pooler")
    assert height - imread(draw_ledger(some, tmp_path)).shape[0] > 20 * (len(view.ledger.rows) - 1)


def test_kinds_of_all_layers_add_up(tiny_model):
    ledger = look_at(tiny_model, n_cores=3).ledger
    kinds = ledger.by_kind()
    assert len(kinds["query"].rows) == 2
    assert sum(part.total for part in kinds.values()) == ledger.total


def test_a_compressed_model_is_looked_at_as_it_is(tiny_model, tmp_path):
    save_compressed(tiny_model, tmp_path, n_cores=3, matrices="attention", cut=Cut(max_bond=4))
    dense = look_at(tiny_model, n_cores=3, max_bond=4, matrices="attention")
    for path in (tmp_path, tmp_path / "config.json"):
        view = look_at(str(path))
        assert view.cells()[1:] == dense.cells()[1:]
        assert [row.bonds for row in view.ledger.rows] == [row.bonds for row in dense.ledger.rows]
    with pytest.raises(ValueError, match="is compressed, and looked at as it is"):
        look_at(str(tmp_path), max_bond=2)


def test_one_at_a_time_saves_to_a_folder(tiny_model, tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="one run at a time works in a folder"):
        save_compressed(tiny_model, tmp_path)


@pytest.mark.parametrize("limit", [{"max_bond": 4}, {"cutoff": 0.1}, {"ratio": 0.5}, {"n_params": 5000}, {}])
def test_the_folder_of_a_compressed_model_is_loaded_again(tiny_model, tmp_path, limit):
    ledger = save_compressed(tiny_model, tmp_path, n_cores=3, matrices="attention", cut=Cut(**limit) if limit else None)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert sum(layer.mpo.n_params for layer in mpo_layers(model)) == ledger.total
    assert (ledger.largest_error > 0.05) == bool(limit)


def test_a_fitted_cut_is_further_from_the_weights(tiny_model, tiny_task, tmp_path):
    plain, fitted = (
        save_compressed(tiny_model, tmp_path / out, cut=Cut(ratio=0.5), fit_to=task)
        for out, task in (("plain", None), ("fitted", tiny_task))
    )
    assert fitted.total == plain.total
    assert fitted.largest_error > plain.largest_error


def test_files_that_are_no_configs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("config.json of a model")):
        look_at(str(tmp_path / "none.json"))
    for content in ("no JSON", "{}", json.dumps({"model_type": "unheard-of"})):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=re.escape("is no config.json of a model that transformers knows: ")):
            look_at(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("auto", "options"),
    [(AutoModelForSequenceClassification, {"num_labels": 3}), (AutoModelForMaskedLM, {}), (AutoModel, {})],
)
def test_the_head_that_a_model_has_is_kept(tiny_config, tiny_model, tmp_path, auto, options):
    torch.manual_seed(0)
    model = auto.from_config(tiny_config("bert", vocab_size=30522, **options)).eval()
    model.save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "whole")
    save_compressed(str(tmp_path / "whole"), tmp_path / "small", n_cores=3)
    loaded = auto.from_pretrained(tmp_path / "small").eval()
    ids = torch.tensor([[5, 9, 96, 1]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids)[0], model(ids)[0], atol=2e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"small is compressed, with 3 cores an MPO: leave out --matrices and --cores"):
        save_compressed(str(tmp_path / "small"), tmp_path / "smaller", n_cores=5)
    with pytest.raises(ValueError, match="small is compressed"):
        save_compressed(str(tmp_path / "small"), tmp_path / "smaller", matrices="query")
    save_compressed(str(tmp_path / "small"), tmp_path / "smaller", cut=Cut(max_bond=3))
    assert max(max(layer.mpo.bonds) for layer in mpo_layers(auto.from_pretrained(tmp_path / "smaller"))) == 3


def test_the_pooler_is_kept_though_the_config_names_a_head_without(tiny_config, tiny_model, tmp_path):
    """As the hub's BERT: made by BertForPreTraining, called BertForMaskedLM."""
    whole = BertForPreTraining(tiny_config("bert", vocab_size=30522))
    whole.save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "whole")
    words = json.loads((tmp_path / "whole/config.json").read_text())
    (tmp_path / "whole/config.json").write_text(json.dumps({**words, "architectures": ["BertForMaskedLM"]}))
    ledger = save_compressed(str(tmp_path / "whole"), tmp_path / "small", n_cores=3)
    assert ledger.rows[-1].name == "pooler.dense"
    model, _ = load(str(tmp_path / "small"), 2, seed=0)
    torch.testing.assert_close(model.bert.pooler.dense.mpo.to_matrix().T, whole.bert.pooler.dense.weight.detach())


def test_a_folder_without_a_tokenizer_is_refused(tiny_config, tmp_path):
    AutoModelForSequenceClassification.from_config(tiny_config("bert")).save_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"a model's folder holds its tokenizer, .* has none with words in it"):
        save_compressed(str(tmp_path / "whole"), tmp_path / "small")

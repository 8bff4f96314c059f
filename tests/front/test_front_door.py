"""`import mpo_tutorial as mt`: the verbs, as the README shows them."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import warm

import mpo_tutorial as mt
from mpo_tutorial.doctor import Check, Report
from mpo_tutorial.experiments import records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def films(tmp_path, tiny_rows) -> str:
    pd.DataFrame(tiny_rows, columns=["text", "label"]).to_csv(tmp_path / "films.csv", index=False)
    return str(tmp_path / "films.csv")


@pytest.fixture
def light(tiny_model):
    model, tokenizer = mt.load(tiny_model)
    mt.decompose(model)
    mt.freeze(model)
    return model, tokenizer


def readme_lines() -> tuple[str, str]:
    """The front door's five, and those with PEFT."""
    door, with_peft = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    return door, with_peft


def test_the_five_lines_of_the_readme_run(tiny_model, films, capsys):
    lines, _ = readme_lines()
    for shown, here in (('"minilm"', repr(tiny_model)), ('"rotten_tomatoes"', repr(films))):
        assert lines.count(shown) == 1
        lines = lines.replace(shown, here)
    names: dict = {}
    exec(lines, names)  # noqa: S102
    assert float(capsys.readouterr().out) == names["record"]["test"]["accuracy"]


def test_the_lines_with_peft_fine_tune_save_load_and_merge(tiny_model, tiny_rows, tmp_path):
    """In a project of its own: in a process that has imported nothing of ours, in a folder that holds the sentences alone."""
    _, lines = readme_lines()
    folder = tmp_path / "project"
    folder.mkdir()
    numbered = [(text, int(label == "positive")) for text, label in tiny_rows]
    pd.DataFrame(numbered, columns=["text", "label"]).to_csv(folder / "films.csv", index=False)
    lines = lines.replace('"bert-base-uncased"', repr(tiny_model))
    lines += """
import torch
given = {name: torch.tensor([rows[0][name]]) for name in ("input_ids", "attention_mask")}
torch.testing.assert_close(dense.eval()(**given).logits, light.eval()(**given).logits)
assert type(dense) is type(model)
print("blocks", sum(bool(p.abs().sum()) for name, p in light.named_parameters() if "mpo_left" in name))
"""
    ran = warm.python("-c", lines, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "blocks 13"


@pytest.mark.full
def test_the_five_lines_of_the_readme_run_as_they_stand(capsys):
    exec(readme_lines()[0], {})  # noqa: S102
    assert 0.78 < float(capsys.readouterr().out) < 0.83


def test_what_is_frozen_stays_and_the_rest_learns(light, films, tmp_path):
    model, tokenizer = light
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    untrained = mt.evaluate(model, tokenizer, films)
    settings = {"epochs": 8, "learning_rate": 5e-3, "train_size": 96}
    record = mt.finetune(model, tokenizer, films, out=tmp_path / "run", progress=False, **settings)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad, name
    assert record["config"] | settings == record["config"]
    assert (record["config"]["method"], record["config"]["cores"]) == ("light", 5)
    assert mt.evaluate(model, tokenizer, films) == record["test"]
    assert mt.evaluate(model, tokenizer, films, split="validation") == record["validation"]
    assert record["test"]["accuracy"] > untrained["accuracy"]
    assert records.read_record(tmp_path / "run/record.json") == record
    assert record["parameters"]["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_dense_model_is_fine_tuned_in_full(tiny_model, films):
    model, tokenizer = mt.load(tiny_model)
    record = mt.finetune(model, tokenizer, films, epochs=1, train_size=40, progress=False)
    assert record["config"]["method"] == "full"
    assert record["parameters"]["trained"] == record["parameters"]["total"]


def test_what_cannot_be_trained_or_measured_is_refused(light, tiny_model, films, tmp_path):
    model, tokenizer = light
    three, _ = mt.load(tiny_model, n_labels=3)
    with pytest.raises(ValueError, match="needs a head with 2 outputs, the model's has 3; load it with n_labels=2"):
        mt.finetune(three, tokenizer, films)
    with pytest.raises(ValueError, match="needs a head with 2 outputs"):
        mt.evaluate(three, tokenizer, films)
    with pytest.raises(ValueError, match="has the splits train, validation, test, got 'dev'"):
        mt.evaluate(model, tokenizer, films, split="dev")
    with pytest.raises(ValueError, match="epochs is an integer of at least 1, got 0"):
        mt.finetune(model, tokenizer, films, epochs=0)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="every tensor of the model is frozen"):
        mt.finetune(model, tokenizer, films)


@pytest.mark.parametrize("name", ["paper", "results", "data"])
def test_an_old_name_answers_with_the_new_one(name):
    with pytest.raises(AttributeError, match=rf"mpo_tutorial\.{name} is now mpo_tutorial\."):
        getattr(mt, name)


@pytest.mark.parametrize("name", ["results", "model", "mpo", "truncation", "degradation"])
def test_an_old_module_answers_with_the_new_one(name):
    with pytest.raises(ModuleNotFoundError, match=rf"mpo_tutorial\.{name} is now mpo_tutorial\."):
        __import__(f"mpo_tutorial.{name}")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'mpo_tutorial\.nothing'"):
        __import__("mpo_tutorial.nothing")


def test_every_signpost_leads_somewhere():
    from mpo_tutorial.moved import MOVED

    for target in MOVED.values():
        first, *_ = re.split(r",| and ", target)
        home, _, name = first.rpartition(".")
        found = __import__(home, fromlist=[name])
        assert hasattr(found, name) or __import__(first, fromlist=["_"])


def test_the_doctors_report_is_one_line_where_all_is_well_and_says_what_to_type_where_not():
    well = Report([Check("Python", "3.12"), Check("disk", "9 GB free")])
    assert repr(well) == "All is well: 2 things looked at."
    assert "<li>" not in well._repr_html_()
    ill = Report([*well, Check("<x>", "missing", "pip install 'x>=1'")])
    assert repr(ill) == "1 of 3 things want mending:\n<x>: missing; type: pip install 'x>=1'"
    page = ill._repr_html_()
    assert "<li>&lt;x&gt;: missing; type: pip install &#x27;x&gt;=1&#x27;</li>" in page
    assert page.count("<tr>") == 4

import copy
import json
from dataclasses import replace

import pytest
import torch
from conftest import POSITIVE
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from mpo_tutorial.experiments.checkpoint import KEY, SharedBase, digest, fingerprint
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare, run
from mpo_tutorial.models.convert import decompose
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.truncation import truncate

LIKES = "number 3 is a great film"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, tiny_model, tiny_rows):
    """Three tasks trained over one base that was saved with its MPOs cut: two ways to label the same films, three classes once."""
    folder = tmp_path_factory.mktemp("tasks")
    model, tokenizer = load(tiny_model, 2, seed=0)
    decompose(model, matrices="all")
    truncate(model, max_bond=12)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    labels = {
        "likes": lambda text, label: label,
        "kinds": lambda text, label: label if any(word in text for word in (*POSITIVE, "bad")) else "very negative",
        "everything": lambda text, label: label,
    }
    for name, label_of in labels.items():
        path = folder / f"{name}.csv"
        path.write_text("text,label\n" + "".join(f"{text},{label_of(text, label)}\n" for text, label in tiny_rows))
        rest = "all" if name == "everything" else "head"
        config = RunConfig(
            model=str(folder / "base"), task=str(path), rest=rest, learning_rate=5e-3, train_size=96, epochs=1
        )
        run(prepare(config), folder / name, progress=False, splits=("validation",))
    return folder


def answer(model, tokenizer) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**tokenizer(LIKES, return_tensors="pt")).logits


def trained(folder, name) -> torch.Tensor:
    """What the model of a run answers, that was trained alone."""
    config = RunConfig(model=str(folder / "base"), task=str(folder / f"{name}.csv"), train_size=96, epochs=1)
    config = replace(config, rest="all" if name == "everything" else "head", learning_rate=5e-3)
    prepared = prepare(config)
    run(prepared, folder / name, resume=True, progress=False, splits=("validation",))
    return answer(prepared.model, prepared.tokenizer)


def test_tasks_over_one_base_are_switched_in_place(tasks):
    model = AutoModelForSequenceClassification.from_pretrained(tasks / "base")
    tokenizer = AutoTokenizer.from_pretrained(tasks / "base")
    base = SharedBase(model)
    for name in ("likes", "kinds", "everything", "likes", "everything", "kinds"):
        base.switch(tasks / name / "task.safetensors")
        assert torch.equal(answer(model, tokenizer), trained(tasks, name)), name
    assert model.num_labels == model.classifier.out_features == 3
    assert model.config.num_labels == 3


def test_what_a_task_left_alone_is_the_bases_own_again(tasks):
    model = AutoModelForSequenceClassification.from_pretrained(tasks / "base")
    before = copy.deepcopy(model.state_dict())
    base = SharedBase(model)
    base.switch(tasks / "everything" / "task.safetensors")
    table = "bert.embeddings.position_embeddings.weight"
    assert not torch.equal(model.state_dict()[table], before[table])
    base.switch(tasks / "likes" / "task.safetensors")
    assert torch.equal(model.state_dict()[table], before[table])
    assert all(torch.equal(layer.central, before[name]) for name, layer in centrals(model))


def centrals(model):
    names = {id(p): name for name, p in model.named_parameters()}
    return [(names[id(layer.central)], layer) for layer in mpo_layers(model)]


def test_a_task_file_of_another_base_or_shape_is_refused_and_changes_nothing(tasks, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(tasks / "base")
    base = SharedBase(model)
    file = tasks / "likes" / "task.safetensors"
    tensors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        metadata = json.loads(opened.metadata()[KEY])
    name = next(name for name in tensors if ".cores.0" in name)
    before = copy.deepcopy(model.state_dict())
    without_head = {name: tensor for name, tensor in tensors.items() if name != "classifier.bias"}
    for tensors_then, meta, message in (
        (tensors, {"base": "0" * 64}, "belongs to the base 000000000000, not to"),
        (
            tensors,
            {},
            "metadata mpo_tutorial of .*other.safetensors must have a text at base, it is missing; train this",
        ),
        (tensors, {"base": 3}, "must have a text at base, there is 3"),
        (tensors, {"base": base.base, "sha256": None}, "must have a text at sha256, there is null"),
        (tensors, {"base": base.base, "sha256": "0" * 64}, "was altered after it was saved"),
        ({**tensors, name: -tensors[name]}, metadata, "was altered after it was saved"),
        ({**tensors, name: torch.zeros(1, 2, 3, 4)}, {"base": base.base}, r"cores.0 is \(1, 2, 3, 4\), there is \("),
        ({**tensors, "bert.new": torch.zeros(1)}, {"base": base.base}, r"bert.new is \(1,\), there is no such tensor"),
        (
            {**tensors, "classifier.weight": torch.zeros(3, 4), "classifier.bias": torch.zeros(3)},
            {"base": base.base},
            r"weight is \(3, 4\), there is \(3, 24\)",
        ),
        ({**tensors, "classifier.bias": torch.zeros(3)}, {"base": base.base}, r"bias is \(3,\), there is \(2,\)"),
        (
            {**tensors, "classifier.weight": torch.tensor(1.0)},
            {"base": base.base},
            r"classifier.weight is \(\), there is \(2, 24\)",
        ),
        (without_head, {"base": base.base}, r"classifier.bias is missing, there is \(2,\)"),
    ):
        save_file(
            tensors_then, tmp_path / "other.safetensors", {KEY: json.dumps({"sha256": digest(tensors_then), **meta})}
        )
        with pytest.raises(ValueError, match=message):
            base.switch(tmp_path / "other.safetensors")
    for text in ("", "{", "[" * 10**5, "[]", "null", '"text"', "3", "{}"):
        save_file(tensors, tmp_path / "other.safetensors", {KEY: text})
        with pytest.raises(
            ValueError, match=r"the metadata mpo_tutorial of .*other\.safetensors must .*; train this task"
        ):
            base.switch(tmp_path / "other.safetensors")
    for metadata_then in (None, {"format": "pt"}):
        save_file(tensors, tmp_path / "other.safetensors", metadata_then)
        with pytest.raises(ValueError, match="must have a text at base, it is missing"):
            base.switch(tmp_path / "other.safetensors")
    torch.save(tensors, tmp_path / "pickle.safetensors")
    with pytest.raises(ValueError, match="a task file is a whole safetensors file"):
        base.switch(tmp_path / "pickle.safetensors")
    with pytest.raises(FileNotFoundError):
        base.switch(tmp_path / "absent.safetensors")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_the_fingerprint_is_of_the_encoder_alone_and_of_how_it_is_cut(tiny_model):
    first, other = (load(tiny_model, n, seed=seed)[0] for n, seed in ((2, 0), (3, 1)))
    assert fingerprint(first) == fingerprint(other)
    assert fingerprint(first, "bond 4") != fingerprint(first)
    with torch.no_grad():
        other.bert.pooler.dense.bias[0] += 1e-6
    assert fingerprint(first) != fingerprint(other)


def test_a_compressed_base_is_used_as_it_is(tasks):
    config = RunConfig(model=str(tasks / "base"), task=str(tasks / "likes.csv"), train_size=96)
    prepared = prepare(config)
    assert prepared.ledger.rows[0].name == "bert.embeddings.word_embeddings"
    assert prepare(replace(config, bond=4)).base != prepared.base
    assert max(max(layer.mpo.bonds) for layer in mpo_layers(prepare(replace(config, bond=4)).model)) == 4
    with pytest.raises(
        ValueError, match=r"is compressed, with 5 cores an MPO: leave out --matrices and --cores, or give --cores 5"
    ):
        prepare(replace(config, cores=3))
    with pytest.raises(ValueError, match="leave out --matrices"):
        prepare(replace(config, matrices="all"))
    with pytest.raises(ValueError, match="full fine-tuning is for the dense model"):
        prepare(replace(config, method="full"))


def test_a_pooler_that_begins_anew_is_trained_whole_and_no_part_of_the_base(
    tiny_config, tiny_model, tiny_task, tmp_path
):
    AutoModelForMaskedLM.from_config(tiny_config("bert", vocab_size=30522, max_position_embeddings=64)).save_pretrained(
        tmp_path / "words"
    )
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "words")
    config = RunConfig(model=str(tmp_path / "words"), task=tiny_task, train_size=96, epochs=1)
    first, other = (prepare(replace(config, seed=seed)) for seed in (0, 1))
    assert first.base == other.base
    assert all(p.requires_grad for p in first.model.bert.pooler.parameters())
    assert not first.model.bert.encoder.layer[0].attention.self.query.central.requires_grad
    run(first, tmp_path / "run", progress=False, splits=("validation",))
    base = SharedBase(other.model, other.base)
    base.switch(tmp_path / "run" / "task.safetensors")
    assert torch.equal(answer(other.model, other.tokenizer), answer(first.model, first.tokenizer))


def test_what_a_loss_left_behind_does_not_outlive_a_switch(tasks):
    model = AutoModelForSequenceClassification.from_pretrained(tasks / "base")
    batch = AutoTokenizer.from_pretrained(tasks / "base")(LIKES, return_tensors="pt")
    base = SharedBase(model)
    for name in ("likes", "kinds"):
        base.switch(tasks / name / "task.safetensors")
        model(**batch, labels=torch.tensor([1])).loss.backward()
        assert model.config.problem_type == "single_label_classification"
        assert model.classifier.weight.grad.shape == model.classifier.weight.shape
    base.switch(tasks / "likes" / "task.safetensors")
    assert model.config.problem_type is None


def test_matrices_are_part_of_a_run(tiny_model, tiny_task):
    config = RunConfig(model=tiny_model, task=tiny_task, train_size=96)
    usual, some = prepare(config), prepare(replace(config, matrices="embedding,query"))
    assert [row.name for row in some.ledger.rows] == [
        "bert.embeddings.word_embeddings",
        *(f"bert.encoder.layer.{k}.attention.self.query" for k in range(2)),
    ]
    assert usual.base != some.base
    with pytest.raises(ValueError, match=r"matrices are named by all, embedding, .*, got 'quary'"):
        prepare(replace(config, matrices="quary"))

"""What PEFT's users expect of every method, asked of ours: after the list of cases in PEFT's own tests."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
import warm
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PeftType,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, usual_shape
from mpo_tutorial.models import peft as module
from mpo_tutorial.models.peft import MPOConfig, MPOLinear, MPOModel

SMALL = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 48}
WORDS = torch.arange(14).reshape(2, 7)
QUERY = "bert.encoder.layer.0.attention.self.query"


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(vocab_size=50, **SMALL)).eval()


def vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **SMALL)).eval()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=50, num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, **SMALL)
    return LlamaForCausalLM(config).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_positions=16, bos_token_id=1, eos_token_id=2)
    return GPT2LMHeadModel(config).eval()


def inputs(model: nn.Module) -> dict:
    """Of the base or of what PEFT made of it."""
    return (
        {"pixel_values": torch.ones(2, 3, 8, 8).cumsum(3) / 8}
        if model.config.model_type == "vit"
        else {"input_ids": WORDS}
    )


def output(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs(model)).logits


def layer_of(model: nn.Module, name: str = QUERY) -> MPOLinear:
    return model.get_submodule(f"base_model.model.{name}")


@pytest.fixture(params=[bert, vit, llama, gpt2], ids=lambda make: make.__name__)
def base(request) -> nn.Module:
    return request.param()


@pytest.fixture
def moved() -> PeftModel:
    """With blocks that are no identities."""
    return get_peft_model(bert(), MPOConfig(init_weights=False, task_type="SEQ_CLS")).eval()


def test_at_the_start_the_model_is_the_same_to_the_last_bit(base):
    before = output(base)
    assert torch.equal(output(get_peft_model(base, MPOConfig())), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_too_and_the_blocks_are_in_single(base, dtype):
    base.to(dtype)
    given = {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs(base).items()}
    before = base(**given).logits
    model = get_peft_model(base, MPOConfig())
    assert torch.equal(model(**given).logits, before)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    rough = get_peft_model(bert().to(dtype), MPOConfig(), autocast_adapter_dtype=False)
    assert {p.dtype for p in rough.parameters()} == {dtype}
    assert rough(input_ids=WORDS).logits.dtype == dtype


def test_blocks_are_those_of_the_gauge_amb(moved):
    """Equal to an MPO whose outer cores are identity plus block, in value; what is trained has the sizes of its cores."""
    layer = layer_of(moved)
    shape = usual_shape(24, 24)
    a, centre, b = MPO.from_blocks(layer.base_layer.weight.T, shape).cores
    left, right = layer.mpo_left["default"], layer.mpo_right["default"]
    expected = MPO((a + left.view_as(a), centre, b + right.view_as(b))).to_matrix()
    assert torch.equal(layer.matrix(), expected)
    assert (layer.matrix() - layer.base_layer.weight.T).norm() > 0.01


def test_a_step_trains_the_blocks_and_nothing_else():
    model = get_peft_model(bert(), MPOConfig(task_type="SEQ_CLS"))
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = model(input_ids=WORDS, labels=torch.tensor([0, 1])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {
        name for name in before if ".mpo_left." in name or ".mpo_right." in name or "modules_to_save" in name
    }
    assert losses[-1] < losses[0]


def test_weight_decay_draws_the_matrix_back_to_what_it_was(moved):
    layer = layer_of(moved)
    far = (layer.matrix() - layer.base_layer.weight.T).norm()
    blocks = [layer.mpo_left["default"], layer.mpo_right["default"]]
    optimizer = torch.optim.AdamW(blocks, lr=0.1, weight_decay=1.0)
    for block in blocks:
        block.grad = torch.zeros_like(block)
    for _ in range(30):
        optimizer.step()
    assert (layer.matrix() - layer.base_layer.weight.T).norm() < far / 10


def test_what_is_saved_is_loaded(moved, tmp_path):
    moved.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "MPO"
    again = PeftModel.from_pretrained(bert(), tmp_path)
    assert torch.equal(output(again), output(moved))
    assert not any(p.requires_grad for p in again.parameters())
    assert any(p.requires_grad for p in PeftModel.from_pretrained(bert(), tmp_path, is_trainable=True).parameters())
    lean = PeftModel.from_pretrained(bert(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(output(lean), output(moved))
    assert isinstance(PeftConfig.from_pretrained(tmp_path), MPOConfig)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert not any("base_layer" in name or "default" in name for name in saved)


def test_an_adapter_of_one_precision_fits_a_base_of_another(moved, tmp_path):
    moved.save_pretrained(tmp_path)
    for dtype in (torch.bfloat16, torch.float16):
        half = PeftModel.from_pretrained(bert().to(dtype), tmp_path)
        assert torch.allclose(output(half).float(), output(moved), atol=0.02)


def test_an_adapter_of_another_base_is_refused(moved, tmp_path):
    moved.save_pretrained(tmp_path)
    tuned = bert()
    tuned.get_submodule(QUERY).weight.data *= 1 + 0.03 * torch.randn(24, 24)
    with pytest.raises(RuntimeError, match=f"made for another base: {QUERY} has other numbers here"):
        PeftModel.from_pretrained(tuned, tmp_path)
    wider = BertForSequenceClassification(BertConfig(vocab_size=50, **{**SMALL, "hidden_size": 32}))
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(wider, tmp_path)


def test_an_adapter_that_is_loaded_into_a_merged_model_knows_its_base(moved, tmp_path):
    moved.save_pretrained(tmp_path)
    before = output(moved)
    moved.merge_adapter()
    with pytest.warns(UserWarning, match="Unmerging the model first"):
        moved.load_adapter(tmp_path, "other")
    moved.set_adapter("other")
    assert torch.equal(output(moved), before)


@pytest.mark.parametrize("safe", [False, True])
def test_merging_changes_rounding_alone_and_unmerging_nothing(base, safe):
    weights = copy.deepcopy(base.state_dict())
    before = output(base)
    model = get_peft_model(base, MPOConfig(init_weights=False))
    turned = output(model)
    assert not torch.allclose(turned, before, atol=1e-4)
    model.merge_adapter(safe_merge=safe)
    assert torch.allclose(output(model), turned, atol=1e-6)
    with pytest.warns(UserWarning, match="All adapters are already merged"):
        model.merge_adapter(safe_merge=safe)
    model.unmerge_adapter()
    assert torch.equal(output(model), turned)
    with pytest.warns(UserWarning, match="Already unmerged"):
        model.unmerge_adapter()
    for name, value in model.get_base_model().state_dict().items():
        if "mpo_" not in name:
            assert torch.equal(value, weights[name.replace(".base_layer", "")])
    assert torch.equal(output(copy.deepcopy(model).unload()), before)
    merged = model.merge_and_unload(safe_merge=safe)
    assert torch.allclose(output(merged), turned, atol=1e-6)
    assert not any(isinstance(module, MPOLinear) for module in merged.modules())
    assert set(merged.state_dict()) == set(weights)


def test_a_broken_adapter_is_not_merged_safely(moved):
    layer_of(moved).mpo_left["default"].data[0, 0] = torch.nan
    weight = layer_of(moved).base_layer.weight.clone()
    with pytest.raises(ValueError, match=f"merged, {QUERY} would not be finite; the adapter 'default' is broken"):
        moved.merge_adapter(safe_merge=True)
    assert torch.equal(layer_of(moved).base_layer.weight, weight)


def test_several_adapters_are_switched_disabled_and_deleted():
    model = bert()
    before = output(model)
    model = get_peft_model(model, MPOConfig(init_weights=False), adapter_name="one")
    first = output(model)
    model.add_adapter("two", MPOConfig(share=0.05, init_weights=False, target_modules=["query", "key"]))
    assert torch.equal(output(model), first)
    model.set_adapter("two")
    second = output(model)
    assert not torch.allclose(second, first, atol=1e-5)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names
    assert all(name.endswith(".two") for name in names)
    with model.disable_adapter():
        assert torch.equal(output(model), before)
    assert torch.equal(output(model), second)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(output(model), before)
    model.set_adapter("one")
    assert torch.equal(output(model), first)
    model.delete_adapter("two")
    assert torch.equal(output(model), first)
    assert not any("two" in name for name in model.state_dict())
    with pytest.raises(ValueError, match="unknown"):
        model.delete_adapter("unknown")


def test_two_active_adapters_act_one_after_the_other_and_merge_in_that_order():
    model = get_peft_model(bert(), MPOConfig(init_weights=False), adapter_name="one")
    model.add_adapter("two", MPOConfig(share=0.05, init_weights=False))
    model.base_model.set_adapter(["one", "two"])
    together = output(model)
    model(input_ids=WORDS).logits.sum().backward()
    layer = layer_of(model)
    for name in ("one", "two"):
        assert layer.mpo_left[name].grad.abs().sum() > 0
    model.merge_adapter()
    assert torch.allclose(output(model), together, atol=1e-6)
    model.unmerge_adapter()
    assert torch.equal(output(model), together)
    model.merge_adapter(adapter_names=["one"])
    with pytest.warns(UserWarning, match="additionally merging two"):
        model.merge_adapter()
    assert torch.allclose(output(model), together, atol=1e-6)
    with pytest.warns(UserWarning, match="All adapters are already merged"):
        merged = model.merge_and_unload()
    assert torch.allclose(output(merged), together, atol=1e-6)


def test_only_what_is_wanted_is_saved(tmp_path):
    model = get_peft_model(bert(), MPOConfig(init_weights=False), adapter_name="one")
    model.add_adapter("two", MPOConfig(init_weights=False))
    model.save_pretrained(tmp_path, selected_adapters=["two"])
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["two"]
    again = PeftModel.from_pretrained(bert(), tmp_path / "two", adapter_name="other")
    model.set_adapter("two")
    assert torch.equal(output(again), output(model))


def test_the_state_dict_is_taken_and_put_without_a_wrapper():
    config = MPOConfig(init_weights=False)
    one = inject_adapter_in_model(config, bert())
    state = get_peft_model_state_dict(one)
    other = inject_adapter_in_model(MPOConfig(), bert())
    result = set_peft_model_state_dict(other, state)
    assert not result.unexpected_keys
    assert torch.equal(output(one), output(other))
    blank = inject_adapter_in_model(config, bert(), low_cpu_mem_usage=True)
    assert {p.device.type for name, p in blank.named_parameters() if "mpo_" in name} == {"meta"}


@pytest.mark.parametrize("bias", ["none", "all", "mpo_only"])
def test_biases_are_trained_and_saved_as_asked(bias, tmp_path):
    model = get_peft_model(bert(), MPOConfig(bias=bias, target_modules=["query"]))
    trained = {name for name, p in model.named_parameters() if p.requires_grad and name.endswith("bias")}
    there = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    assert trained == {"none": set(), "all": there, "mpo_only": {name for name in there if "query" in name}}[bias]
    for name, p in model.named_parameters():
        if name in trained:
            p.data += 1
    model.save_pretrained(tmp_path)
    assert torch.equal(output(PeftModel.from_pretrained(bert(), tmp_path)), output(model))


def test_a_second_adapter_with_biases_is_refused():
    model = get_peft_model(bert(), MPOConfig(bias="all"))
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        model.add_adapter("two", MPOConfig(bias="all"))


def test_layers_are_chosen_by_name_by_number_and_by_expression():
    def chosen(**options) -> set[str]:
        return {*get_peft_model(bert(), MPOConfig(**options)).base_model.targeted_module_names}

    assert chosen(target_modules=["query"], layers_to_transform=[1], layers_pattern="layer") == {
        QUERY.replace("layer.0", "layer.1")
    }
    assert chosen(target_modules=r".*layer\.0.*query") == {QUERY}
    assert chosen(target_modules=["query", "key"], exclude_modules=[QUERY.replace("query", "key")]) >= {QUERY}
    # All linear layers but the classifier, which PEFT leaves out of a task that it knows.
    assert len(chosen(task_type="SEQ_CLS")) == 2 * 6 + 1


def test_gradients_are_the_same_with_checkpointing(moved):
    def gradients() -> list[torch.Tensor]:
        moved.zero_grad()
        moved.train()
        moved(input_ids=WORDS, labels=torch.tensor([0, 1])).loss.backward()
        return [p.grad.clone() for p in moved.parameters() if p.requires_grad]

    for inner in moved.modules():
        if isinstance(inner, nn.Dropout):
            inner.p = 0.0
    plain = gradients()
    inner = moved.get_base_model()
    getattr(inner, "activation_checkpointing_enable", inner.gradient_checkpointing_enable)()
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(plain, gradients(), strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in plain)


def step(rank: int, processes: int, folder: Path) -> None:
    """One step on the sentences of one process of so many; the first saves what came out."""
    torch.set_num_threads(1)
    model = get_peft_model(bert(), MPOConfig(task_type="SEQ_CLS"))
    wrapped = model
    if processes > 1:
        distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=processes)
        wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1.0)
    words, labels = (each[rank::processes] for each in (WORDS, torch.tensor([0, 1])))
    wrapped(input_ids=words, labels=labels).loss.backward()
    optimizer.step()
    if rank == 0:
        save_file(get_peft_model_state_dict(model), folder / f"{processes}.safetensors")
    if processes > 1:
        distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    step(0, 1, tmp_path)
    multiprocessing.start_processes(step, (2, tmp_path), nprocs=2, start_method="forkserver")
    one, two = (load_file(tmp_path / f"{processes}.safetensors") for processes in (1, 2))
    assert any(value.abs().sum() > 0 for name, value in one.items() if "mpo_left" in name)
    assert all(torch.allclose(value, two[name], atol=1e-6) for name, value in one.items())


def test_under_autocast_nothing_of_the_blocks_is_rounded(moved):
    layer = layer_of(moved)
    exact = layer.matrix()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.matrix(), exact)


def test_it_generates_compiles_copies_and_pickles():
    model = get_peft_model(llama(), MPOConfig(init_weights=False))
    words = model.generate(input_ids=WORDS, max_new_tokens=3, do_sample=False)
    assert words.shape == (2, 10)
    assert torch.equal(output(copy.deepcopy(model)), output(model))
    assert torch.equal(output(pickle.loads(pickle.dumps(model))), output(model))  # noqa: S301
    compiled = torch.compile(model, backend="eager")
    assert torch.allclose(output(compiled), output(model), atol=1e-6)


def test_lora_and_mpo_need_not_meet():
    """PEFT mixes methods only where they say that it may; ours does not."""
    model = get_peft_model(bert(), LoraConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match="different peft types"):
        model.add_adapter("two", MPOConfig())


def test_legs_are_chosen():
    config = MPOConfig(legs="4.3.2 x 2.3.4", target_modules=["query"])
    layer = layer_of(get_peft_model(bert(), config))
    assert layer.mpo_shape["default"] == Shape((4, 3, 2), (2, 3, 4))
    assert layer.mpo_left["default"].shape == layer.mpo_right["default"].shape == (8, 8)


def test_the_size_knob_comes_near_what_is_wanted():
    for wanted in (300, 1000, 3000, 6000):
        model = bert()
        config = MPOConfig.sized(model, wanted, task_type="SEQ_CLS")
        trained = sum(p.numel() for name, p in get_peft_model(model, config).named_parameters() if "mpo_" in name)
        assert trained == pytest.approx(wanted, rel=0.1)
    untouched = bert()
    MPOConfig.sized(untouched, 1000)
    assert all(torch.equal(a, b) for a, b in zip(untouched.parameters(), bert().parameters(), strict=True))
    assert not any(isinstance(module, MPOLinear) for module in untouched.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_cores": 3, "share": 0.1}, "sized by share, or by n_cores and legs, got both"),
        ({"share": 0.0}, "share is a number above 0 and at most 2, got 0.0"),
        ({"legs": "3.4"}, "legs are written as in"),
        ({"bias": "some"}, "bias is one of none, all, mpo_only, got 'some'"),
        ({"target_modules": "query", "layers_to_transform": 1}, "got a regular expression"),
        ({"layers_pattern": "layer"}, "give those, too"),
        ({"task_type": "REVIEWS"}, "Invalid task type"),
    ],
)
def test_configs_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MPOConfig(**options)


def test_layers_that_cannot_be_turned_are_named():
    with pytest.raises(
        ValueError, match=r"key is 24 x 24, and of the legs given none are. Add 2.2.3.2.1 x 1.2.3.2.2 for it"
    ):
        get_peft_model(bert(), MPOConfig(legs="6.2.4 x 4.2.6", target_modules=["intermediate.dense", "key"]))
    with pytest.raises(ValueError, match="word_embeddings is Embedding; leave it out of target_modules"):
        get_peft_model(bert(), MPOConfig(target_modules=["word_embeddings"]))
    with pytest.raises(ValueError, match=r"Target modules .* not found"):
        get_peft_model(bert(), MPOConfig(target_modules=["no such layer"]))
    with pytest.raises(ValueError, match="no blocks hold 20 numbers to within a tenth; the nearest hold"):
        MPOConfig.sized(bert(), 20)


def test_a_quantised_layer_is_named():
    model = bert()
    query = model.get_submodule(QUERY)
    query.weight = nn.Parameter(query.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(ValueError, match=f"{QUERY} is quantised .*float8.* or take LoRA"):
        get_peft_model(model, MPOConfig())


def test_without_peft_the_import_says_what_to_type():
    code = "import sys; sys.modules['peft'] = None\nimport mpo_tutorial.models.peft"
    ran = warm.python("-c", code)
    assert "needs PEFT 0.20 or later, and here is none or an older one; type: pip install 'peft>=0.20'" in ran.stderr


def test_it_is_registered_once_and_known_by_its_name():
    assert [kind for kind in PeftType if kind == "MPO"] == [PeftType("MPO")] == [PeftType["MPO"]]
    module._register()
    assert PEFT_TYPE_TO_TUNER_MAPPING["MPO"] is MPOModel


def test_a_file_with_a_foreign_name_is_passed_over(moved, tmp_path):
    moved.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(file), "other": torch.zeros(1)}, file)
    assert torch.equal(output(PeftModel.from_pretrained(bert(), tmp_path)), output(moved))

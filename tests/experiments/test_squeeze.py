import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from mpo_tutorial.experiments.finetune import prepare
from mpo_tutorial.experiments.plans import TABLE_3, Plan, plan_of
from mpo_tutorial.experiments.squeeze import MET, NOT_FINITE, WORSE, Squeeze
from mpo_tutorial.experiments.tuned import Tuned, config_of_run
from mpo_tutorial.models.activations import Moments, input_moments
from mpo_tutorial.models.layers import mpo_layers

SHORT = {"step": 6, "steps": 6, "between": 1, "ratio": 0.7, "refresh": 2}


@pytest.fixture
def prepared(tiny_light_run):
    """The tiny model after its light fine-tuning."""
    return Tuned.of_run(tiny_light_run).prepared


def matrices(model) -> dict:
    return {name: layer.mpo.to_matrix() for name, layer in model.named_modules() if hasattr(layer, "cores")}


def relative(a, b) -> float:
    return float(np.linalg.norm(a.numpy() - b.numpy()) / np.linalg.norm(b.numpy()))


def test_a_greedy_squeeze_takes_the_least_of_all_and_ends_at_the_budget(prepared):
    """Each pick, and its estimate, against dense SVDs in NumPy of the matrices just before; nothing is tuned between."""
    plan = Plan(error="relative", fitted=False, per_parameter=False, **{**SHORT, "steps": 0, "refresh": 1})
    squeeze = Squeeze(prepared, plan)
    before, picked = matrices(prepared.model), 0
    bonds = squeeze.bonds
    for step in squeeze:
        for cut in step.cuts:
            picked += 1
            shape = squeeze.layers[cut.matrix].mpo.shape
            central = (shape.central - 1, shape.central)
            estimates = {}
            for name, matrix in before.items():
                own = squeeze.layers[name].mpo.shape
                after = [
                    max(1, b - plan.step) if k in (own.central - 1, own.central) else b
                    for k, b in enumerate(bonds[name])
                ]
                if tuple(after) != bonds[name]:
                    estimates[name] = dense_bound(matrix, own, after)
            last = step.parameters <= squeeze.budget
            if not last:
                assert cut.matrix == min(estimates, key=estimates.__getitem__)
                assert cut.estimate == pytest.approx(estimates[cut.matrix], rel=1e-4)
                assert [b - a for b, a in zip(cut.before, cut.after, strict=True) if b != a]
            now = matrices(prepared.model)
            assert cut.error == pytest.approx(relative(now[cut.matrix], before[cut.matrix]), rel=1e-4)
            assert cut.error <= cut.estimate * (1 + 1e-6)
            assert all(torch.equal(now[name], before[name]) for name in now if name != cut.matrix)
            assert all(cut.before[k] == cut.after[k] for k in range(len(cut.before)) if k not in central)
            before, bonds = now, squeeze.bonds
    assert picked > 2
    assert squeeze.stopped == MET
    assert squeeze.parameters <= squeeze.budget == math.floor(0.7 * squeeze.dense)
    smallest = min(layer.mpo.shape.pairs[0] for layer in squeeze.layers.values())
    assert squeeze.parameters > squeeze.budget - 12 * 12 * 4 or smallest  # the last cut is no longer than is needed


def dense_bound(matrix, shape, bonds) -> float:
    """Relative; bonds here force none of their neighbours."""
    legs = matrix.numpy().reshape(*shape.in_legs, *shape.out_legs)
    n, total = shape.n_cores, 0.0
    for k, bond in enumerate(bonds, start=1):
        axes = [*range(k), *range(n, n + k), *range(k, n), *range(n + k, 2 * n)]
        rows = math.prod(shape.in_legs[:k]) * math.prod(shape.out_legs[:k])
        values = np.linalg.svd(legs.transpose(axes).reshape(rows, -1), compute_uv=False)
        total += (values[bond:] ** 2).sum()
    return math.sqrt(total) / np.linalg.norm(legs)


def test_the_last_cut_sinks_no_more_than_is_needed(prepared):
    squeeze = Squeeze(prepared, Plan(**SHORT), look=False)
    *_, last = squeeze
    cut = last.cuts[0]
    shape = squeeze.layers[cut.matrix].mpo.shape
    one_less = [
        b + 1 if k in (shape.central - 1, shape.central) and b < cut.before[k] else b for k, b in enumerate(cut.after)
    ]
    assert last.parameters <= squeeze.budget
    assert last.parameters - shape.n_params(cut.after) + shape.n_params(shape.usable(one_less)) > squeeze.budget


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"error": "absolute", "fitted": False},
        {"per_parameter": False, "memory": "fresh"},
        {"sweeps": 1},
        {"schedule": "cubic", "cuts": 3},
        {"schedule": "once"},
        {"schedule": "once", "allot": "weights", "fitted": False},
        {"schedule": "once", "allot": "alike", "error": "relative"},
        {"schedule": "once", "allot": "two factors", "cores": "all"},
        {"schedule": "none"},
        {"cores": "all"},
        {"gauge": "tt-svd"},
    ],
)
def test_every_plan_ends_with_its_parameters_after_its_steps(prepared, options):
    plan = Plan(**{**SHORT, **options})
    before = {name: p.detach().clone() for name, p in prepared.model.named_parameters()}
    squeeze = Squeeze(prepared, plan)
    steps = list(squeeze)
    assert squeeze.stopped == MET
    assert squeeze.kept == steps[-1].number == len(steps) - 1
    assert steps[-1].done == squeeze.tuning.done == plan.steps
    assert steps[0].cuts == ()
    assert all(step.loss_after > 0 and 0.4 < step.validation["accuracy"] <= 1 for step in steps)
    assert [step.parameters for step in steps] == sorted((step.parameters for step in steps), reverse=True)
    if plan.schedule == "none":
        assert squeeze.parameters == steps[0].parameters
    else:
        least = 0.6 if plan.allot == "two factors" else 0.8  # a rank is a large step where matrices are small
        assert least * squeeze.budget < squeeze.parameters <= squeeze.budget
    if plan.schedule == "cubic":
        shares = [step.parameters / squeeze.dense for step in steps]
        assert len(steps) == 4
        assert shares[0] - shares[1] > shares[1] - shares[2] >= shares[2] - shares[3]
    central = [layer.central for layer in mpo_layers(prepared.model)]
    assert all(core.requires_grad == (plan.cores == "all") for core in central)
    if plan.gauge == "tt-svd":  # all cores but the last were isometries when they were cut
        cut = steps[1].cuts[0].matrix
        assert squeeze.layers[cut].cores[-1].norm() > 2 * squeeze.layers[cut].central.norm() / math.sqrt(
            squeeze.layers[cut].central.shape[0]
        )
    frozen = [name for name, p in prepared.model.named_parameters() if not p.requires_grad and ".cores." not in name]
    assert all(torch.equal(before[name], prepared.model.get_parameter(name)) for name in frozen if "bias" not in name)


def test_a_fitted_cut_errs_less_on_the_outputs_than_a_plain_one(tiny_light_run):
    """The whole first greedy cut, in the measure of the outputs that its layer's inputs give, computed in NumPy."""
    errors = {}
    for fitted in (False, True):
        prepared = Tuned.of_run(tiny_light_run).prepared
        squeeze = Squeeze(prepared, Plan(**{**SHORT, "fitted": fitted}), look=False)
        before = matrices(prepared.model)
        found = input_moments(
            prepared.model, prepared.tokenizer, squeeze.inputs.sentences, max_length=squeeze.inputs.max_length
        )
        steps = iter(squeeze)
        next(steps)
        squeeze._cuts = squeeze._cut()
        (cut,) = squeeze._cuts
        lost = before[cut.matrix] - squeeze.layers[cut.matrix].mpo.to_matrix()
        metric = found[cut.matrix].metric(centred=fitted).numpy()
        whole = before[cut.matrix].numpy()
        share = np.trace(lost.numpy().T @ metric @ lost.numpy()) / np.trace(whole.T @ metric @ whole)
        assert cut.error == pytest.approx(math.sqrt(share), rel=1e-3)
        errors[fitted] = cut.error
    assert errors[True] < errors[False]


def test_more_than_delta_goes_back_to_the_step_before(prepared):
    """A rate that ruins the model: the first step that is worse is told of, the model is that before it."""
    squeeze = Squeeze(prepared, Plan(**{**SHORT, "steps": 20, "between": 4, "rate": 0.5, "delta": 0.05}))
    kept = {}
    for step in squeeze:
        if step.loss_after - squeeze.steps[0].loss_after <= 0.05:
            kept = {name: tensor.clone() for name, tensor in squeeze.tensors().items()}
    assert squeeze.stopped == WORSE
    assert squeeze.kept == squeeze.steps[-1].number - 1
    now = squeeze.tensors()
    assert now.keys() == kept.keys()
    assert all(torch.equal(now[name], kept[name]) for name in now)
    assert squeeze.parameters == squeeze.steps[squeeze.kept].parameters


def test_a_delta_that_the_first_step_breaks_gives_the_model_back_as_it_came(prepared):
    before = {name: p.detach().clone() for name, p in prepared.model.named_parameters()}
    squeeze = Squeeze(
        prepared,
        Plan(
            **{**SHORT, "schedule": "once", "ratio": 0.2, "steps": 3, "rate": 0.9, "delta": 0.0, "delta_on": "accuracy"}
        ),
    )
    steps = list(squeeze)
    assert len(steps) == 2
    assert (squeeze.stopped, squeeze.kept) == (WORSE, 0)
    after = dict(prepared.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_what_is_not_finite_stops_it_and_the_good_model_is_kept(prepared):
    squeeze = Squeeze(prepared, Plan(**{**SHORT, "steps": 20, "between": 4}))
    steps = iter(squeeze)
    next(steps), next(steps)
    good = {name: tensor.clone() for name, tensor in squeeze.tensors().items()}
    with torch.no_grad():
        next(p for name, p in prepared.model.named_parameters() if name.endswith("classifier.bias"))[0] = torch.nan
    rest = list(steps)
    assert squeeze.stopped == NOT_FINITE
    assert squeeze.kept == 1
    assert [step.number for step in rest] == [2]
    assert all(torch.equal(tensor, good[name]) for name, tensor in squeeze.tensors().items())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cores": "all", "fitted": False, "error": "absolute"},
        {"schedule": "once", "allot": "two factors", "cores": "all"},
    ],
)
@pytest.mark.parametrize("event", [1, 3, 6])
def test_another_process_goes_on_from_a_state_as_if_nothing_had_happened(tiny_light_run, options, event):
    plan = Plan(**{**SHORT, "steps": 8, "between": 2, **options})
    straight = Squeeze(Tuned.of_run(tiny_light_run).prepared, plan)
    steps = list(straight)
    first = Squeeze(Tuned.of_run(tiny_light_run).prepared, plan)
    for number, _ in enumerate(first.events()):
        if number == event:
            break
    state = first.state()
    torch.rand(11)
    second = Squeeze(Tuned.of_run(tiny_light_run).prepared, plan)
    second.load_state(state)
    list(second)
    assert second.steps == steps
    assert (second.stopped, second.kept) == (straight.stopped, straight.kept)
    for name, tensor in straight.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.01}, r"^cutting central bonds alone, the ratio cannot be below 0\.\d+ for this model, got 0\.01$"),
        ({"ratio": 0.01, "schedule": "once"}, r"^the ratio cannot be below 0\.\d+ for bert\."),
        ({"delta": 0.1, "look": False}, r"^delta is what the validation sentences may lose, got 0\.1 and look False$"),
    ],
)
def test_plans_that_cannot_be_met_are_refused(prepared, options, message):
    look = options.pop("look", True)
    with pytest.raises(ValueError, match=message):
        Squeeze(prepared, Plan(**{**SHORT, **options}), look=look)


def test_moments_of_another_model_are_refused(prepared):
    with pytest.raises(
        ValueError, match=r"^the moments must be of this model: they have bert\.elsewhere with 5 inputs"
    ):
        Squeeze(prepared, Plan(), moments={"bert.elsewhere": Moments(torch.zeros(5), torch.eye(5))})


def test_only_light_runs_of_three_cores_or_more_are_squeezed(tiny_light_run):
    config = config_of_run(tiny_light_run)
    for options, message in (
        ({"method": "full"}, r"^squeezing is for light fine-tuning with three or more cores, got full, 5 cores$"),
        ({"cores": 2}, r"got light, 2 cores$"),
        ({"gauge": "amb"}, r"^in the gauge amb there is nothing decomposed to be cut; take centred or tt-svd$"),
    ):
        with pytest.raises(ValueError, match=message):
            Squeeze(prepare(replace(config, **options)), Plan(**SHORT))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "slow"}, "schedule is one of greedy, cubic, once, none, got 'slow'"),
        ({"error": "l1"}, "error is one of absolute, relative, outputs, got 'l1'"),
        ({"step": 0}, "step is an integer of at least 1, got 0"),
        ({"refresh": True}, "refresh is an integer of at least 1, got True"),
        ({"ratio": math.nan}, "a ratio is a finite number above 0, got nan"),
        ({"delta": -1.0}, r"delta is a finite number from 0 up, or left out, got -1\.0"),
        ({"rate": 2.0}, r"rate lies between 0 and 1, got 2\.0"),
        ({"allot": "two factors"}, "two factors have no central core .*, got the schedule greedy and auxiliary cores"),
        ({"schedule": "cubic", "cuts": 30, "between": 10}, "30 cuts with 10 steps after each need 300, got 200 in all"),
    ],
)
def test_a_plan_checks_itself(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Plan(**options)


def test_the_rows_of_table_3():
    plans = {name: plan_of(name) for name in TABLE_3}
    assert plans["mpop"] == Plan(error="absolute", per_parameter=False, fitted=False)
    assert (plans["mpop"].cores, plans["mpop"].tuned) == ("auxiliary", True)
    assert (plans["mpop_full"].schedule, plans["mpop_full"].cores) == ("none", "all")
    assert (plans["mpop_full_lfa"].schedule, plans["mpop_full_lfa"].cores) == ("none", "auxiliary")
    assert (plans["mpop_dir"].schedule, plans["mpop_dir"].fitted, plans["mpop_dir"].tuned) == ("once", False, False)
    assert plan_of("mpop", ratio=0.25).ratio == 0.25
    with pytest.raises(ValueError, match=r"^variants are mpop, mpop_full, mpop_full_lfa, mpop_dir, got 'mpo'$"):
        plan_of("mpo")


def test_turns_of_the_cubic_schedule_that_ask_for_less_than_one_bond_pass(prepared):
    """The last of many differ by less than any bond dimension has numbers."""
    plan = Plan(**{**SHORT, "steps": 40, "between": 1, "schedule": "cubic", "cuts": 40, "fitted": False})
    squeeze = Squeeze(prepared, plan, look=False)
    steps = list(islice(squeeze, 60))
    assert squeeze.stopped == MET
    assert len(steps) == 41
    assert [bool(step.cuts) for step in steps].count(False) > 1
    assert 0.8 * squeeze.budget < squeeze.parameters <= squeeze.budget


@pytest.mark.parametrize("schedule", ["greedy", "cubic", "once"])
def test_left_to_itself_tuning_keeps_pace_with_what_is_saved_and_half_of_it_follows_the_last_cut(prepared, schedule):
    plan = Plan(**{**SHORT, "steps": 41, "between": None, "schedule": schedule, "cuts": 3, "fitted": False})
    squeeze = Squeeze(prepared, plan, look=False)
    start, *steps, last = squeeze
    saved = start.parameters - squeeze.budget
    for step in steps:
        assert step.done == min(20, math.floor(41 / 2 * (start.parameters - step.parameters) / saved))
    assert (len(steps) > 1) == (schedule != "once")
    assert last.done == 41
    assert squeeze.stopped == MET

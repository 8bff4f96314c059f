import math

import pandas as pd
import pytest

from mpo_tutorial.experiments import training
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare, run


def test_the_rate_rises_over_a_fifth_of_the_steps_and_then_falls_to_nothing(
    tiny_model, tiny_rows, tmp_path, monkeypatch
):
    """The rates that the optimiser used, read off a Trainer that takes notes."""
    used = []

    class Noting(training._Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            scheduler = super().create_scheduler(num_training_steps, optimizer)
            inner = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate's has one inside
            inner.register_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
            return scheduler

    monkeypatch.setattr(training, "_Trainer", Noting)
    pd.DataFrame(tiny_rows, columns=["text", "label"]).to_csv(tmp_path / "films.csv", index=False)
    config = RunConfig(
        model=tiny_model,
        task=str(tmp_path / "films.csv"),
        train_size=80,
        epochs=2,
        batch_size=8,
        micro_batch_size=4,
        learning_rate=1e-3,
        device="cpu",
    )
    run(prepare(config), tmp_path / "run", progress=False, splits=("validation",))
    steps, rising = 2 * 80 // 8, math.ceil(0.2 * 2 * 80 / 8)
    expected = [k / rising if k < rising else (steps - k) / (steps - rising) for k in range(steps)]
    assert used == pytest.approx([1e-3 * share for share in expected])

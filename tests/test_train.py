"""Batches, phases, divergence."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import RECIPE, Pictures, tiny, trainer

from tlbench.policies import Phase
from tlbench.train import Diverged, batches, evaluate, plan_epochs


@given(st.integers(2, 200), st.integers(1, 64), st.integers(0, 5))
def test_every_image_is_in_exactly_one_batch(samples, batch_size, epoch):
    parts = batches(samples, batch_size, 0, epoch)
    assert torch.cat(parts).sort().values.tolist() == list(range(samples))
    assert max(map(len, parts)) <= batch_size + 1
    if batch_size > 1:
        assert min(map(len, parts)) > 1  # BatchNorm cannot train on one value a channel


def test_order_depends_on_seed_and_epoch_alone():
    assert torch.equal(torch.cat(batches(50, 8, 0, 1)), torch.cat(batches(50, 16, 0, 1)))
    assert not torch.equal(torch.cat(batches(50, 8, 0, 1)), torch.cat(batches(50, 8, 0, 2)))
    assert not torch.equal(torch.cat(batches(50, 8, 0, 1)), torch.cat(batches(50, 8, 1, 1)))


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=6), st.integers(1, 30))
def test_every_phase_gets_its_share_and_at_least_one_epoch(shares, epochs):
    phases = [Phase(name=str(i), scales={}, share=share) for i, share in enumerate(shares)]
    if epochs < len(phases):
        with pytest.raises(ValueError, match="need at least"):
            plan_epochs(phases, epochs)
        return
    plan = plan_epochs(phases, epochs)
    assert len(plan) == epochs
    names = [phase.name for phase in plan]
    assert names == sorted(names)
    assert set(names) == {p.name for p in phases}


def test_the_loss_is_the_mean_over_images_not_batches():
    model = tiny()
    run = trainer(model, "linear_probe", recipe=replace(RECIPE, lr=0.0))
    run.start_epoch()
    loss, samples = run.run_epoch()
    assert samples == 20
    assert loss == pytest.approx(evaluate(model, Pictures(), 20, 7).loss, rel=1e-5)


def test_a_loss_that_is_not_finite_ends_training_with_the_step():
    class Broken(Pictures):
        def normalise(self, images):
            return super().normalise(images) * (float("nan") if (images == self.images[3]).all() else 1)

    run = trainer(tiny(), "full", source=Broken())
    run.start_epoch()
    run.order = [torch.tensor([0, 1]), torch.tensor([3, 3]), torch.tensor([4, 5])]
    with pytest.raises(Diverged, match="nan at step 2 of 3"):
        run.run_epoch()


def test_evaluation_counts_the_last_smaller_batch():
    model, source = tiny(), Pictures()
    result = evaluate(model, source, 20, 8)
    model.eval()
    logits = model(source.normalise(source.images))
    assert result.predictions.tolist() == logits.argmax(1).tolist()
    assert result.accuracy == pytest.approx((logits.argmax(1) == source.labels).float().mean().item())

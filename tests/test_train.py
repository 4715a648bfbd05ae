"""Batches, phases, divergence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import source, tiny

from tlbench import freeze
from tlbench.policies import Phase, parse_policy
from tlbench.train import Diverged, batches, epochs_of, evaluate, make_optimizer, train_epoch


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
            list(epochs_of(phases, epochs))
        return
    plan = list(epochs_of(phases, epochs))
    assert [epoch for epoch, _ in plan] == list(range(epochs))
    names = [phase.name for _, phase in plan]
    assert names == sorted(names)
    assert set(names) == {p.name for p in phases}


def test_the_loss_is_the_mean_over_images_not_batches():
    model = tiny()
    phase = parse_policy("linear_probe").phases(freeze.describe(model))[0]
    freeze.apply(model, phase)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.0)
    loss, samples = train_epoch(model, phase, optimizer, source(), batches(20, 8, 0, 0))
    assert samples == 20
    assert loss == pytest.approx(evaluate(model, source(), 20, 7).loss, rel=1e-5)


def test_a_loss_that_is_not_finite_ends_training_with_the_step():
    model = tiny()
    phase = parse_policy("full").phases(freeze.describe(model))[0]
    freeze.apply(model, phase)

    def broken(positions):
        images, labels = source()(positions)
        return (images * float("nan") if 3 in positions else images), labels

    order = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])]
    with pytest.raises(Diverged, match="nan at step 2 of 3"):
        train_epoch(model, phase, make_optimizer(model, phase), broken, order)


def test_evaluation_counts_the_last_smaller_batch():
    model = tiny()
    result = evaluate(model, source(), 20, 8)
    model.eval()
    images, labels = source()(torch.arange(20))
    assert result.predictions.tolist() == model(images).argmax(1).tolist()
    assert result.accuracy == pytest.approx((model(images).argmax(1) == labels).float().mean().item())

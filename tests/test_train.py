"""Batches, phases, rates, recipes, augmentation, seeds, divergence."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from bits import finished as results
from hypothesis import given, settings
from hypothesis import strategies as st
from models import RECIPE, Pictures, phases_of, tiny, trained, trainer
from randomise import no_initialisation
from torch import nn
from torch.nn import functional

from tlbench.backbones import load_backbone
from tlbench.errors import NotApplicable
from tlbench.grid.cell import Cell
from tlbench.grid.choices import AUGMENTATIONS, OPTIMIZERS
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.measure.build import assemble
from tlbench.measure.cell import run_cell
from tlbench.policies import freezing
from tlbench.policies.base import HEAD, Phase
from tlbench.policies.parse import parse_policy
from tlbench.records.record import Record
from tlbench.train.augment import augment
from tlbench.train.evaluate import evaluate
from tlbench.train.flops import count_flops
from tlbench.train.loop import Diverged, batches, plan_epochs
from tlbench.train.optimizer import make_optimizer
from tlbench.train.recipe import resolve


@settings(deadline=None)  # the machine may be busy
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


@settings(deadline=None)  # the machine may be busy
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
    assert loss == pytest.approx(evaluate(model, Pictures(), 7).loss, rel=1e-5)


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
    result = evaluate(model, source, 8)
    model.eval()
    logits = model(source.normalise(source.images))
    assert result.predictions.tolist() == logits.argmax(1).tolist()
    assert result.accuracy == pytest.approx((logits.argmax(1) == source.labels).float().mean().item())


def test_the_batches_of_an_evaluation_do_not_show_in_its_result():
    model, source = tiny(), Pictures()
    one, *others = (evaluate(model, source, size) for size in (20, 1, 7, 64))
    for other in others:
        assert other.loss == pytest.approx(one.loss, rel=1e-7)
        assert other.predictions.tolist() == one.predictions.tolist()


# --- realised learning rates ----------------------------------------------------------------------------------

STEPS = 3
"""An epoch: 20 images in batches of 8."""


def realised(text: str, epochs: int, **recipe) -> list[dict[str, float]]:
    """Of each step of a real training run, as the optimizer had it: parameter name -> learning rate."""
    torch.manual_seed(0)
    model = tiny()
    names = {id(p): name for name, p in model.named_parameters()}
    rates = []

    def log(optimizer, *_):
        rates.append({names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]})

    run = trainer(model, text, epochs, recipe=replace(RECIPE, **recipe))
    watched = None
    for _ in range(epochs):
        run.start_epoch()
        if run.optimizer is not watched:
            watched = run.optimizer
            watched.register_step_pre_hook(log)
        run.run_epoch()
    return rates


ORDER = ["stem", "stage1", "stage2", HEAD]
NAMES = [name for name, _ in tiny().named_parameters()]


def place(name: str) -> int:
    return ORDER.index(name.partition(".")[0])


def base(name: str) -> float:
    return RECIPE.lr if name.startswith("head.") else RECIPE.backbone_lr


def cosine(t: float) -> float:
    return (1 + math.cos(math.pi * t)) / 2


def rise(step: int, steps: int, share: float) -> float:
    """A linear warm-up that reaches 1 at its last step."""
    return min((step + 1) / math.ceil(share * steps), 1.0)


def check(rates: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(rates) == len(expected)
    for step, (real, wanted) in enumerate(zip(rates, expected, strict=True)):
        assert real == pytest.approx(wanted, rel=1e-12), f"step {step}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.75, 0.5])
def test_rates_of_layer_decay(decay, optimizer):
    epochs, steps = 2, 2 * STEPS
    expected = [
        {n: base(n) * (1 if n.startswith("head.") else decay ** (3 - place(n))) * cosine(k / steps) for n in NAMES}
        for k in range(steps)
    ]
    expected = [{n: lr * rise(k, steps, 0.25) for n, lr in step.items()} for k, step in enumerate(expected)]
    check(realised(f"layer_decay({decay})", epochs, optimizer=optimizer, warmup=0.25), expected)


def test_layer_decay_and_auto_rgn_have_one_rate_for_backbone_and_head():
    for text in ("layer_decay", "auto_rgn"):
        recipe = resolve(parse_policy(text), "adamw", None, None, {})
        assert recipe.backbone_lr == recipe.lr == OPTIMIZERS["adamw"]["lr"]
        assert resolve(parse_policy(text), "adamw", 0.1, 0.02, {}).backbone_lr == 0.02


@pytest.mark.parametrize("t0", [0.8, 0.5])
def test_rates_of_freeze_out(t0):
    epochs, steps = 10, 10 * STEPS
    expected = []
    for k in range(steps):
        t, epoch_start = k / steps, (k // STEPS) / epochs
        ends = {n: (t0 + (1 - t0) * place(n) / 3) ** 3 for n in NAMES}
        expected.append(
            {
                # A stage leaves the optimizer with the first epoch that begins after its end.
                n: (base(n) / (2 * end) * (1 + math.cos(math.pi * t / end)) if t < end else 0.0)
                for n, end in ends.items()
                if epoch_start < end
            }
        )
    assert len(expected[-1]) < len(expected[0])
    check(realised(f"freeze_out({t0})", epochs, warmup=0.0), expected)


def test_rates_of_gradual():
    """Three phases of an epoch and one of the five that are left; each rises and falls by itself."""
    expected = [
        {n: base(n) * cosine(k / steps) * rise(k, steps, 0.1) for n in NAMES if place(n) >= 3 - phase}
        for phase, steps in enumerate([STEPS, STEPS, STEPS, 5 * STEPS])
        for k in range(steps)
    ]
    check(realised("gradual", 8, warmup=0.1), expected)


def test_rates_of_lp_ft():
    epochs, first, second = 5, 2 * STEPS, 3 * STEPS
    head = [{n: base(n) * cosine(k / first) for n in NAMES if n.startswith("head.")} for k in range(first)]
    # The second phase has a schedule of its own; its rates are all at most a tenth of the head's first one.
    whole = [{n: RECIPE.lr * 0.1 * cosine(k / second) for n in NAMES} for k in range(second)]
    check(realised("lp_ft(0.4)", epochs, warmup=0.0), head + whole)


def test_rates_of_a_constant_schedule():
    check(realised("full", 2, schedule="constant", warmup=0.0), [{n: base(n) for n in NAMES}] * 2 * STEPS)


def still(model: nn.Sequential) -> nn.Sequential:
    """Without dropout."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def relative_norms(model: nn.Sequential, run, names: list[str]) -> dict[str, float]:
    """Mean over the batches of ||gradient|| / ||weight||, by a loop of its own."""
    sums = dict.fromkeys(names, 0.0)
    for positions in run.order[:5]:
        model.zero_grad()
        images, labels = run.source.raw(positions)
        functional.cross_entropy(model(run.source.normalise(images)), labels).backward()
        for n, p in model.named_parameters():
            if n in sums:
                sums[n] += float(p.grad.norm() / p.detach().norm())
    return sums


def test_auto_rgn_is_the_loop_of_its_source():
    """A loop of its own: the head among the tensors, BatchNorm left alone and still, rates and Adam anew each epoch."""
    torch.manual_seed(0)
    model = still(tiny())
    reference = copy.deepcopy(model).eval()
    recipe = replace(RECIPE, optimizer="adamw", lr=0.01, backbone_lr=0.01, schedule="constant", warmup=0.0)
    run = trainer(model, "auto_rgn", 3, recipe=recipe)
    names = [n for n in NAMES if ".bn." not in n]
    for _ in range(3):
        run.start_epoch()
        norms = relative_norms(reference, run, names)
        rates = {n: 0.01 * v / max(norms.values()) for n, v in norms.items()}
        of = dict(reference.named_parameters())
        groups = [
            {"params": [of[n]], "lr": rate, "weight_decay": RECIPE.weight_decay * n.endswith("weight")}
            for n, rate in rates.items()
        ]
        optimizer = torch.optim.AdamW(groups)
        for positions in run.order:
            images, labels = run.source.raw(positions)
            optimizer.zero_grad()
            functional.cross_entropy(reference(run.source.normalise(images)), labels).backward()
            optimizer.step()
        run.run_epoch()
        realised = {name: group["lr"] for group in run.optimizer.param_groups for name in group["names"]}
        assert realised == pytest.approx(rates, rel=1e-4)
        for name, parameter in model.state_dict().items():
            torch.testing.assert_close(parameter, reference.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert realised["head.0.weight"] != 0.01 or realised["head.0.bias"] != 0.01, "the head's rates are relative, too"


def test_a_tensor_of_zeros_has_the_full_rate_in_auto_rgn_and_looking_changes_nothing():
    model = still(tiny())
    with torch.no_grad():
        model.stage1.conv.bias.zero_()  # no norm to be relative to
    run = trainer(model, "auto_rgn+bn=adapt", 1, recipe=replace(RECIPE, schedule="constant", warmup=0.0))
    run.start_epoch()
    run.set_modes()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    run._set_rates_by_gradient(run.order)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    rates = {name: group["base_lr"] for group in run.optimizer.param_groups for name in group["names"]}
    assert rates["stage1.conv.bias"] == RECIPE.backbone_lr
    assert not any(".bn." in name for name in rates)


# --- what goes on from phase to phase -------------------------------------------------------------------------


def test_momentum_goes_on_in_a_schedule_and_starts_again_where_a_phase_is_fresh():
    for text, epochs, goes_on in (("freeze_out", 3, True), ("lp_ft", 2, False), ("gradual", 4, False)):
        model = tiny()
        run = trainer(model, text, epochs)
        before, phase = None, run.plan[0]
        while run.plan[run.epoch + 1] is phase:
            run.start_epoch()
            run.run_epoch()
        before = run.optimizer.state[model.head[0].weight]["exp_avg"].clone()
        run.start_epoch()
        state = run.optimizer.state.get(model.head[0].weight, {})
        assert (bool(state) and torch.equal(state["exp_avg"], before)) == goes_on


# --- L2-SP ----------------------------------------------------------------------------------------------------


def test_l2_sp_is_the_gradient_of_its_penalty_and_decays_the_head_alone():
    torch.manual_seed(0)
    model = still(tiny())
    reference = copy.deepcopy(model)
    initial = {n: p.detach().clone() for n, p in reference.named_parameters()}
    alpha, decay, lr = 0.5, 0.1, 0.02
    recipe = replace(
        RECIPE, optimizer="sgd", lr=lr, backbone_lr=lr, weight_decay=decay, schedule="constant", warmup=0.0
    )
    run = trained(model, f"l2_sp({alpha})", 2, recipe=recipe)

    optimizer = torch.optim.SGD(reference.parameters(), lr, momentum=0.9)
    reference.train()
    for epoch in range(2):
        for positions in batches(20, 8, 0, epoch):
            images, labels = run.source.raw(positions)
            loss = functional.cross_entropy(reference(run.source.normalise(images)), labels)
            trunk = [(n, p) for n, p in reference.named_parameters() if not n.startswith("head.")]
            penalty = alpha / 2 * sum((p - initial[n]).square().sum() for n, p in trunk)
            optimizer.zero_grad()
            (loss + penalty + decay / 2 * reference.head[0].weight.square().sum()).backward()
            optimizer.step()
    for (name, parameter), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, msg=name, rtol=1e-4, atol=1e-5)
    assert not torch.equal(model.stem.conv.weight, initial["stem.conv.weight"])


# --- the recipe -----------------------------------------------------------------------------------------------


def recipe(text: str = "full", optimizer: str = "auto", lr=None, backbone_lr=None, **rest):
    return resolve(parse_policy(text), optimizer, lr, backbone_lr, rest)


def test_defaults_are_the_policys_then_the_optimizers():
    assert recipe("last_1").optimizer == "adamw"
    assert recipe("l2_sp").optimizer == "sgd"
    assert recipe("l2_sp", "adamw").optimizer == "adamw"
    assert recipe("last_1", "sgd").lr == OPTIMIZERS["sgd"]["lr"]
    assert recipe("last_1").backbone_lr == pytest.approx(recipe("last_1").lr / 10)
    assert recipe("last_1").weight_decay == OPTIMIZERS["adamw"]["weight_decay"]
    assert recipe("bias").weight_decay == 0
    assert recipe("bias", weight_decay=0.3).weight_decay == 0.3
    assert recipe("freeze_out").warmup == 0
    assert recipe("freeze_out", warmup=0.2).warmup == 0.2
    assert recipe("scratch").lr == recipe("scratch").backbone_lr < recipe("full").lr
    assert parse_policy("scratch").policy.weights == "random"


def test_a_backbone_rate_is_given_once():
    assert recipe("full(1)").backbone_lr == recipe("full(1)").lr
    assert recipe("full(scale=0.5)", lr=0.2).backbone_lr == pytest.approx(0.1)
    assert recipe("full", lr=0.2, backbone_lr=0.03).backbone_lr == 0.03
    with pytest.raises(NotApplicable, match="leave --backbone-lr out"):
        recipe("full(1)", backbone_lr=0.03)


def test_freeze_out_has_no_other_schedule():
    assert recipe("freeze_out", schedule="cosine").schedule == "cosine"
    with pytest.raises(NotApplicable, match="freeze_out is defined for the schedule cosine only, not constant"):
        recipe("freeze_out", schedule="constant")


def first_groups(**changes):
    model = tiny()
    phase = phases_of(model, "full")[0]
    freezing.apply(model, phase)
    optimizer = make_optimizer(model, phase, replace(RECIPE, **changes))
    return optimizer, {name: group for group in optimizer.param_groups for name in group["names"]}


def test_optimizer_rates_and_decay_reach_the_optimizer():
    optimizer, _ = first_groups(optimizer="sgd")
    assert isinstance(optimizer, torch.optim.SGD)
    assert all(group["momentum"] == 0.9 for group in optimizer.param_groups)
    assert isinstance(first_groups(optimizer="adamw")[0], torch.optim.AdamW)
    _, groups = first_groups(lr=0.7, backbone_lr=0.2, weight_decay=0.05)
    assert groups["head.0.weight"]["lr"] == groups["head.0.bias"]["lr"] == 0.7
    assert groups["stem.conv.weight"]["lr"] == groups["stage2.bn.bias"]["lr"] == 0.2
    decays = {name for name, group in groups.items() if group["weight_decay"] == 0.05}
    assert decays == {"head.0.weight", "stem.conv.weight", "stage1.conv.weight", "stage2.conv.weight"}
    assert {group["weight_decay"] for group in groups.values()} == {0.0, 0.05}


class Odd(nn.Module):
    """What has several dimensions and is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.layer_scale = nn.Parameter(torch.ones(4, 1, 1))
        self.attention = nn.MultiheadAttention(4, 2)


def test_tokens_and_layer_scales_do_not_decay():
    model = nn.Sequential()
    model.stem, model.head = Odd(), nn.Linear(4, 3)
    phase = phases_of(model, "full")[0]
    freezing.apply(model, phase)
    groups = make_optimizer(model, phase, RECIPE).param_groups
    decays = {name for group in groups if group["weight_decay"] for name in group["names"]}
    assert decays == {"stem.attention.in_proj_weight", "stem.attention.out_proj.weight", "head.weight"}


def test_label_smoothing_reaches_the_loss():
    for smoothing in (0.0, 0.3):
        model = tiny()
        run = trainer(model, "linear_probe", batch_size=20, recipe=replace(RECIPE, label_smoothing=smoothing, lr=0.0))
        run.start_epoch()
        loss, _ = run.run_epoch()
        logits = model.eval()(run.source.normalise(run.source.images))
        expected = functional.cross_entropy(logits, run.source.labels, label_smoothing=smoothing)
        assert loss == pytest.approx(expected.item(), rel=1e-5)


# --- augmentation ---------------------------------------------------------------------------------------------

PHOTOS = Pictures(samples=40, size=32).images


def test_flip_turns_about_half_of_the_images_round():
    flipped = augment(PHOTOS, "flip", 0)
    turned = [torch.equal(new, old.flip(-1)) for new, old in zip(flipped, PHOTOS, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(flipped, PHOTOS, strict=True)]
    assert all(a != b for a, b in zip(turned, kept, strict=True))
    assert 10 <= sum(turned) <= 30


def test_randaugment_does_something_else_to_each_image():
    same = torch.stack([PHOTOS[0]] * 40)
    changed = augment(same, "randaugment", 0)
    assert len({image.numpy().tobytes() for image in changed}) > 20


@pytest.mark.parametrize("kind", [kind for kind in AUGMENTATIONS if kind != "none"])
def test_augmentation_depends_on_the_seed_alone(kind):
    torch.manual_seed(1)
    first = augment(PHOTOS, kind, 5)
    after = torch.rand(3)
    torch.manual_seed(2)
    assert torch.equal(augment(PHOTOS, kind, 5), first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after), "torch's own random state must stay as it was"
    assert not torch.equal(augment(PHOTOS, kind, 6), first)
    assert (first.shape, first.dtype) == (PHOTOS.shape, torch.uint8)


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(["flip", "randaugment"]), st.integers(0, 2**63 - 1), st.integers(1, 5), st.integers(8, 40))
def test_augmentation_keeps_shape_and_type(kind, seed, count, size):
    images = torch.full((count, 3, size, size), 77, dtype=torch.uint8)
    found = augment(images, kind, seed)
    assert (found.shape, found.dtype) == (images.shape, torch.uint8)


def test_no_augmentation_leaves_the_images_alone():
    run = trainer(tiny(), "full")
    run.start_epoch()
    activations, _ = run.batch(0, torch.arange(4))
    assert torch.equal(activations, run.source.normalise(run.source.images[:4]))


# --- seeds ----------------------------------------------------------------------------------------------------


class Watched(Pictures):
    """Remembers what the model was shown."""

    def __init__(self) -> None:
        super().__init__(size=16)
        self.shown = []

    def normalise(self, images):
        self.shown.append(images.clone())
        return super().normalise(images)


def shown(text: str, seed: int, noise: int, width: int = 4, **recipe) -> list[torch.Tensor]:
    torch.manual_seed(noise)  # the state that another cell left
    source = Watched()
    trained(tiny(width=width), text, 4, source=source, seed=seed, recipe=replace(RECIPE, **recipe))
    return source.shown


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_two_cells_of_one_seed_see_the_same_batches(kind):
    first = shown("linear_probe", 0, noise=1, augment=kind)
    for text, width, optimizer in (("full", 4, "adamw"), ("gradual", 6, "sgd"), ("lp_ft", 4, "adamw")):
        again = shown(text, 0, noise=2, width=width, augment=kind, optimizer=optimizer)
        assert len(first) == len(again)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = shown("linear_probe", 1, noise=1, augment=kind)
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_what_ran_before_changes_nothing():
    results = []
    for noise in (1, 2):
        torch.manual_seed(0)
        model = tiny()
        torch.manual_seed(noise)
        trained(model, "full", 2)  # with dropout
        results.append(freezing.fingerprint(model, model.state_dict()))
    assert results[0] == results[1]
    torch.manual_seed(0)
    model = tiny()
    trained(model, "full", 2, seed=1)
    assert freezing.fingerprint(model, model.state_dict()) != results[0]


# --- FLOPs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_flops_of_a_grouped_convolution_are_three_times_the_forward_ones(groups):
    convolution = nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
    images = torch.rand(2, 8, 6, 6, requires_grad=True)
    forward = 2 * (2 * 6 * 6) * convolution.weight.numel()
    assert count_flops(lambda: convolution(images)) == forward
    assert count_flops(lambda: convolution(images).sum().backward()) == 3 * forward
    assert count_flops(lambda: convolution(images.detach()).sum().backward()) == 2 * forward


# --- whole cells ----------------------------------------------------------------------------------------------


def measured(**axes) -> dict[str, Record]:
    """The cells of a grid, by freeze policy, head and augmentation."""
    cell = Cell(backbone="squeezenet1_1", weights="random", image_size=32, train_size=20, epochs=2, batch_size=8)
    given = {name: (getattr(cell, name),) for name in Grid().axes}
    found = {}
    for one in Grid(axes={**given, "layout": ("contiguous",), **axes}).expand():
        found[one.freeze, one.head, one.augment] = run_cell(one, Settings())
    return found


@pytest.mark.exhaustive
def test_adding_values_to_the_axes_changes_no_other_cell():
    alone = measured(freeze=("last_1",), augment=("flip",))
    among = measured(freeze=("full", "last_1"), head=("mlp", "linear"), augment=("none", "flip"))
    assert len(among) == 8
    (key,) = alone
    assert results(among[key]) == results(alone[key])
    assert len({tuple(r.loss for r in record.rounds) for record in among.values()}) == 8, (
        "every axis makes a difference"
    )


def test_a_new_head_depends_on_seed_backbone_and_head_alone():
    def head(noise: int, seed: int = 0, name: str = "linear", backbone: str = "squeezenet1_1") -> torch.Tensor:
        with no_initialisation():
            loaded = load_backbone(backbone, "random")
        torch.manual_seed(noise)
        return assemble(loaded, name, 5, seed).head[-1].weight

    assert torch.equal(head(1), head(2))
    assert not torch.equal(head(1), head(1, seed=1))
    assert not torch.equal(head(1), head(1, name="dropout_linear"))
    assert not torch.equal(head(1), head(1, backbone="resnet18"))

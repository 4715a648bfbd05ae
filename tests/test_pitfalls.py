"""The fifteen ways in which freezing goes wrong without a word. Each check passes on ours, and fails on the wrong
implementation that is planted beside it: a check that cannot fail would show nothing.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from bits import check_stages
from models import RECIPE, Pictures, phases_of, tiny, trainer
from PIL import Image
from randomise import no_initialisation, randomise
from tiers import sweep
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models as torchvision_models

from tlbench import data as data_module
from tlbench.backbones import original
from tlbench.backbones import torchvision as torchvision_backbones
from tlbench.backbones.base import InputSpec, join, stages_of
from tlbench.data.store import RESAMPLING, fit
from tlbench.errors import NotApplicable
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure import cell as cell_module
from tlbench.measure import images as images_module
from tlbench.measure import outcome, rates, training
from tlbench.policies import freezing
from tlbench.policies.base import Phase
from tlbench.policies.parse import parse_policy
from tlbench.records.record import Record
from tlbench.train.optimizer import make_optimizer, rate_factor
from tlbench.train.recipe import Recipe

IMAGES = Pictures().normalise(Pictures().images)


@dataclass(frozen=True, kw_only=True)
class Pitfall:
    """A row of the table at the end: a check, our implementation, and wrong ones by name."""

    check: Callable[[Any], None]
    ours: Any
    wrong: Mapping[str, Any]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- 1: BatchNorm drifts in a frozen trunk --------------------------------------------------------------------


def check_trunk_holds_still(train: Callable[[nn.Sequential], None]) -> None:
    """``train`` takes two steps on the head alone."""
    torch.manual_seed(0)
    model = tiny()
    names = [name for name in model.state_dict() if not name.startswith("head.")]
    before = freezing.fingerprint(model, names)
    train(model)
    assert freezing.fingerprint(model, names) == before


def two_steps(model: nn.Sequential) -> None:
    run = trainer(model, "linear_probe", batch_size=10)
    run.start_epoch()
    run.run_epoch()
    assert run.done == 2


def two_steps_of_the_tutorial_loop(model: nn.Sequential) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head."))
    model.train()  # wrong: requires_grad=False alone
    optimizer = torch.optim.SGD(model.head.parameters(), 0.1)
    for positions in torch.arange(20).split(10):
        functional.cross_entropy(model(IMAGES[positions]), Pictures().labels[positions]).backward()
        optimizer.step()


# --- 2: BatchNorm "frozen" by track_running_stats=False -------------------------------------------------------


def check_images_do_not_see_each_other(freeze_trunk: Callable[[nn.Sequential], None]) -> None:
    """The frozen trunk gives an image the same output in a batch of 8 and of 4, in train and in eval mode."""
    torch.manual_seed(0)
    model = tiny()
    outputs = []
    for mode in (True, False):
        for batch in (8, 4):
            model.train(mode)
            freeze_trunk(model)
            with torch.no_grad():
                outputs.append(model[:-1](IMAGES[:batch])[:4])
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0])


def freeze_trunk(model: nn.Sequential) -> None:
    freezing.apply(model, phases_of(model, "linear_probe")[0])


def freeze_by_dropping_the_statistics(model: nn.Sequential) -> None:
    freeze_trunk(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None


# --- 3: an optimizer whose groups are compared by value -------------------------------------------------------


def check_optimizer_holds_what_trains(make: Callable[[nn.Sequential, Phase], torch.optim.Optimizer]) -> None:
    """By identity, each once, with equal tensors among them."""
    model = tiny()
    with torch.no_grad():
        model.stage2.conv.weight.copy_(model.stage1.conv.weight)
        model.stage2.bn.weight.copy_(model.stage1.bn.weight)
    phase = phases_of(model, "full")[0]
    freezing.apply(model, phase)
    held_and_trains(make(model, phase), model)


def held_and_trains(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters() if p.requires_grad}


def ours_optimizer(model: nn.Sequential, phase: Phase) -> torch.optim.Optimizer:
    return make_optimizer(model, phase, RECIPE)


def optimizer_that_compares_values(model: nn.Sequential, phase: Phase) -> torch.optim.Optimizer:
    head = list(model.head.parameters())
    found: list[Tensor] = []
    for parameter in model.parameters():
        if not any(p.shape == parameter.shape and torch.equal(p, parameter) for p in [*head, *found]):
            found.append(parameter)
    return torch.optim.SGD([{"params": found}, {"params": head}], 0.1)


def optimizer_of_everything(model: nn.Sequential, phase: Phase) -> torch.optim.Optimizer:
    model.stem.conv.weight.requires_grad_(False)
    return torch.optim.SGD(model.parameters(), 0.1)


# --- 4: momentum, decay and stale gradients after freezing in mid-run -----------------------------------------

SGD_MOMENTUM = replace(RECIPE, optimizer="sgd", lr=0.1, backbone_lr=0.1, weight_decay=0.0)
SGD_DECAY = replace(SGD_MOMENTUM, weight_decay=0.1)
ADAMW = replace(RECIPE, lr=0.1, backbone_lr=0.1, weight_decay=0.1)


def check_frozen_in_mid_run(train: Callable[[nn.Sequential, list[Phase], Callable[[], None]], None]) -> None:
    """``train`` trains everything for an epoch, calls back, and goes on with the last stage alone."""
    torch.manual_seed(0)
    model = tiny()
    phases = [phases_of(model, "full")[0], phases_of(model, "last_1")[0]]
    frozen = [n for n, p in model.named_parameters() if n not in phases[1].scales]
    seen: list[str] = []
    train(model, phases, lambda: seen.append(freezing.fingerprint(model, frozen)))
    assert seen == [freezing.fingerprint(model, frozen)]


def freeze_in_mid_run(recipe: Recipe):
    def train(model: nn.Sequential, phases: list[Phase], between: Callable[[], None]) -> None:
        run = trainer(model, phases, recipe=recipe)
        run.start_epoch()
        run.run_epoch()
        between()
        run.start_epoch()
        run.run_epoch()

    return train


def freeze_with_zeroed_gradients(recipe: Recipe):
    def train(model: nn.Sequential, phases: list[Phase], between: Callable[[], None]) -> None:
        freezing.apply(model, phases[0])
        optimizer = make_optimizer(model, phases[0], recipe)
        for number, positions in enumerate(torch.arange(16).split(4)):
            if number == 2:
                between()
                for name, parameter in model.named_parameters():
                    parameter.requires_grad_(name in phases[1].scales)  # wrong: that alone, in the same optimizer
            optimizer.zero_grad(set_to_none=False)
            functional.cross_entropy(model(IMAGES[positions]), Pictures().labels[positions]).backward()
            optimizer.step()

    return train


# --- 5: walks over leaf modules miss what hangs on containers --------------------------------------------------


def small_vit() -> nn.Module:
    return torchvision_models.VisionTransformer(16, 8, num_layers=4, num_heads=2, hidden_dim=8, mlp_dim=16)


def small_swin() -> nn.Module:
    return torchvision_models.SwinTransformer([4, 4], 8, [1, 1, 1, 1], [1, 1, 2, 2], [2, 2])


def small_convnext() -> nn.Module:
    setting = torchvision_models.convnext.CNBlockConfig
    return torchvision_models.ConvNeXt([setting(4, 8, 1), setting(8, 8, 1), setting(8, 8, 1), setting(8, None, 1)])


def staged(model: nn.Module) -> nn.Sequential:
    """The backbone's stages with a new head."""
    parts = torchvision_backbones.FAMILIES[type(model)](model)
    return nn.Sequential(OrderedDict([*stages_of(parts).named_children(), ("head", nn.Linear(parts.features, 3))]))


def check_every_parameter_is_described(describe: Callable[[nn.Sequential], list[str]]) -> None:
    for build in (small_vit, small_swin, small_convnext):
        model = staged(build())
        assert sorted(describe(model)) == sorted(name for name, _ in model.named_parameters())


def names_of_all(model: nn.Sequential) -> list[str]:
    return [p.name for p in freezing.describe(model).params]


def names_in_leaf_modules(model: nn.Sequential) -> list[str]:
    leaves = [(prefix, m) for prefix, m in model.named_modules() if not list(m.children())]
    return [f"{prefix}.{name}" for prefix, m in leaves for name, _ in m.named_parameters()]


# --- 6: freezing by swapping modules leaves the optimizer with dead objects -----------------------------------


def check_optimizer_after_every_phase(start: Callable[[nn.Sequential], Callable[[], torch.optim.Optimizer]]) -> None:
    """``start`` gives a function that moves on to the next phase and returns its optimizer."""
    model = tiny()
    advance = start(model)
    for _ in range(4):
        held_and_trains(advance(), model)


def by_phases(model: nn.Sequential) -> Callable[[], torch.optim.Optimizer]:
    run = trainer(model, "gradual", epochs=4)

    def advance() -> torch.optim.Optimizer:
        run.start_epoch()
        run.run_epoch()
        assert run.optimizer is not None
        return run.optimizer

    return advance


def by_swapping(model: nn.Sequential) -> Callable[[], torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    left = [name for name, _ in model.named_children()]

    def advance() -> torch.optim.Optimizer:
        name = left.pop(0)
        frozen = copy.deepcopy(model.get_submodule(name))
        setattr(model, name, frozen.requires_grad_(False))  # wrong: the optimizer still holds the old ones
        return optimizer

    return advance


# --- 7: dropout or stochastic depth in the frozen trunk -------------------------------------------------------


def check_trunk_is_deterministic(prepare: Callable[[nn.Sequential], None]) -> None:
    model = tiny()
    prepare(model)
    with torch.no_grad():
        assert torch.equal(model[:-1](IMAGES), model[:-1](IMAGES))


def leave_in_train_mode(model: nn.Sequential) -> None:
    freeze_trunk(model)
    model.train()


class CarelessDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.5)  # wrong: not told about self.training


def functional_dropout(model: nn.Sequential) -> None:
    model.stage1.add_module("careless", CarelessDropout())
    freeze_trunk(model)


# --- 8: in-place operations overwrite cached activations ------------------------------------------------------

SMALL = {
    "densenet": lambda: torchvision_models.DenseNet(4, (1, 1, 1, 1), 8),
    "resnet": lambda: torchvision_models.ResNet(torchvision_models.resnet.BasicBlock, [1, 1, 1, 1]),
    "mobilenet_v3": lambda: torchvision_models.mobilenet_v3_small(),
    "squeezenet": lambda: torchvision_models.squeezenet1_1(),
    "shufflenet": lambda: torchvision_models.shufflenet_v2_x0_5(),
    "efficientnet": lambda: torchvision_models.efficientnet_b0(),
}


def check_cache_survives(stage: Callable[[nn.Module], nn.Sequential]) -> None:
    """At every boundary of every model, the suffix in train mode leaves its input as it was."""
    for name, build in SMALL.items():
        with no_initialisation():
            model = stage(randomise(build()))
        x = torch.rand(2, 3, 64, 64)
        model.eval()
        for boundary in range(1, len(model)):
            with torch.no_grad():
                x = model[boundary - 1](x)
            kept = x.clone()
            suffix = model[boundary:]
            suffix.train()
            for module in suffix.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()  # one value a channel is too few to normalise with
            suffix(x).sum().backward()
            suffix.eval()
            assert torch.equal(x, kept), f"{name}: cut {boundary}"


def in_place(model: nn.Module) -> nn.Sequential:
    """Stages as the modules are: the first operation of some works in place."""
    flags = {name: module.inplace for name, module in model.named_modules() if hasattr(module, "inplace")}
    stages = staged(model)
    for name, flag in flags.items():
        model.get_submodule(name).inplace = flag
    for module in stages.neck.modules() if hasattr(stages, "neck") else ():
        if getattr(module, "function", None) is torch.relu:
            module.function = torch.relu_  # as torchvision's DenseNet has it
    return stages


# --- 9: parameter groups added late, and schedulers ------------------------------------------------------------

Rates = list[dict[str, float]]
"""Of each step: parameter name -> learning rate."""


def definition_of_gradual(model: nn.Sequential, recipe: Recipe, epochs: int, steps: int) -> Rates:
    """The head from the first epoch, one more stage in each that follows; a cosine of its own in each epoch."""
    order = ["head", "stage2", "stage1", "stem"]
    rates = []
    for step in range(epochs * steps):
        factor = 0.5 * (1 + np.cos(np.pi * (step % steps) / steps))
        live = order[: step // steps + 1]
        rates.append(
            {
                name: float(factor * (recipe.lr if name.startswith("head.") else recipe.backbone_lr))
                for name, _ in model.named_parameters()
                if name.partition(".")[0] in live
            }
        )
    return rates


def check_realised_rates(train: Callable[[nn.Sequential, Recipe, int], Rates]) -> None:
    torch.manual_seed(0)
    model = tiny()
    recipe = replace(RECIPE, warmup=0.0)
    realised = train(model, recipe, 4)
    expected = definition_of_gradual(model, recipe, epochs=4, steps=3)
    assert len(realised) == len(expected)
    for step, (real, wanted) in enumerate(zip(realised, expected, strict=True)):
        assert real == pytest.approx(wanted), f"step {step}"


def rates_of(optimizer: torch.optim.Optimizer, model: nn.Sequential) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def gradual(model: nn.Sequential, recipe: Recipe, epochs: int) -> Rates:
    run = trainer(model, "gradual", epochs=epochs, recipe=recipe)
    rates: Rates = []
    for _ in range(epochs):
        run.start_epoch()
        run.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(rates_of(optimizer, model)))
        run.run_epoch()
    return rates


def gradual_by_late_groups(model: nn.Sequential, recipe: Recipe, epochs: int) -> Rates:
    steps = 3
    optimizer = torch.optim.SGD([{"params": list(model.head.parameters()), "lr": recipe.lr}])
    bases = [group["lr"] for group in optimizer.param_groups]  # what a scheduler notes when it is made
    rates: Rates = []
    for epoch in range(epochs):
        if epoch:
            stage = model.get_submodule(["stage2", "stage1", "stem"][epoch - 1])
            # wrong: the schedule does not know of it, and leaves its rate as it is
            optimizer.add_param_group({"params": list(stage.parameters()), "lr": recipe.backbone_lr})
        for step in range(epoch * steps, (epoch + 1) * steps):
            for group, base in zip(optimizer.param_groups, bases, strict=False):
                group["lr"] = base * rate_factor(recipe, step % steps, steps)
            rates.append(rates_of(optimizer, model))
    return rates


def gradual_by_one_schedule(model: nn.Sequential, recipe: Recipe, epochs: int) -> Rates:
    rates: Rates = []
    run = trainer(model, "gradual", epochs=epochs, recipe=recipe)
    run.plan = [replace(phase, fresh=False) for phase in run.plan]  # wrong: the cosine goes on
    for _ in range(epochs):
        run.start_epoch()
        run.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(rates_of(optimizer, model)))
        run.run_epoch()
    return rates


# --- 10: auxiliary heads --------------------------------------------------------------------------------------


def check_one_output_and_one_configuration(build: Callable[[], nn.Module]) -> None:
    """The model with random weights gives one tensor, and is configured as the pretrained one."""
    with no_initialisation(), pytest.MonkeyPatch.context() as patch:
        model = build()
        state = torchvision_models.GoogLeNet(init_weights=False).state_dict()
        patch.setattr(torchvision_models.GoogLeNet_Weights, "get_state_dict", lambda *_, **__: state)
        pretrained = torchvision_models.googlenet(weights="DEFAULT")
    logits = randomise(model).train()(torch.rand(2, 3, 64, 64))
    assert isinstance(logits, Tensor)
    assert logits.shape == (2, 1000)
    assert model.state_dict().keys() == pretrained.state_dict().keys()
    assert model.transform_input == pretrained.transform_input


def our_googlenet() -> nn.Module:
    return original("googlenet")[0]


def googlenet_with_torchvisions_defaults() -> nn.Module:
    return torchvision_models.googlenet(weights=None, init_weights=False)


def googlenet_without_its_input_transform() -> nn.Module:
    return torchvision_models.googlenet(weights=None, init_weights=False, aux_logits=False)


# --- 11: the head replaced in the wrong order -----------------------------------------------------------------


def check_head_trains(build: Callable[[], tuple[nn.Sequential, torch.optim.Optimizer]]) -> None:
    torch.manual_seed(0)
    model, optimizer = build()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    functional.cross_entropy(model(IMAGES), Pictures().labels).backward()
    for parameter in model.head.parameters():
        assert id(parameter) in held
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def head_first() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model = tiny()
    phase = phases_of(model, "linear_probe")[0]
    freezing.apply(model, phase)
    return model, make_optimizer(model, phase, RECIPE)


def head_after_the_optimizer() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model, optimizer = head_first()
    model.head = nn.Sequential(nn.Linear(4, 3))
    return model, optimizer


def head_frozen_with_the_rest() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model, optimizer = head_first()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.stem.conv.weight.requires_grad_(True)
    return model, optimizer


# --- 12: a zero head makes tests of equivalence pass on nothing -----------------------------------------------


def check_stages_equal_the_model(stage: Callable[[nn.Module], nn.Sequential]) -> None:
    """A ViT, whose head starts at zero, against its stages; all weights are random first."""
    equal_outputs(randomise(small_vit()), stage)


def equal_outputs(model: nn.Module, stage: Callable[[nn.Module], nn.Sequential]) -> None:
    model.eval()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images)
    check_stages(stage(model), images, expected)


def our_stages(model: nn.Module) -> nn.Sequential:
    return join(torchvision_backbones.FAMILIES[type(model)](model))


def stages_without_a_block(model: nn.Module) -> nn.Sequential:
    stages = our_stages(model)
    return nn.Sequential(*(child for name, child in stages.named_children() if name != "stage2"))


def test_a_zero_head_hides_a_missing_block():
    equal_outputs(small_vit(), stages_without_a_block)  # passes: that is the pitfall


# --- 13: shared parameters ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Counting:
    """How an implementation counts parameters, and what it selects for a policy."""

    count: Callable[[nn.Sequential], int]
    select: Callable[[nn.Sequential, str], set[str]]


def check_shared_parameters(counting: Counting) -> None:
    model = tiny()
    model.stage2.conv.weight = model.stage1.conv.weight
    assert counting.count(model) == sum({id(p): p.numel() for p in model.parameters()}.values())
    for text in ("full", "linear_probe", "norm", "last_2"):  # both places get the same
        counting.select(model, text)
    for text in ("last_1", "stage_2", "layer_decay", "freeze_out", "gradual"):
        try:
            counting.select(model, text)
        except NotApplicable as error:
            assert "stage1.conv.weight is one tensor that stage2 uses, too" in str(error)
        else:
            raise AssertionError(f"{text} treats the two places of one tensor differently")


def count_by_identity(model: nn.Sequential) -> int:
    return sum(p.numel for p in freezing.describe(model).params)


def select(model: nn.Sequential, text: str) -> set[str]:
    return set().union(*(phase.scales for phase in phases_of(model, text)))


def count_by_module(model: nn.Sequential) -> int:
    return sum(p.numel() for m in model.modules() for p in m.parameters(recurse=False))


def select_by_first_place(model: nn.Sequential, text: str) -> set[str]:
    described = replace(freezing.describe(model), aliases=())
    return set().union(*(phase.scales for phase in parse_policy(text).phases(described, 10)))


# --- 14: choosing on the test split ---------------------------------------------------------------------------

CELL = Cell(
    backbone="squeezenet1_1", weights="random", image_size=32, train_size=40, epochs=1, batch_size=20, lr="auto"
)


def check_nothing_is_chosen_on_the_test_split(run_cell: Callable[[Cell], Record]) -> None:
    """With other labels on the test images, everything but the accuracy on them stays the same."""
    records = []
    for shift in (0, 1, 4):
        with pytest.MonkeyPatch.context() as patch:

            def load(*args: Any, real: Any = data_module.load_data, shift: int = shift, **options: Any) -> Any:
                data = real(*args, **options)
                given = np.arange(len(data.test)) % 5 < shift  # to so many of five images the same one
                return replace(data, test=replace(data.test, classes=np.where(given, shift, data.test.classes)))

            patch.setattr(images_module, "load_data", load)
            records.append(run_cell(CELL))
    for record in records:
        assert record.status == "ok", record.reason
        assert record.lr_trials
        assert record.recipe == records[0].recipe
        assert record.accuracy_val == records[0].accuracy_val
        assert [r.loss for r in record.rounds] == [r.loss for r in records[0].rounds]
        assert record.predictions_sha256 == records[0].predictions_sha256
    assert len({record.accuracy_test for record in records}) > 1, "the labels made no difference at all"


def run_ours(cell: Cell) -> Record:
    return cell_module.run_cell(cell, Settings())


def run_that_chooses_on_the_test_split(cell: Cell) -> Record:
    with pytest.MonkeyPatch.context() as patch:
        evaluate = outcome.evaluate_split
        for module in (training, rates):
            patch.setattr(module, "evaluate_split", lambda built, split, *rest: evaluate(built, "test", *rest))
        return cell_module.run_cell(cell, Settings())


# --- 15: normalisation and size of the weights' own transforms ------------------------------------------------

OTHERS = ["efficientnet_v2_l", "vit_b_16", "swin_v2_t", "inception_v3", "efficientnet_b4", "resnet18"]
"""0.5 in place of ImageNet's mean; 224 px; bicubic, 256 px; 342 px resized; 380 px; the usual."""


def check_input_is_the_weights_own(spec_of: Callable[[str], InputSpec]) -> None:
    """Decoding, resizing, cutting and normalising gives what the weights' own ``transforms()`` gives."""
    noise = np.random.default_rng(0).integers(0, 256, (500, 620, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for name in OTHERS:
        spec = spec_of(name)
        expected = torchvision_models.get_model_weights(name).DEFAULT.transforms()(image)
        pixels = torch.from_numpy(fit(image, spec.resize, spec.size, RESAMPLING[spec.interpolation]).copy())
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
        assert pixels.shape == expected.shape, name
        torch.testing.assert_close((pixels.float() / 255 - mean) / std, expected, msg=name)


def our_input(name: str) -> InputSpec:
    return torchvision_backbones.input_spec(nn.Identity(), torchvision_models.get_model_weights(name).DEFAULT)


def imagenet_for_all(name: str) -> InputSpec:
    return replace(our_input(name), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def bilinear_for_all(name: str) -> InputSpec:
    return replace(our_input(name), interpolation="bilinear")


def one_size_for_all(name: str) -> InputSpec:
    return replace(our_input(name), size=224, resize=256)


# --- the table ------------------------------------------------------------------------------------------------

PITFALLS = {
    "1 BatchNorm drift": Pitfall(
        check=check_trunk_holds_still,
        ours=two_steps,
        wrong={"requires_grad alone": two_steps_of_the_tutorial_loop},
    ),
    "2 batch statistics": Pitfall(
        check=check_images_do_not_see_each_other,
        ours=freeze_trunk,
        wrong={"track_running_stats=False": freeze_by_dropping_the_statistics, "train mode": leave_in_train_mode},
    ),
    "3 optimizer groups": Pitfall(
        check=check_optimizer_holds_what_trains,
        ours=ours_optimizer,
        wrong={"compared by value": optimizer_that_compares_values, "frozen ones too": optimizer_of_everything},
    ),
    "4 frozen in mid-run, SGD with momentum": Pitfall(
        check=check_frozen_in_mid_run,
        ours=freeze_in_mid_run(SGD_MOMENTUM),
        wrong={"zeroed gradients": freeze_with_zeroed_gradients(SGD_MOMENTUM)},
    ),
    "4 frozen in mid-run, SGD with decay": Pitfall(
        check=check_frozen_in_mid_run,
        ours=freeze_in_mid_run(SGD_DECAY),
        wrong={"zeroed gradients": freeze_with_zeroed_gradients(SGD_DECAY)},
    ),
    "4 frozen in mid-run, AdamW": Pitfall(
        check=check_frozen_in_mid_run,
        ours=freeze_in_mid_run(ADAMW),
        wrong={"zeroed gradients": freeze_with_zeroed_gradients(ADAMW)},
    ),
    "5 parameters on containers": Pitfall(
        check=check_every_parameter_is_described, ours=names_of_all, wrong={"leaf modules": names_in_leaf_modules}
    ),
    "6 swapped modules": Pitfall(
        check=check_optimizer_after_every_phase, ours=by_phases, wrong={"swapping": by_swapping}
    ),
    "7 stochastic trunk": Pitfall(
        check=check_trunk_is_deterministic,
        ours=freeze_trunk,
        wrong={"train mode": leave_in_train_mode, "functional dropout": functional_dropout},
    ),
    "8 in-place operations": Pitfall(check=check_cache_survives, ours=staged, wrong={"as they are": in_place}),
    "9 late groups and schedulers": Pitfall(
        check=check_realised_rates,
        ours=gradual,
        wrong={"late groups": gradual_by_late_groups, "one schedule": gradual_by_one_schedule},
    ),
    "10 auxiliary heads": Pitfall(
        check=check_one_output_and_one_configuration,
        ours=our_googlenet,
        wrong={
            "torchvision's defaults": googlenet_with_torchvisions_defaults,
            "no input transform": googlenet_without_its_input_transform,
        },
    ),
    "11 order of the head": Pitfall(
        check=check_head_trains,
        ours=head_first,
        wrong={
            "after the optimizer": head_after_the_optimizer,
            "frozen with the rest": head_frozen_with_the_rest,
        },
    ),
    "12 zero head": Pitfall(
        check=check_stages_equal_the_model, ours=our_stages, wrong={"a block is missing": stages_without_a_block}
    ),
    "13 shared parameters": Pitfall(
        check=check_shared_parameters,
        ours=Counting(count=count_by_identity, select=select),
        wrong={
            "counted by module": Counting(count=count_by_module, select=select),
            "the first place decides": Counting(count=count_by_identity, select=select_by_first_place),
        },
    ),
    "14 test split": Pitfall(
        check=check_nothing_is_chosen_on_the_test_split,
        ours=run_ours,
        wrong={"chosen on the test split": run_that_chooses_on_the_test_split},
    ),
    "15 normalisation and size": Pitfall(
        check=check_input_is_the_weights_own,
        ours=our_input,
        wrong={"ImageNet's mean": imagenet_for_all, "bilinear": bilinear_for_all, "224 px": one_size_for_all},
    ),
}
PLANTED = [(name, wrong) for name, pitfall in PITFALLS.items() for wrong in pitfall.wrong]


def test_all_fifteen_are_here():
    assert {int(name.split()[0]) for name in PITFALLS} == set(range(1, 16))


@pytest.mark.parametrize("name", sweep(PITFALLS, {name for name in PITFALLS if name.startswith("1 ")}))
def test_ours_is_right(name):
    PITFALLS[name].check(PITFALLS[name].ours)


@pytest.mark.parametrize(("name", "wrong"), PLANTED, ids=[f"{name}: {wrong}" for name, wrong in PLANTED])
@pytest.mark.exhaustive
def test_the_planted_wrong_one_is_caught(name, wrong):
    with pytest.raises(AssertionError):
        PITFALLS[name].check(PITFALLS[name].wrong[wrong])


def test_a_batch_norm_without_statistics_is_no_frozen_prefix():
    model = tiny()
    model.stage1.bn = nn.BatchNorm2d(4, track_running_stats=False)
    freeze_trunk(model)
    assert [name for name, _ in model.named_children()][freezing.cut(model)] == "stage1"

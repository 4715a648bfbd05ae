"""Holds the suite's epoch and inference against bare loops of timm and torch, in one process, in turns: ResNet-50 at
224 px in bf16, channels_last, batches of 256. Then it looks where the rest goes: layouts by batch size, heads on stored
features with and without a CUDA graph, the frozen prefix by the size of its chunks.
"""

import copy
from contextlib import nullcontext
from dataclasses import replace

import timm
from common import CUDA, DEVICE, TINY, alternated, guarded, median, say, seconds, torch, warmed_up
from torch.nn import functional

from tlbench.backbones import load_backbone
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.arithmetic import Arithmetic
from tlbench.machine.layout import GAIN, Calibration, measure_layouts
from tlbench.machine.process import apply, set_up
from tlbench.measure.build import build
from tlbench.measure.frozen import cuts_of, fill_prefix
from tlbench.measure.inference import start_inference
from tlbench.measure.training import start_training
from tlbench.policies.parse import parse_policy
from tlbench.train.loop import batches

NAME, SIZE, BATCH, IMAGES, ROUNDS = ("resnet18", 32, 8, 32, 2) if TINY else ("resnet50", 224, 256, 1024, 5)
CELL = Cell(
    backbone=NAME,
    weights="random",
    freeze="full",
    image_size=SIZE,
    train_size=IMAGES,
    epochs=2,
    batch_size=BATCH,
    precision="bf16",
    layout="channels_last",
    device=DEVICE,
)
DEV = torch.device(DEVICE)
SETTINGS = Settings()


def suite(cell, rounds):
    """Returns the suite's own trainer, ready for so many epochs, and its built cell."""
    expression = parse_policy(cell.freeze)
    built = build(cell, SETTINGS, expression)
    phases = expression.phases(built.described, cell.epochs)
    fill_prefix(built, cuts_of(built, phases))
    return start_training(built, [phases[0]] * rounds, expression), built


def bare_model():
    model = timm.create_model(NAME, num_classes=10).to(DEV, memory_format=torch.channels_last)
    return model.train()


def bare_loop(data, wanted, precision):
    """Returns an epoch of AdamW (fused) with autocast and no .item() in the loop. ``data`` gives each step's images and
    labels; ``wanted`` says whether torch's deterministic algorithms are.
    """
    model = bare_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def epoch():
        apply(None, precision, wanted)
        total = []
        for images, labels in data():
            with torch.autocast(DEV.type, torch.bfloat16):
                loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total.append(loss.detach())
        return float(torch.stack(total).mean())

    return epoch


def train():
    with set_up(None, "bf16", True, "keep"):
        trainer, built = suite(CELL, 4 * ROUNDS + 8)
        split, feed = built.data.train, built.sources["train"]
        order = batches(len(split), BATCH, 0, 0)
        images = feed.normalise(split.images[split.index[order[0]]].to(DEV))
        labels = split.labels[order[0]].to(DEV)

        def on_device():
            for _ in order:
                yield images, labels

        def from_host():  # what the suite does where the images do not fit on the device, less the pinned memory
            for positions in order:
                chosen = split.images[split.index[positions]].to(DEV, non_blocking=True)
                yield feed.normalise(chosen), split.labels[positions].to(DEV)

        store, owners, index = split.images.to(DEV), split.labels.to(DEV), split.index.to(DEV)

        def from_device_store():  # what the suite does where they fit
            for positions in torch.cat(order).to(DEV).split(BATCH):
                yield feed.normalise(store.index_select(0, index[positions])), owners[positions]

        def suite_epoch(wanted):
            def epoch():
                apply(None, "bf16", wanted)
                trainer.run_epoch()

            return epoch

        calls = {
            "suite": suite_epoch(True),
            "suite, not deterministic": suite_epoch(False),
            "bare, images kept on the host, deterministic": bare_loop(from_host, True, "bf16"),
            "bare, images kept on the device, deterministic": bare_loop(from_device_store, True, "bf16"),
            "bare, one batch on the device, cudnn.benchmark": bare_loop(on_device, False, "tf32"),
        }
        trainer.start_epoch()
        for name, times in alternated(warmed_up("bare", calls), ROUNDS).items():
            say("bare", f"train, {name}", images_per_second=IMAGES / median(times) if times else None, rounds=times)
        if CUDA:
            say("bare", "peak memory", gigabytes=torch.cuda.max_memory_allocated() / 1e9)


def infer():
    with set_up(None, "bf16", True, "keep"), torch.inference_mode(False):
        built = build(replace(CELL, task="infer", freeze="none", epochs=1), SETTINGS)
        times = 2 if TINY else 8
        run_batches = start_inference(built)(BATCH, times)
        halved = build(replace(CELL, task="infer", freeze="none", epochs=1, precision="bf16_weights"), SETTINGS)
        run_halved = start_inference(halved)(BATCH, times)
        source = built.sources["train"]
        batch = source.normalise(source.raw(torch.arange(BATCH) % len(source))[0])
        cast, half = bare_model().eval(), bare_model().eval().bfloat16()
        small = batch.bfloat16()

        def loop(model, images, context, wanted):
            def call():
                apply(None, "bf16", wanted)
                with torch.inference_mode(), context():
                    for _ in range(times):
                        model(images)

            return call

        def suite_call():
            apply(None, "bf16", True)
            run_batches()

        def suite_halved():
            apply(None, "bf16_weights", True)
            run_halved()

        def auto():
            return torch.autocast(DEV.type, torch.bfloat16)

        calls = {
            "suite": suite_call,
            "suite, bf16 weights": suite_halved,
            "bare autocast, deterministic": loop(cast, batch, auto, True),
            "bare autocast, cudnn.benchmark": loop(cast, batch, auto, False),
            "bare bf16 weights, cudnn.benchmark": loop(half, small, nullcontext, False),
        }
        for name, spent in alternated(warmed_up("bare", calls), ROUNDS).items():
            rate = BATCH * times / median(spent) if spent else None
            say("bare", f"infer, {name}", images_per_second=rate, rounds=spent)


def layouts():
    """Says what `measure_layouts` tells with 8 images, as on a CPU, and with a batch as large as a GPU's."""
    stages = load_backbone(NAME, "random").stages
    for precision in ("bf16", "tf32" if CUDA else "fp32", "fp32"):
        for images in (8, 64, BATCH) if not TINY else (2, 4):
            with set_up(None, precision, True, "keep"):
                plain, last = measure_layouts(
                    lambda: copy.deepcopy(stages), Calibration(images=images, size=SIZE, training=True), DEV, precision
                )
            say(
                "bare",
                f"layouts {precision}, {images} images",
                contiguous_ms=1000 * plain,
                channels_last_ms=1000 * last,
                ratio=last / plain,
                chosen="channels_last" if last <= GAIN * plain else "contiguous",
            )


def bare_head(count, width):
    """A linear layer on stored features and a loop over them without waits: the epoch, and what captures it as a CUDA
    graph of one step, which gives the same epoch replayed.
    """
    x, y = torch.randn(count, width, device=DEV), torch.randint(0, 10, (count,), device=DEV)

    def make(capturable):
        head = torch.nn.Linear(width, 10).to(DEV)
        rate = torch.tensor(1e-3, device=DEV) if capturable else 1e-3
        return head, torch.optim.AdamW(head.parameters(), lr=rate, fused=True, capturable=capturable)

    def step(head, optimizer, places):
        loss = functional.cross_entropy(head(x.index_select(0, places)), y.index_select(0, places))
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        return loss.detach()

    head, optimizer = make(False)

    def plain():
        losses = [step(head, optimizer, places) for places in torch.randperm(count).to(DEV).split(32)]
        return torch.stack(losses).mean().item()

    def captured():
        head, optimizer = make(True)
        places = torch.zeros(32, dtype=torch.int64, device=DEV)
        aside = torch.cuda.Stream()  # a capture wants its warm-up on another stream than the default one
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step(head, optimizer, places)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = step(head, optimizer, places)
        losses = torch.zeros(count // 32, device=DEV)

        def replayed():
            for number, part in enumerate(torch.randperm(count).to(DEV).split(32)):
                places.copy_(part)
                graph.replay()
                losses[number] = kept
            return losses.mean().item()

        return replayed

    return plain, captured


def heads():
    """Times a linear probe on stored features: the suite's epoch, a loop without waits, a CUDA graph of one step."""
    with set_up(None, "fp32", True, "keep"):
        cell = Cell(
            backbone="resnet18",
            weights="random",
            image_size=32 if TINY else 64,
            train_size=96 if TINY else 600,
            epochs=2,
            batch_size=32,
            layout="contiguous",
            device=DEVICE,
        )
        trainer, built = suite(cell, 2 * ROUNDS + 4)
        count = len(built.data.train) // 32 * 32
        plain, captured = bare_head(count, built.model[-1][0].in_features)

        def suite_seconds():
            trainer.start_epoch()
            return seconds(trainer.run_epoch)

        suite_seconds()
        times = [suite_seconds() for _ in range(2 * ROUNDS)]
        say("bare", "head, the suite", step_us=1e6 * median(times) / len(trainer.order), steps=len(trainer.order))
        calls = {"bare, positions on the device": plain}
        if CUDA and (replayed := guarded("bare", "capture of a step", captured)):
            calls["bare, a CUDA graph of a step"] = replayed
        for name, times in alternated(warmed_up("bare", calls), 2 * ROUNDS).items():
            say("bare", f"head, {name}", step_us=1e6 * median(times) / (count // 32) if times else None)


def chunks():
    """Times the frozen prefix in chunks of so many images."""
    for precision in ("fp32", "bf16"):
        arithmetic = Arithmetic(device=DEV, precision=precision, channels_last=True)
        apply(None, precision, True)
        stages = load_backbone(NAME, "random").stages
        arithmetic.place(stages)
        stages.eval()
        for images in (8, 16) if TINY else (32, 64, 128, 256, 512):
            batch = arithmetic.arrange(torch.rand(images, 3, SIZE, SIZE, device=DEV))

            def call(batch=batch, stages=stages, arithmetic=arithmetic):
                with torch.inference_mode(), arithmetic.autocast():
                    stages(batch)

            call()
            rate = images / median([seconds(call) for _ in range(7)])
            say("bare", f"prefix {precision}, chunk of {images}", images_per_second=rate)


for name, part in {"train": train, "infer": infer, "layouts": layouts, "chunks": chunks, "heads": heads}.items():
    guarded("bare", name, part)

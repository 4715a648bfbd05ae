"""What was wrong on CUDA, or misleading, as far as a CPU can tell: by fakes of what a GPU answers."""

import socket
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from bits import results
from digits import few_digits
from hypothesis import given
from hypothesis import strategies as st
from records import record

from tlbench.analysis.compiling import paying
from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.backbones import network
from tlbench.campaign.isolate import _process_of, _shares
from tlbench.errors import NotApplicable
from tlbench.grid.axes import parse_axis
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.hashing import _groups, hash_tensors
from tlbench.machine import device as device_module
from tlbench.machine import layout, nvidia, process
from tlbench.machine.arithmetic import Arithmetic, check_precision
from tlbench.machine.kept import KEPT, Shelf
from tlbench.machine.noise import Watch, noisy
from tlbench.machine.process import fp32_precision, nondeterministic_operation, set_up
from tlbench.machine.sensors import gpu_reader
from tlbench.measure.build import Building
from tlbench.measure.cell import run_cell
from tlbench.report.remarks import remarks
from tlbench.train import compiling
from tlbench.train.chunks import chunk_of
from tlbench.train.loop import Trainer
from tlbench.train.room import leave_device, make_room_on
from tlbench.train.source import send

CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=2, batch_size=16,
    layout="contiguous",
)  # fmt: skip
SETTINGS = Settings(throughput_rounds=2, throughput_batches=1, latency_rounds=3)
CUDA = torch.device("cuda")


# --- determinism --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("put_ does not have a deterministic implementation, but you set 'torch.use_de…", "put_"),
        ("Flash Attention defaults to a non-deterministic algorithm. To explicitly enable …", "Flash Attention"),
        ("Memory Efficient attention defaults to a non-deterministic algorithm. To …", "Memory Efficient attention"),
        ("cuDNN Attention defaults to a non-deterministic algorithm. ", "cuDNN Attention"),
        ("out of memory", None),
    ],
)
def test_torchs_words_for_an_operation_that_gives_up_determinism(text, name):
    assert nondeterministic_operation(text) == name


def put(monkeypatch):
    """A step of training that takes an operation without a deterministic form."""
    step = Trainer.step

    def steps(self, *arguments, **words):
        torch.zeros(5).put_(torch.tensor([0, 1]), torch.ones(2))
        return step(self, *arguments, **words)

    monkeypatch.setattr(Trainer, "step", steps)


def test_an_operation_without_a_deterministic_form_runs_and_is_named(monkeypatch):
    with few_digits():
        plain = run_cell(CELL, SETTINGS)
        put(monkeypatch)
        named = run_cell(CELL, SETTINGS)
        again = run_cell(CELL, SETTINGS)
    assert (named.status, named.reason, named.nondeterministic) == ("ok", "", ("put_",))
    assert again.nondeterministic == ("put_",)  # it begins strict, each time
    assert named.predictions_sha256 == plain.predictions_sha256
    assert plain.nondeterministic == ()
    assert not torch.are_deterministic_algorithms_enabled()


def test_cells_begin_without_the_mode_that_lets_attention_choose():
    with set_up(None, "fp32", True, "keep") as found:
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not found.accept(RuntimeError("something else"))
        assert not found.accept(ValueError("x does not have a deterministic implementation"))
        assert found.accept(RuntimeError("x does not have a deterministic implementation"))
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not found.accept(RuntimeError("x does not have a deterministic implementation"))  # let run already
        warnings.warn("Flash Attention defaults to a non-deterministic algorithm.", stacklevel=1)
        assert found.nondeterministic == ("x", "Flash Attention")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("freeze", ["linear_probe", "last_1", "norm", "full"])
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small", "vit_b_16", "swin_t"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cell_on_cuda_repeats_to_the_last_bit_or_names_the_operation(backbone, freeze, precision):
    cell = replace(
        CELL, backbone=backbone, freeze=freeze, precision=precision, device="cuda", image_size=None, train_size=40
    )
    with few_digits():
        first, second = (run_cell(cell, SETTINGS) for _ in range(2))
    assert (first.status, first.reason) == ("ok", "")
    assert results(first) == results(second) or first.nondeterministic


# --- fp32 ---------------------------------------------------------------------------------------------------------


def old_style():
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True


def new_style():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def older_reader():
    torch.get_float32_matmul_precision()
    assert torch.backends.cudnn.allow_tf32 in (True, False)


@pytest.fixture
def fp32_as_it_was():
    before, older = fp32_precision(), process._older_switches()
    yield
    process._set_fp32(before, older)


@pytest.mark.usefixtures("fp32_as_it_was")
@pytest.mark.parametrize("inside", [old_style, new_style, older_reader])
@pytest.mark.parametrize("outside", [old_style, new_style, lambda: None])
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_a_plugin_may_use_either_style_of_torchs_switches(outside, inside, precision):
    outside()
    before = fp32_precision()
    with set_up(None, precision, True, "keep"):
        wanted = "tf32" if precision == "tf32" else "ieee"
        assert set(fp32_precision().values()) == {wanted}
        inside()
    assert fp32_precision() == before
    with set_up(None, precision, True, "keep"):
        older_reader()  # it agrees with the newer one


# --- a context that is broken -------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch):
    monkeypatch.setattr(device_module, "_broken", {})
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA error: 700\nx")))


@pytest.mark.usefixtures("broken")
def test_a_broken_context_is_told():
    assert device_module.check_context(torch.device("cpu")) == ""
    assert device_module.check_context(CUDA) == device_module.broken_context() == "CUDA error: 700"


def test_memory_can_be_given_back_although_the_context_is_broken(monkeypatch):
    def fail():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", fail)
    process.release_memory()


# --- processes ----------------------------------------------------------------------------------------------------


def test_cells_of_the_cpu_and_of_cuda_share_no_process_and_contexts_are_one_at_a_time():
    cpu, cuda, other = (Cell(backbone=b, device=d) for b, d in (("a", "cpu"), ("a", "cuda"), ("b", "cuda:1")))
    assert _process_of(cpu) != _process_of(cuda)
    assert _shares(cuda.device, other.device)
    assert not _shares(cpu.device, cuda.device)
    assert not _shares(cpu.device, cpu.device)


# --- torch.compile ------------------------------------------------------------------------------------------------


@pytest.fixture
def graphs(monkeypatch):
    """Counts the graphs that are compiled; nothing is made faster, which takes a C++ compiler and half a minute."""
    counted = []

    def backend(graph, inputs):
        counted.append(tuple(inputs[-1].shape))
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, mode, dynamic: real(module, backend=backend, dynamic=dynamic))
    return counted


def test_a_compiled_cell_has_graphs_of_its_own_and_its_seconds(graphs):
    cell = replace(CELL, freeze="last_1", compile="on", train_size=40)
    with few_digits():
        first, plain = run_cell(cell, SETTINGS), run_cell(replace(cell, compile="off"), SETTINGS)
        count = len(graphs)
        second = run_cell(cell, SETTINGS)
    assert (first.status, first.reason) == ("ok", "")
    assert count == 2  # two shapes: 16 images, and the 8 of the last batch
    assert len(graphs) == 2 * count  # not what the first cell left
    assert first.compile_seconds > 0
    assert second.compile_seconds > 0
    assert plain.compile_seconds is None
    assert first.predictions_sha256 == plain.predictions_sha256


@pytest.mark.usefixtures("graphs")
def test_beyond_the_limit_of_graphs_a_cell_fails_and_does_not_go_on_eagerly(monkeypatch):
    monkeypatch.setattr(compiling, "MOST_GRAPHS", 1)
    with few_digits():
        record = run_cell(replace(CELL, freeze="last_1", compile="on"), SETTINGS)
    assert record.status == "failed"
    assert "recompile" in record.reason.lower()


def test_modes_of_compiling_have_torchs_names():
    assert parse_axis("compile", "off,default,on,reduce-overhead,max-autotune") == (
        "off", "on", "on", "reduce-overhead", "max-autotune",
    )  # fmt: skip
    assert set(compiling.MODES.values()) <= set(torch._inductor.list_mode_options())


def test_a_head_that_is_fitted_is_not_compiled():
    with few_digits():
        record = run_cell(replace(CELL, head="nearest_mean", compile="on"), SETTINGS)
    assert record.status == "not_applicable"
    assert "nothing of that can be compiled" in record.reason


def summary_of(*records):
    return summarise(rows(records))


def test_from_when_on_compiling_pays():
    eager = record(seconds=(1.0,) * 3)
    fast = replace(eager, cell=replace(eager.cell, compile="on"), started="later", compile_seconds=3.0)
    fast = replace(fast, rounds=tuple(replace(one, seconds=0.6) for one in fast.rounds))
    slow = replace(fast, cell=replace(eager.cell, compile="max-autotune"), rounds=eager.rounds)
    found = {one.row["variant"]: one for one in paying(summary_of(eager, fast, slow))}
    assert found["compile=on"].saved == pytest.approx(0.4)
    assert found["compile=on"].start == 8  # 3.0 s / 0.4 s, rounded up
    assert found["compile=max-autotune"].start is None
    assert paying(summary_of(fast)) == []
    said = remarks(summary_of(eager, fast, slow))
    assert any("compiling takes 3.00 s, an epoch 0.400 s less: it pays from epoch 8 on" in text for text in said)
    assert any("never pays" in text for text in said)


@pytest.mark.parametrize(("locked", "said"), [(False, 1), (True, 0), (None, 0)])
def test_clocks_that_are_not_locked_are_told(locked, said):
    known = {"volatile": {"before": {}, "after": {"gpu_clocks_locked": locked}}}
    made = record(device="cuda")
    texts = remarks(summary_of(replace(made, environment={**made.environment, **known})))
    assert sum("are not locked" in text for text in texts) == said


# --- inference in bfloat16 ----------------------------------------------------------------------------------------


def test_weights_in_bfloat16_are_for_inference():
    cell = replace(CELL, task="infer", freeze="none", epochs=1, batch_size=2, precision="bf16_weights")
    arithmetic = Arithmetic(device=torch.device("cpu"), precision="bf16_weights")
    model = torch.nn.Linear(2, 2)
    arithmetic.place(model)
    assert model.weight.dtype == arithmetic.dtype == torch.bfloat16
    with few_digits():
        record = run_cell(cell, SETTINGS)
    assert (record.status, record.reason) == ("ok", "")
    with pytest.raises(NotApplicable, match="bf16_weights is for inference"):
        check_precision("bf16_weights", torch.device("cpu"), "train")


# --- the layout ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "device", "images"), [(4, "cpu", 4), (256, "cpu", 8), (4, "cuda", 4), (256, "cuda", 256)]
)
def test_a_gpus_layout_is_measured_at_the_cells_batch_size(batch, device, images):
    assert layout.calibration_images(batch, torch.device(device)) == images


# --- what is kept on the device -----------------------------------------------------------------------------------


@pytest.fixture
def gpu_memory(monkeypatch):
    """A GPU of 1,000 bytes, of which torch holds 100 that nobody uses."""
    KEPT.activations.forget()
    shelf = KEPT.activations
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (900 - shelf.bytes("cuda"), 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 100 + shelf.bytes("cuda"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: shelf.bytes("cuda"))
    yield
    KEPT.activations.forget()
    KEPT.device_images.forget()


@pytest.mark.usefixtures("gpu_memory")
def test_all_that_is_kept_on_a_gpu_has_one_budget_and_the_oldest_goes_first():
    shelf = KEPT.activations
    shelf.put("main memory", "x", 500)
    for name in ("a", "b"):
        assert make_room_on(CUDA, 100)
        shelf.put(name, name, 100, "cuda")
    assert make_room_on(CUDA, 100)  # 250 bytes in all: the oldest goes
    shelf.put("c", "c", 100, "cuda")
    assert [*shelf] == ["main memory", "b", "c"]
    assert not make_room_on(CUDA, 251)
    assert [*shelf] == ["main memory", "b", "c"]  # what can never fit takes no other's place
    KEPT.device_images.put("images", "x", 60, "cuda")
    assert make_room_on(CUDA, 100)
    assert "b" not in shelf
    shelf.put("of another card", "x", 100, "cuda:1")
    assert leave_device(CUDA)
    assert [*shelf] == ["main memory", "of another card"]
    assert not leave_device(CUDA)  # nothing more to gain
    assert not leave_device(torch.device("cpu"))
    assert make_room_on(CUDA, 125, taken=100)
    assert not make_room_on(CUDA, 180, taken=100)  # of the same pass: together they are more than a quarter


@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["memory", "cuda"])), max_size=12))
def test_a_shelf_counts_each_kind_of_memory_apart(things):
    shelf = Shelf()
    for number, (taken, where) in enumerate(things):
        shelf.put(number, number, taken, where)
    for where in ("memory", "cuda"):
        assert shelf.bytes(where) == sum(taken for taken, place in things if place == where)
    while shelf.drop_oldest("cuda"):
        pass
    assert shelf.bytes("cuda") == 0
    assert shelf.bytes() == sum(taken for taken, place in things if place == "memory")


def test_out_of_memory_on_a_gpu_is_tried_again_without_what_others_left(monkeypatch):
    tries, step = [], Trainer.step

    def steps(self, *arguments, **words):
        tries.append(1)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, *arguments, **words)

    monkeypatch.setattr(Trainer, "step", steps)
    monkeypatch.setattr("tlbench.measure.cell.leave_device", lambda device: True)
    with few_digits():
        assert run_cell(CELL, SETTINGS).status == "ok"
        tries.clear()
        monkeypatch.setattr("tlbench.measure.cell.leave_device", lambda device: False)
        assert run_cell(CELL, SETTINGS).status == "oom"


def test_what_does_not_fit_at_all_is_tried_twice_and_no_more(monkeypatch):
    """Each try puts something on the device again, so that there is always something to take away."""
    spared = []

    def fail(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def building(self, *arguments):
        spared.append(self.spares_the_device)
        return build(self, *arguments)

    build = Building.build
    monkeypatch.setattr(Building, "build", building)
    monkeypatch.setattr(Trainer, "step", fail)
    monkeypatch.setattr("tlbench.measure.cell.leave_device", lambda device: True)
    with few_digits():
        assert run_cell(CELL, SETTINGS).status == "oom"
    assert spared == [False, True]  # the images of the second one stay in main memory


def test_a_batch_too_large_for_the_layouts_measurement_is_halved(monkeypatch):
    asked = []

    def measure(build, step, device, precision):
        asked.append((step.images, torch.is_deterministic_algorithms_warn_only_enabled()))
        if step.images > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        warnings.warn("Flash Attention defaults to a non-deterministic algorithm.", stacklevel=1)
        return 1.0, 0.5

    monkeypatch.setattr("tlbench.measure.build.measure_layouts", measure)
    with few_digits():
        record = run_cell(replace(CELL, layout="auto", image_size=40), SETTINGS)
    assert asked == [(8, True), (4, True), (2, True)]
    assert (record.layout["chosen"], record.layout["images"]) == ("channels_last", 2)
    assert record.nondeterministic == ()  # what the measurement did is not what the cell did


def test_a_policy_of_many_cuts_can_be_compiled(graphs):
    with few_digits():
        record = run_cell(replace(CELL, freeze="gradual", epochs=12, train_size=24, compile="on"), SETTINGS)
    assert (record.status, record.reason) == ("ok", "")
    assert len(graphs) > 8


def test_positions_of_an_epoch_cross_over_at_once():
    batches = [torch.arange(4), torch.arange(3), torch.arange(1)]
    assert send(batches, torch.device("cpu")) is batches
    sent = send(batches, torch.device("meta"))
    assert [len(batch) for batch in sent] == [4, 3, 1]
    assert {batch.device.type for batch in sent} == {"meta"}
    assert [batch.storage_offset() for batch in sent] == [0, 4, 7]  # parts of one tensor


# --- what a GPU tells ---------------------------------------------------------------------------------------------


class Nvml:
    """As pynvml, of a card that is held back for a share of each tick of a clock of its own."""

    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1

    def __init__(self, power=0.0, heat=0.0):
        self.begin, self.shares = time.perf_counter(), {0: power, 1: heat}

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return "handle"

    def nvmlDeviceGetViolationStatus(self, handle, policy):
        passed = time.perf_counter() - self.begin
        return SimpleNamespace(violationTime=int(1e9 * passed * self.shares[policy]))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return 0x01  # idle: the round is over when it is asked

    def nvmlDeviceGetMigMode(self, handle):
        return [1, 1]

    def nvmlDeviceGetEccMode(self, handle):
        return [0, 1]

    def nvmlDeviceGetPersistenceMode(self, handle):
        return 1


@pytest.mark.parametrize(
    ("card", "flagged"),
    [
        (Nvml(), 0),
        (Nvml(power=0.01, heat=0.02), 0),
        (Nvml(power=0.8), 10),
        (Nvml(heat=0.3), 10),
    ],
)
def test_a_card_at_its_limit_is_flagged_in_each_round_and_a_quiet_one_in_none(card, flagged):
    watch = Watch(lambda: None, gpu_reader(nvidia.Gpu(card, "1234")))
    for _ in range(10):
        watch.setup()
        time.sleep(0.003)
    watch.close()
    assert sum(bool(seen.throttled) for seen in watch.rounds) == flagged
    assert not any(noisy(seen, 0.003, 1.0) for seen in watch.rounds)
    if flagged:
        assert "held the GPU back for" in watch.rounds[0].throttled[0]


def test_what_else_a_card_tells():
    card = nvidia.Gpu(Nvml(), "1234")
    assert (card.mig(), card.ecc(), card.persistent(), card.locked()) == (True, False, True, None)
    for bits, locked in ((0x02, True), (0x04, False), (0x01, None)):  # an idle card does not tell
        card._bits = lambda bits=bits: bits
        assert card.locked() is locked
    silent = nvidia.Gpu(None, "")
    assert (silent.mig(), silent.ecc(), silent.persistent(), silent.locked()) == (None,) * 4
    assert silent.held_seconds() == {}


def test_a_part_of_a_gpu_is_found_by_its_own_name_or_by_the_bus():
    class Mig:
        def nvmlDeviceGetHandleByUUID(self, uuid):
            if uuid != "MIG-77":
                raise RuntimeError("not found")
            return "part"

        def nvmlDeviceGetHandleByPciBusId(self, bus):
            assert bus == "0000:3b:00.0"
            return "card"

    assert nvidia.Gpu(Mig(), "77")._handle == "part"
    assert nvidia.Gpu(Mig(), "78", "0000:3b:00.0")._handle == "card"


# --- no network ---------------------------------------------------------------------------------------------------


def test_where_nothing_answers_nobody_waits_for_long(monkeypatch):
    monkeypatch.setattr(network, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: time.sleep(1) or SimpleNamespace(close=int))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no connection to example\.org within 0\.2 s"):
        network.check_reachable("https://example.org/x.pth")
    assert time.monotonic() - begin < 2


def test_a_proxy_is_what_must_be_reached(monkeypatch):
    asked = []
    monkeypatch.setattr(
        socket,
        "create_connection",
        lambda address, timeout: asked.append(address) or SimpleNamespace(close=lambda: None),
    )
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "near.example")
    network.check_reachable("https://far.example/x.pth")
    network.check_reachable("https://near.example/x.pth")
    network.check_reachable("file:///tmp/x.pth")
    assert asked == [("proxy.example", 3128), ("near.example", 443)]


# --- hashes -------------------------------------------------------------------------------------------------------


def test_tensors_of_a_gpu_are_hashed_in_few_transfers(monkeypatch):
    monkeypatch.setattr("tlbench.hashing.TRANSFER_BYTES", 100)
    tensors = [(str(n), torch.empty(size, device="meta")) for n, size in enumerate((5, 10, 10, 30, 5))]
    assert [[name for name, _ in group] for group in _groups(tensors)] == [["0", "1", "2"], ["3"], ["4"]]
    cpu = [("a", torch.zeros(3)), ("b", torch.zeros(0)), ("c", torch.tensor(1))]
    assert len([*_groups(cpu)]) == 3
    assert hash_tensors(cpu) == hash_tensors([(name, tensor.clone()) for name, tensor in cpu])
    assert hash_tensors(cpu) != hash_tensors([("a", torch.zeros(3)), ("b", torch.zeros(0)), ("d", torch.tensor(1))])


@pytest.mark.parametrize(("gigabytes", "images"), [(80, 256), (24, 192), (8, 64), (4, 32)])
def test_a_small_gpu_takes_a_smaller_batch_of_the_prefix(monkeypatch, gigabytes, images):
    properties = SimpleNamespace(total_memory=gigabytes * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert chunk_of(224, CUDA) == images

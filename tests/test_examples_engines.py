"""What is written of engines works as it stands, as far as one machine without a cluster can tell: each command of
docs/engines.md, of the README and of the examples is read by the real command line, the script runs with a stand-in for
tlbench, and the manifest fits together.
"""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tlbench.campaign.engine import LOCAL
from tlbench.engines import ENGINES
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.records.plan import RUN, Plan
from tlbench.records.run_folder import Store

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPT, MANIFEST, CLUSTER = EXAMPLES / "slurm.sh", EXAMPLES / "kuberay.yaml", EXAMPLES / "ray_cluster.md"
PAGE = ROOT / "docs" / "engines.md"
README = (ROOT / "README.md").read_text(encoding="utf-8")
(SECTION,) = re.findall(r"^## More than one machine\n(.*?)^## ", README, re.S | re.M)
TEXTS = {"README": SECTION, "page": PAGE.read_text(encoding="utf-8"), "cluster": CLUSTER.read_text(encoding="utf-8")}


def lines(text, program):
    """The commands of a program in a text's blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.S | re.M)
    return [line for block in blocks for line in block.splitlines() if line.startswith(f"{program} ")]


def entrypoints():
    """The commands of the manifest, the one in a comment too."""
    return [text.split("  #")[0].strip() for text in re.findall(r"entrypoint: (.*)", MANIFEST.read_text("utf-8"))]


COMMANDS = dict.fromkeys([*(line for text in TEXTS.values() for line in lines(text, "tlbench")), *entrypoints()])
"""Each command once."""


@pytest.fixture(autouse=True)
def engines():
    """Whatever a plugin adds to the table goes again."""
    before = dict(ENGINES)
    yield
    ENGINES.clear()
    ENGINES.update(before)


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """No engine is made: what is wanted of one is kept."""
    wanted = []
    monkeypatch.setattr("tlbench.engines.make_engine", wanted.append)
    monkeypatch.setattr("tlbench.engines.check_reachable", lambda wanted: None)
    return wanted


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """A run of one cell that has not been measured, the last one of results/."""
    monkeypatch.chdir(tmp_path)
    store = Store(Path("results") / "first")
    grid = Grid(axes={"dataset": ("synthetic",), "weights": ("random",)})
    store.describe(Plan(grids=(grid,), settings=Settings(isolate="backbone")))
    store.path.touch()
    return store.folder


@pytest.fixture
def read(command, photos, begun):
    """Has the command line read a command with a folder of images and a run of here; returns what it said of it."""
    own = EXAMPLES / "own_engine.py"
    places = {"PATH": photos, "/data/photos": photos, "/shared/photos": photos, "examples/own_engine.py": own}
    places |= dict.fromkeys(("RUN", "/runs/first", "/shared/runs/photos"), begun)

    def run(words):
        new = "--resume" not in words
        words = ["here" if new and before == "--out" else places.get(word, word) for before, word in pairs(words)]
        return command(*words, *["--dry-run"] * (words[0] == "run" and "--dry-run" not in words))

    return run


def pairs(words):
    """Each word with the one before it."""
    return zip(["", *words], words, strict=False)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_line_is_one_that_the_command_line_takes(line, read, asked):
    if "own_engine.py" in line and not (EXAMPLES / "own_engine.py").exists():
        pytest.skip("the example of an engine of one's own is not there yet")
    words = shlex.split(line)[1:]
    status, out, err = read(words)
    assert status == (words[0] == "status"), err  # 1: it has a cell left, and nobody measures it
    assert out
    assert [one.engine for one in asked] == [after for before, after in pairs(words) if before == "--engine"]


@pytest.mark.parametrize(
    ("device", "engine", "refusal"),
    [
        ("cuda", ["--engine", "ray"], ""),
        ("cpu,cuda", ["--engine", "ray"], ""),
        ("cuda:1", ["--engine", "ray"], "no CUDA GPU"),
        ("cuda", [], "no CUDA GPU"),
    ],
)
def test_the_machine_that_starts_a_run_on_gpus_of_others_needs_none(device, engine, refusal, read, asked, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, out, err = read(["run", "PATH", "--weights", "random", "--device", device, *engine])
    assert (status, refusal in err) == (2 if refusal else 0, True), err
    assert (f"-{device.rpartition(',')[2]}-s0" in out) == (not refusal)


def test_every_engine_is_shown_and_named():
    """In a command, with its extra, in the table of the page."""
    for name, row in ENGINES.items():
        if not isinstance(row.make, str):  # of a plugin that another test has loaded
            continue
        assert f"| `{name}` |" in TEXTS["page"]
        assert row.extra == "" or f"`pip install 'tlbench[{row.extra}]'`" in TEXTS["page"]
        for text in ("page", "README"):
            assert name == LOCAL or [line for line in lines(TEXTS[text], "tlbench") if f"--engine {name}" in line]


def test_the_options_of_submitit_are_known_to_it():
    pytest.importorskip("submitit")
    from submitit.auto.auto import AutoExecutor
    from submitit.slurm.slurm import SlurmExecutor

    given = {
        word for line in [*COMMANDS, SCRIPT.read_text("utf-8")] for word in re.findall(r"--engine-option (\w+)=", line)
    }
    assert "timeout_min" in given
    for name in given:
        prefix, _, own = name.partition("_")
        if prefix == "slurm":
            assert own in SlurmExecutor._valid_parameters(), name
        elif name not in ("cluster", "jobs"):  # the engine's own
            assert name in AutoExecutor._typed_parameters(), name


RAY = dict.fromkeys(line for text in TEXTS.values() for line in lines(text, "ray"))


@pytest.mark.parametrize("line", RAY)
def test_a_line_is_one_that_ray_takes(line):
    """Its options are read; nothing is started."""
    pytest.importorskip("ray")
    from ray.scripts.scripts import cli

    name, *words = shlex.split(line)[1:]
    context = cli.commands[name].make_context(name, words)
    assert "--address" not in words or context.params["address"] == "192.168.1.10:6379"


def test_the_ports_in_the_table_are_those_in_the_lines():
    text = TEXTS["cluster"]
    table = re.findall(r"^\| (\d+)(?: to (\d+))? \|", text, re.M)
    head, node = (shlex.split(line) for line in RAY if "--node-manager-port" in line)
    for words in (head, node):
        ports = [word for before, word in pairs(words) if before.endswith("port") and before != "--port"]
        assert ports == [port for row in table[1:] for port in row if port]
    assert head[head.index("--port") + 1] == table[0][0]


# --- links ---------------------------------------------------------------------------------------------------------


LINKS = [(path, link) for path in (PAGE, CLUSTER) for link in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8"))]
LINKS += [(ROOT / "README.md", link) for link in re.findall(r"\]\(([^)#]+)\)", SECTION)]


@pytest.mark.parametrize(("path", "link"), LINKS, ids=lambda value: str(value).rpartition("/")[2])
def test_a_link_leads_somewhere(path, link):
    if link.endswith("own_engine.py") and not (path.parent / link).exists():
        pytest.skip("the example of an engine of one's own is not there yet")
    assert (path.parent / link).exists()


# --- Slurm ---------------------------------------------------------------------------------------------------------

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Runs the script with other folders than its own and a tlbench that writes down what it is asked; returns that."""
    folder = tmp_path / "run folder"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    told = "import json, sys; json.dump(sys.argv[1:], open('told.json', 'w'))"
    (tmp_path / "bin" / "tlbench").write_text(f'#!/bin/sh\nexec python3 -c "{told}" "$@"\n')
    (tmp_path / "bin" / "tlbench").chmod(0o755)
    (tmp_path / "bin" / "activate").write_text(f"PATH={shlex.quote(str(tmp_path / 'bin'))}:$PATH\n")
    text = SCRIPT.read_text("utf-8")
    for name, place in {"ENVIRONMENT": tmp_path, "FOLDER": folder}.items():
        text, changed = re.subn(rf"^{name}=\S+", f"{name}={shlex.quote(str(place))}", text, flags=re.M)
        assert changed == 1
    (tmp_path / "mine.sh").write_text(text)

    def run():
        subprocess.run(["bash", "mine.sh"], check=True)
        return json.loads((tmp_path / "told.json").read_text())

    run.folder = folder
    return run


@needs_bash
def test_the_script_begins_a_run_and_then_goes_on_with_it(script, read, asked):
    words = script()
    assert words[words.index("--out") + 1] == str(script.folder)
    status, _, err = read(words)
    assert status == 0, err
    script.folder.mkdir()
    (script.folder / RUN).touch()
    again = script()
    assert again[:3] == ["run", "--resume", str(script.folder)]
    status, _, err = read([word.replace(str(script.folder), "RUN") for word in again])
    assert status == 0, err
    begin, go_on = asked
    assert begin == go_on
    assert begin.engine == "submitit"


def test_a_signal_of_slurm_s_reaches_tlbench():
    """The shell that Slurm knows has become tlbench: no line comes after it."""
    text = SCRIPT.read_text("utf-8")
    assert re.search(r"^#SBATCH --signal=B:TERM@\d+$", text, re.M)
    assert len(re.findall(r"^ *tlbench ", text, re.M)) == 0
    assert text.splitlines()[-1].startswith("exec tlbench ")


@needs_bash
def test_bash_reads_the_script():
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# --- Kubernetes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest():
    """The manifest, which is one document."""
    return pytest.importorskip("yaml").safe_load(MANIFEST.read_text("utf-8"))


@pytest.fixture
def pods(manifest):
    """The pods of the head and of each group of workers."""
    cluster = manifest["spec"]["rayClusterSpec"]
    return [one["template"]["spec"] for one in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_manifest_is_a_job_of_kuberay_s(manifest):
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(one["replicas"] == one["minReplicas"] == one["maxReplicas"] for one in cluster["workerGroupSpecs"])


def test_its_command_is_one_command(manifest):
    assert manifest["spec"]["entrypoint"] == entrypoints()[0]
    for line in entrypoints():
        assert not re.search(r"[;&|<>`$]", line)


def test_all_nodes_have_the_same_image_and_see_the_same_places(manifest, pods):
    """And what a container mounts is a volume of its pod."""
    containers = [pod["containers"][0] for pod in pods]
    assert len({container["image"] for container in containers}) == 1
    assert len({json.dumps(container["env"]) for container in containers}) == 1
    for pod, container in zip(pods, containers, strict=True):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = [volume["name"] for volume in pod["volumes"]]
        assert sorted(mounts.values()) == sorted(volumes)
        for place in ("/data", "/scratch"):
            assert place in mounts
        for variable in container["env"]:
            assert any(variable["value"].startswith(f"{place}/") for place in mounts), variable
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_run_s_folder_is_the_driver_s_alone(manifest, pods):
    head, *workers = ({mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} for pod in pods)
    words = shlex.split(manifest["spec"]["entrypoint"])
    assert str(Path(words[words.index("--out") + 1]).parent) in head
    assert not any("/runs" in places for places in workers)


def test_a_node_of_it_has_room_for_a_cell(manifest, pods):
    words = shlex.split(manifest["spec"]["entrypoint"])
    threads = int(words[words.index("--threads") + 1])
    for pod in pods[1:]:
        assert int(pod["containers"][0]["resources"]["limits"]["cpu"]) % threads == 0

"""Secrets: what of an environment, and of what others have written, comes into the files of a run."""

import json
from dataclasses import replace

import pytest
from records import failure, record

from tlbench.machine.credentials import HIDDEN, without_credentials
from tlbench.machine.variables import VARIABLES, kept
from tlbench.records.machine import machine_key, machine_of
from tlbench.records.run_folder import RECORDS, Store, load
from tlbench.report import write_report

NAMES = """
    NVIDIA_API_KEY CUDA_ACCESS_TOKEN TORCH_HUB_TOKEN PYTORCH_SECRET OMP_LICENSE_KEY MKL_PASSWORD MALLOC_TOKEN
    DNNL_API_KEY HF_TOKEN HUGGING_FACE_HUB_TOKEN WANDB_API_KEY GITHUB_TOKEN GITLAB_PAT AWS_ACCESS_KEY_ID
    AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AZURE_CLIENT_SECRET GOOGLE_API_KEY OPENAI_API_KEY KAGGLE_KEY DB_PASS
    PGPASSWORD MYSQL_PWD DOCKER_AUTH SLACK_WEBHOOK_TOKEN MLFLOW_TRACKING_PASSWORD COMET_API_KEY CI_JOB_JWT
    SESSION_COOKIE SIGNING_PASSPHRASE
"""
SECRETS = {
    name: f"Zq{number:02d}x/{name[::-1].lower()}+{7919 * (number + 3)}" for number, name in enumerate(NAMES.split())
}
OTHERS = {
    "http_proxy": "http://anna:Zq90pr0xy-password@127.0.0.1:9",
    "DATABASE_URL": "postgresql://anna:Zq91data@base@db.example.org/runs",
    "MALLOC_CONF": "ghp_Zq93" + "aB3" * 12,
    "SSH_PRIVATE_KEY": "-----BEGIN OPENSSH PRIVATE KEY-----\nZq94b3BlbnNzaC1rZXktdjEA\nZq95AAAABG5vbmUA\n-----END",
}
"""Beside the thirty, what a proxy and a data base are called by, and a token and a key."""


@pytest.fixture
def secrets(monkeypatch):
    for name, value in {**SECRETS, **OTHERS}.items():
        monkeypatch.setenv(name, value)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def found_in(folder):
    pieces = [*SECRETS.values(), "Zq9"]
    contents = files(folder)
    for path in list(contents):
        if path.suffix == ".parquet":
            parquet = pytest.importorskip("pyarrow.parquet")
            contents[path] = json.dumps(parquet.read_table(path).to_pylist(), default=str).encode()
    return [(path.name, piece) for path, content in contents.items() for piece in pieces if piece.encode() in content]


PLUGIN = """
import os
from tlbench.policies.base import Policy
from tlbench.policies.table import POLICIES

def dies(model, arguments, epochs):
    print(dict(os.environ), flush=True)
    raise RuntimeError(" | ".join(f"{n} is {v}" for n, v in os.environ.items() if "Zq" in v))

def ends(model, arguments, epochs):
    print(dict(os.environ), flush=True)
    print({n: v for n, v in os.environ.items() if "Zq" in v}, flush=True)
    os._exit(3)

POLICIES["dies"] = Policy(summary="raises", source="test", build=dies, arguments={})
POLICIES["ends"] = Policy(summary="ends its process", source="test", build=ends, arguments={})
"""


@pytest.mark.exhaustive
def test_thirty_secrets_are_in_no_file_of_a_run(tmp_path, secrets, command):
    assert len(SECRETS) == 30
    plugin = tmp_path / "leaky_plugin.py"
    plugin.write_text(PLUGIN)
    out = tmp_path / "run"
    status, said, log = command(
        "run", "--dataset", "synthetic", "--backbone", "mobilenet_v3_small", "--weights", "random",
        "--image-size", "32",
        "--freeze", "dies,ends", "--task", "train", "--train-size", "20", "--layout", "contiguous", "--prefix", "off",
        "--epochs", "1", "--plugin", plugin, "--out", out,
    )  # fmt: skip
    assert status == 1, log
    of = {one.cell.freeze: one for one in load(out).records}
    assert (of["dies"].status, of["ends"].status) == ("failed", "failed")
    assert HIDDEN in of["dies"].reason
    assert HIDDEN in of["ends"].output
    (out / "log").write_text(said + log)
    assert found_in(out) == []
    assert {path.suffix for path in files(out)} >= {".jsonl", ".json", ".html", ".md", ".csv"}


def test_a_value_that_looks_like_a_credential_is_not_kept():
    kinds = {
        "ghp_" + "a1B2" * 9: HIDDEN,
        "https://anna:word@example.org": f"https://{HIDDEN}@example.org",
        "x" * 300: HIDDEN,
        "line\nline": HIDDEN,
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": HIDDEN,
        "0,1": "0,1",
        "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
        "expandable_segments:True,max_split_size_mb:512": "expandable_segments:True,max_split_size_mb:512",
        "glibc.malloc.hugetlb=2:glibc.malloc.mmap_threshold=33554432": None,
        "granularity=fine,compact,1,0": None,
    }
    for value, expected in kinds.items():
        assert kept({"CUDA_VISIBLE_DEVICES": value})["CUDA_VISIBLE_DEVICES"] in (expected or value, HIDDEN)
        if expected is None or HIDDEN not in expected:
            assert kept({"CUDA_VISIBLE_DEVICES": value}) == {"CUDA_VISIBLE_DEVICES": value}


def test_every_variable_has_a_reason_and_a_library_is_known_by_its_file_alone():
    assert all(name.isupper() and reason for name, reason in VARIABLES.items())
    assert kept({"LD_PRELOAD": "/home/anna/lib/libjemalloc.so.2:/opt/x.so"}) == {"LD_PRELOAD": "libjemalloc.so.2:x.so"}


def test_what_older_records_kept_is_not_shown(tmp_path):
    def of(**variables):
        environment = {"stable": {"torch": "2"}, "settings": {"threads": 1, "variables": variables}}
        return record(environment=environment)

    old, new = of(OMP_NUM_THREADS="1", NVIDIA_API_KEY="nvapi-Zq"), of(OMP_NUM_THREADS="1")
    assert machine_key(old) == machine_key(new)
    assert machine_of(old)["settings.variables"] == {"OMP_NUM_THREADS": "1"}
    write_report([old], tmp_path)
    assert not [path for path, content in files(tmp_path).items() if b"nvapi-Zq" in content]


@pytest.mark.parametrize(
    ("text", "hidden", "left"),
    [
        ("cannot reach https://anna:geheim1@example.org/x.pth", "geheim1", "example.org/x.pth"),
        ("403 for https://example.org/x.pth?X-Amz-Signature=1f3c&size=4", "1f3c", "size=4"),
        ("GET https://h/api?access_token=abcdef#top", "abcdef", "#top"),
        ("Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop", "Authorization"),
        ("{'authorization': 'Basic YW5uYTpnZWhlaW0='}", "YW5uYTpnZWhlaW0", "authorization"),
        ("token hf_" + "aB3x" * 8 + " is refused", "aB3x", "is refused"),
        ("key AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP", "key"),
        ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0", "eyJzdWIiOiIx", "jwt"),
        ("password=hunter22 for anna", "hunter22", "for anna"),
        ('{"api_key": "12345678"}', "12345678", "api_key"),
        ("fatal: https://x-access-token:ghs_1@github.com/a/b.git", "ghs_1", "github.com/a/b.git"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----\nbad", "MIIEvQ", "bad"),
        ("posted to https://hooks.slack.com/services/T0/B0/xyz", "xyz", "hooks.slack.com"),
    ],
)
def test_credentials_are_taken_out_of_a_text(text, hidden, left):
    shown = without_credentials(text, {})
    assert hidden not in shown
    assert left in shown
    assert without_credentials(shown, {}) == shown


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: size mismatch for cls_token: copying a param with shape torch.Size([1, 1, 768])",
        "unexpected keys 'pos_embed', 'mask_token' in the checkpoint",
        'its process was ended by SIGSEGV; it last wrote: File "x.py", line 12 in forward',
        "KeyError: 'token_type_ids'",
        "images of 'cat' have changed since 's0' was measured (1f3c5a7b, now 22334455)",
        "hf_hub:timm/resnet18.a1_in1k has no weights at https://huggingface.co/timm",
    ],
)
def test_what_is_no_credential_stays(text):
    assert (
        without_credentials(text, {"PWD": "/work", "GIT_AUTHOR_NAME": "anna", "TOKENIZERS_PARALLELISM": "false"})
        == text
    )


@pytest.mark.parametrize(
    "word", ["a", "a1", "token", "token-", "eyJ-", "x.", "?token", "sk-", "a:", "abcdefgh", "bearer-", "authorization-"]
)
def test_a_long_text_without_spaces_is_gone_through_once(word):
    """Twice as long a text would take four times as long, and this one minutes, if every letter began a search."""
    text = word * (400_000 // len(word))
    left = without_credentials(f"{text} password=hunter22", {"A_TOKEN": f"{word * 50}z"})
    assert left.endswith(f" password={HIDDEN}")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("my-token-name=abc123 x", f"my-token-name={HIDDEN} x"),
        ("a=b.token=abc123", f"a=b.token={HIDDEN}"),
        ("-eyJhbGciOi.eyJzdWIi.c2ln", f"-{HIDDEN}"),
        ("aeyJ-eyJhbGciOi.eyJzdWIi", f"aeyJ-{HIDDEN}"),
        ("git+https://u:p@h and 1://u:p@h", f"git+https://{HIDDEN}@h and 1://{HIDDEN}@h"),
        ("?a.my-api_key.b=1&c=2", f"?a.my-api_key.b={HIDDEN}&c=2"),
    ],
)
def test_a_credential_is_hidden_wherever_its_name_stands_in_a_word(text, left):
    assert without_credentials(text, {}) == left


def test_a_value_is_found_in_every_form_and_where_a_text_was_cut():
    value = "Zq1 'quoted' \n second\\line"
    variables = {"MY_SECRET": value}
    for form in (value, " ".join(value.split()), repr(value), json.dumps(value)):
        assert "Zq1" not in without_credentials(f"a {form} b", variables)
    assert without_credentials("it said abcdefgh", {"A_TOKEN": "abcdefghijkl"}) == f"it said {HIDDEN}"
    assert without_credentials("ghijkl, then", {"A_TOKEN": "abcdefghijkl"}) == f"{HIDDEN}, then"


def test_a_record_is_clean_in_every_text_and_measures_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "Zq-resnet18-secret")
    said = "Zq-resnet18-secret"
    weights = {"source": f"https://u:{said}@h/x", "reason": said, "sha256": "ab", "pretrained": False}
    leaky = replace(
        failure("failed", said),
        output=said, validity_reason=said, weights=weights, prefix={"notes": [said]}, nondeterministic=(said,),
    )  # fmt: skip
    written = Store(tmp_path).append(leaky)
    assert said not in (tmp_path / RECORDS).read_text()
    assert (written.cell, written.key, written.weights["sha256"]) == (leaky.cell, leaky.key, "ab")

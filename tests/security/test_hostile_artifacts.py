"""Hostile models, manifests and `.curator/` folders: an error names them, and none of their code runs."""

import contextlib
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from conftest import MakeProject, make_tokenizer, pair_rows, write_rows
from hostile import nothing_changes, run_cli
from manifests import manifest_of
from tui_pilot import App, drive, text, until

from curator.core.config import LoraSection, ModelSection
from curator.core.errors import ConfigError, DataError, ManifestMismatch
from curator.core.files import sha256_of
from curator.data.chat_templates import named_templates
from curator.data.model_files import find_tokenizer, load_architecture, load_tokenizer, weight_files
from curator.data.tokens import Encoder
from curator.export import export
from curator.gradients import grouping as groups
from curator.project.project import Project
from curator.select.manifest import Manifest, read_manifest
from curator.training import trainer as meta_train
from curator.training.model import load_model
from curator.workspace.job_log import Job, read_jobs
from curator.workspace.jobs import stop
from tui.background.run_watcher import JobWatcher
from tui.dialogs.export import export_in
from tui.settings import Settings
from tui.state.place import Place


class Evil:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


# -- models -------------------------------------------------------------------------------------------------------


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _code(model: Path, config: str, **values: Any) -> None:
    _change(model / config, **values)
    (model / "evil.py").write_text(f"open({str(model.parent / 'pwned')!r}, 'w')\n")


def _pickle(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(model.parent / "pwned")))


def _adapter(model: Path) -> None:
    """transformers loads an adapter next to a model, also from a pickle, and the model's hash does not cover it."""
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "evil/base"}
    (model / "adapter_config.json").write_text(json.dumps(adapter))
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Evil(model.parent / "pwned")))


def _header(header: bytes, size: int | None = None) -> Any:
    return lambda model: (model / "model.safetensors").write_bytes(
        struct.pack("<Q", size or len(header)) + header + b"0000"
    )


@pytest.mark.parametrize(
    ("command", "poison", "words"),
    [
        ("check", _pickle, "pytorch_model.bin is a pickle, which can run code"),
        ("check", lambda m: _code(m, "config.json", model_type="e", auto_map={"AutoConfig": "evil.E"}), "does not run"),
        (
            "check",
            lambda m: _code(
                m, "tokenizer_config.json", tokenizer_class="E", auto_map={"AutoTokenizer": ["evil.E", None]}
            ),
            "does not run",
        ),
        ("check", _adapter, "holds a LoRA adapter, next to a model (base model: 'evil/base')"),
        ("check", lambda m: _change(m / "config.json", transformers_weights="adapter_model.bin"), "other weights"),
        ("check", lambda m: _change(m / "config.json", transformers_weights="a/b.safetensors"), "other weights"),
        ("train", _header(b"{}", 2**62), "its header is not valid"),
        (
            "train",
            _header(b'{"x":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,4]}}'),
            "overflow",
        ),
        ("check", lambda m: (m / "config.json").write_text("[" * 100_000), "cannot use config.json"),
        ("check", lambda m: (m / "tokenizer.json").write_text("\x1b[31m{"), "cannot read the tokenizer"),
    ],
    ids=[
        *("pickle", "model code", "tokenizer code", "adapter", "pickle by name", "weights by name"),
        *("header", "shape", "nested", "tokenizer"),
    ],
)
def test_load_model_hostile_folder_runs_no_code(
    make_project: MakeProject, command: str, poison: Any, words: str
) -> None:
    folder = make_project()
    poison(folder / "model")
    assert words in run_cli(command, "-p", folder, "-q").check(3).err
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"fast_tokenizer_files": ["tokenizer.json", "../other/tokenizer.4.0.0.json"]},
        {"fast_tokenizer_files": "x/tokenizer.4.0.0.json"},
        {"vocab": "/dev/zero"},
        {"merges": "/dev/zero"},
    ],
    ids=str,
)
def test_load_tokenizer_that_names_other_files_is_refused(
    tmp_path: Path, tiny_llama_folder: Path, values: dict[str, Any]
) -> None:
    """transformers reads a tokenizer of this name, which the hash of the model does not cover."""
    folder = Path(shutil.copytree(tiny_llama_folder, tmp_path / "model"))
    (tmp_path / "other").mkdir()
    shutil.copy(folder / "tokenizer.json", tmp_path / "other" / "tokenizer.4.0.0.json")
    _change(folder / "tokenizer_config.json", **values)
    with pytest.raises(DataError, match="names files outside the model folder"):
        load_tokenizer(folder, ModelSection(name_or_path=str(folder)))


def test_load_tokenizer_with_paths_of_its_author_reads_own_files(tmp_path: Path, tiny_llama_folder: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama_folder, tmp_path / "model"))
    section = ModelSection(name_or_path=str(folder))
    expected = load_tokenizer(folder, section)("carry the sum")["input_ids"]
    names = ("special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file")
    _change(folder / "tokenizer_config.json", **dict.fromkeys(names, "/dev/zero"))
    assert load_tokenizer(folder, section)("carry the sum")["input_ids"] == expected


@pytest.mark.parametrize("part", [False, True])
def test_load_model_kernel_of_the_hub_is_not_loaded(tmp_path: Path, tiny_llama_folder: Path, part: bool) -> None:
    """transformers downloads and runs the native code that `attn_implementation` names, if `kernels` is installed."""
    folder = Path(shutil.copytree(tiny_llama_folder, tmp_path / "model"))
    kernel = {"attn_implementation": "evil/kernel", "experts_implementation": "evil/kernel"}
    section = ModelSection(name_or_path=str(folder))
    if part:
        _change(folder / "config.json", model_type="llava", text_config={"model_type": "llama", **kernel})
        found: Any = load_architecture(folder, section).get_text_config()
    else:
        _change(folder / "config.json", **kernel)
        found = load_model(folder, section, LoraSection(r=2)).model.config
    assert found._attn_implementation in (None, "sdpa")
    assert found._experts_implementation in (None, "grouped_mm", "eager")


def test_load_model_implementation_of_transformers_is_kept(tmp_path: Path, tiny_llama_folder: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama_folder, tmp_path / "model"))
    _change(folder / "config.json", attn_implementation="eager")
    model = load_model(folder, ModelSection(name_or_path=str(folder)), LoraSection(r=2)).model
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("tokenizer_config.json", "[" * 100_000, lambda m: named_templates(m)),
        ("adapter_config.json", "[" * 100_000, lambda m: find_tokenizer(ModelSection(name_or_path=str(m)), m)),
        ("a.safetensors.index.json", json.dumps({"weight_map": {"a": "9" * 400}}), lambda m: weight_files(m)),
    ],
)
def test_model_file_nested_or_impossible_raises_data_error(tmp_path: Path, name: str, text: str, read: Any) -> None:
    (tmp_path / name).write_text(text)
    if name == "tokenizer_config.json":
        assert read(tmp_path) == {}
    else:
        with pytest.raises(DataError, match=r"LoRA adapter|impossible file"):
            read(tmp_path)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% import 'os' as os %}",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 'a' * 10**15 }}",
        "{{ 1 / 0 }}",
        "{{ messages + 1 }}",
        "{{ raise_exception('\x1b[31m') }}",
    ],
)
def test_encode_failing_chat_template_raises_data_error(template: str) -> None:
    encoder = Encoder(make_tokenizer(chat_template=template), max_length=64, encoder_decoder=False)
    with pytest.raises(DataError, match="the chat template rejects the turns"):
        encoder.encode({"instruction": "a", "response": "b"})


def test_check_row_refused_by_template_is_bad_row(make_project: MakeProject) -> None:
    folder = make_project(tasks={"target": pair_rows("target", 6), "chat": [{"instruction": "a", "output": "b"}]})
    _change(folder / "model" / "tokenizer_config.json", chat_template="{{ raise_exception('\x1b[31m') }}")
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "chat.jsonl:1: the chat template rejects the turns: \ufffd[31m (1 of 7" in done.err


# -- manifests ----------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Return a manifest of the folder `given`, with a task `secret` whose file is outside of the folder."""
    write_rows(tmp_path / "given" / "target.jsonl", pair_rows("target", 3))
    write_rows(tmp_path / "secret.jsonl", pair_rows("secret", 3))
    (tmp_path / "given" / "secret.jsonl").symlink_to(tmp_path / "secret.jsonl")
    return manifest_of(tmp_path / "given", "target", "secret")


def _naming(manifest: Manifest, path: str, **task: Any) -> Manifest:
    (entry,) = manifest.tasks
    files = (entry.files[0].model_copy(update={"path": path}),)
    return manifest.model_copy(update={"tasks": (entry.model_copy(update={"files": files, **task}),)})


@pytest.mark.parametrize("path", ["../secret.jsonl", "{}/secret.jsonl", "secret.jsonl", "../given/../secret.jsonl"])
@pytest.mark.parametrize("selected", [True, False])
def test_export_manifest_path_outside_is_refused(manifest: Manifest, tmp_path: Path, path: str, selected: bool) -> None:
    """Relative paths, absolute paths and links are refused, even with the correct hash."""
    found = _naming(manifest, path.format(tmp_path), selected=selected)
    with pytest.raises(DataError, match=r"'secret': .*secret\.jsonl lies outside") as caught:
        export(found, tmp_path / "given", format="jsonl", folder=tmp_path / "out", allow_changed=True)
    assert "--allow-outside" in caught.value.hint
    assert not (tmp_path / "out").exists()
    export(found, tmp_path / "given", format="jsonl", folder=tmp_path / "out", allow_outside=True)
    assert (tmp_path / "out" / "secret.jsonl").exists() == selected


def test_export_path_of_project_config_is_allowed(manifest: Manifest, tmp_path: Path) -> None:
    found = _naming(manifest, "../secret.jsonl")
    config = tmp_path / "given" / "curator.toml"
    config.write_text('[model]\nname_or_path = "m"\n[data]\ntasks = "*.jsonl"\n')
    # The glob of the project matches the link.
    export(found, tmp_path / "given", format="jsonl", folder=tmp_path / "out")
    config.write_text(config.read_text().replace("*.jsonl", "t*.jsonl"))
    with pytest.raises(DataError, match="lies outside"):
        export(found, tmp_path / "given", format="jsonl", folder=tmp_path / "out2")
    # The manifest's folder is inside a project.
    config.rename(tmp_path / "curator.toml")
    export(found, tmp_path / "given", format="jsonl", folder=tmp_path / "out3")


def test_export_invalid_manifest_exits_with_code_3(manifest: Manifest, tmp_path: Path) -> None:
    write_rows(tmp_path / "given" / "one.jsonl", pair_rows("one", 1))
    plain = manifest_of(tmp_path / "given", "target", "one").model_dump(mode="json")
    os.mkfifo(tmp_path / "given" / "pipe.jsonl")
    (tmp_path / "given" / "text.txt").write_text("x")
    digest = sha256_of(tmp_path / "given" / "text.txt")

    def task(**values: Any) -> dict[str, Any]:
        return plain | {"tasks": [plain["tasks"][0] | values]}

    for document in (
        task(files=[]),
        task(weight=1e300),
        task(weight=-1),
        task(source={"split": 5}),
        task(source={"hub": ["a"]}),
        task(files=[{"path": "a\0b", "sha256": "x", "rows": 1}]),
        task(files=[{"path": "pipe.jsonl", "sha256": "x", "rows": 1}]),
        task(files=[{"path": "text.txt", "sha256": digest, "rows": 1}]),
        task(files=[{"path": ".", "sha256": "x", "rows": 1}]),
        "[" * 100_000,
        "\x1b[31m",
    ):
        path = tmp_path / "given" / "m.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        assert run_cli("export", path, "-o", tmp_path / "out").check(3).out == ""
        assert not (tmp_path / "out").exists()


def test_write_groups_hostile_names_stay_in_folder(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_project()
    project = Project.open(folder)
    corpus = project.corpus(("target",))
    names = {"alpha": "../../evil", "beta": "a/b", "gamma": "a_b"}
    tasks = []
    for task in corpus.tasks:
        object.__setattr__(task, "name", names.get(task.name, task.name))
        tasks.append(task)
    monkeypatch.setattr(groups, "sets_in_use", lambda *_: [])
    monkeypatch.setattr(groups, "_directions", lambda *_: np.arange(16.0).reshape(8, 2))
    from curator.data.discovery import find_tasks

    sources = {names.get(s.name, s.name): s for s in find_tasks(project.config.data, folder)}
    with nothing_changes(folder.parent, but="project/groups"):
        written = groups.write_groups(
            project.workspace,
            corpus,
            None,
            sources,
            count=2,
            folder=folder / "groups",  # type: ignore[arg-type]
        )
    assert len({path for _, path, _ in written}) == len(written) == 6
    assert {path.parent for _, path, _ in written} == {folder / "groups"}


# -- .curator/ ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "job.lock", "store.lock", "store.duckdb", "adapters", "adapters/key", "runs"])
def test_check_symbolic_link_in_results_is_refused(make_project: MakeProject, tmp_path: Path, name: str) -> None:
    folder = make_project()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    link = folder / ".curator" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere" / ("precious" if "." in name else ""))
    with nothing_changes(tmp_path, but="project/.curator"):
        assert f"symbolic link in the results folder: {link}" in run_cli("check", "-p", folder, "-q").check(3).err
        assert f"symbolic link in the results folder: {link}" in run_cli("tui", "-p", folder).check(3).err
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == ["precious"]


def _special(path: Path, kind: str) -> None:
    """Make a pipe, a socket or a device without end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
            made.bind(path.name)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize(
    "name", ["", "job.lock", "store.lock", "store.duckdb", "tui.json", "sessions/a.lock", "adapters/k/capture/v.bin"]
)
def test_commands_special_file_in_results_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    """curator would wait for the other end of the pipe."""
    (tmp_path / "curator.toml").write_text('[model]\nname_or_path = "m"\n[data]\ntasks = "*.jsonl"\n')
    place = tmp_path / ".curator" / name
    _special(place, kind)
    commands = [["status"], ["check"], ["check", "--store"], ["sql", "FROM tasks"], ["export-store", "x"], ["tui"]]
    for command in commands:
        found = run_cli(*command, "-p", tmp_path).check(3)
        assert f"not a regular file in the results folder: {place}" in found.err


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_status_special_files_of_jobs_are_ignored(checked: Path, tmp_path: Path, kind: str) -> None:
    folder = Path(shutil.copytree(checked, tmp_path / "project"))
    runs = folder / ".curator" / "runs"
    _special(runs / "20990101T000000-1" / "run.json", kind)
    for name in ("events.jsonl", "output.txt"):
        _special(runs / "20990101T000001-1" / name, kind)
    facts = {"command": "x", "pid": os.getpid(), "started": "2026-01-01T00:00:00+00:00", "ended": None, "message": "m"}
    facts |= {"host": socket.gethostname(), "state": "running"}
    (runs / "20990101T000001-1" / "run.json").write_text(json.dumps(facts))
    job, *_ = json.loads(run_cli("status", "--json", "-p", folder).check(0).out)["runs"]
    assert (job["id"], job["state"]) == ("20990101T000001-1", "lost")
    watched, *_ = JobWatcher(runs).read("20990101T000001-1")
    assert watched.job.state == "lost"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    """Return a project whose examples are stored."""
    folder = tmp_path_factory.mktemp("checked") / "project"
    write_rows(folder / "tasks" / "target.jsonl", pair_rows("target", 6))
    model = json.dumps(str(tiny_llama_folder))
    (folder / "curator.toml").write_text(
        f'[model]\nname_or_path = {model}\n[data]\ntasks = "tasks/*"\ntarget = "target"\n'
    )
    run_cli("check", "-p", folder, "-q").check(0)
    return folder


@pytest.mark.parametrize(
    "statements",
    [
        "DROP TABLE examples; CREATE VIEW examples AS SELECT content AS task_key FROM read_text('/etc/passwd')",
        "DROP TABLE artifacts; CREATE VIEW artifacts AS SELECT 1 AS stage",
        "DROP TABLE examples",
        "ALTER TABLE artifacts DROP outputs",
        "CREATE MACRO max(x) AS -5",
        "UPDATE artifacts SET outputs = '['",
        "UPDATE artifacts SET outputs = '[]'",
        "UPDATE artifacts SET outputs = '{}'",
        "UPDATE schema_version SET version = -5",
        "UPDATE schema_version SET version = 99",
        "DROP TABLE schema_version; CREATE VIEW schema_version AS SELECT 0 AS version",
        "DELETE FROM examples",
        None,
    ],
)
def test_check_foreign_store_exits_with_code_3(checked: Path, tmp_path: Path, statements: str | None) -> None:
    folder = Path(shutil.copytree(checked, tmp_path / "project"))
    store = folder / ".curator" / "store.duckdb"
    if statements is None:
        store.write_bytes(b"DUCK" * 5000)
    else:
        with duckdb.connect(str(store)) as connection:
            connection.execute(statements)
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "store" in done.err
    assert "root:" not in done.err


def test_store_foreign_view_reads_no_file(checked: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checked, tmp_path / "project"))
    (tmp_path / "secret").write_text("secret")
    with duckdb.connect(str(folder / ".curator" / "store.duckdb")) as connection:
        connection.execute("DROP TABLE selections")
        connection.execute(
            "CREATE VIEW selections AS SELECT 'k' AS key, 'n' AS name, content AS manifest, now()::TIMESTAMP AS created"
            f" FROM read_text('{tmp_path / 'secret'}')"
        )
    with pytest.raises(DataError, match="unexpected view"):
        Project.open(folder).store.selection_named("n")


def test_gradients_changed_adapter_is_refused(make_project: MakeProject) -> None:
    folder = make_project()
    project = Project.open(folder)
    project.train()
    (first, *_) = sorted((folder / ".curator" / "adapters").glob("*/step-*/adapter_model.safetensors"))
    before = first.read_bytes()
    first.write_bytes(before[:-4] + b"\0\0\x80\x7f")
    with pytest.raises(ManifestMismatch, match=rf"adapter {first.parent} has sha256"):
        Project.open(folder).gradients()
    first.write_bytes(pickle.dumps(Evil(folder / "pwned")))
    with pytest.raises(DataError, match=rf"cannot read adapter {first.parent}: "):
        Project.open(folder).gradients()
    assert not (folder / "pwned").exists()


def test_train_pickled_checkpoint_runs_no_code(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_project()
    step = meta_train.Recorder.step

    def stopped(recorder: Any, number: int) -> None:
        step(recorder, number)
        if number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(meta_train.Recorder, "step", stopped)
        patched.setattr(meta_train, "_CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            Project.open(folder).train()
    *_, checkpoint = sorted((folder / ".curator" / "adapters").glob("*/checkpoints/checkpoint-*"))
    project = Project.open(folder)
    for name in ("optimizer.pt", "sums.safetensors"):
        before = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(pickle.dumps(Evil(folder / "pwned")))
        with pytest.raises(DataError, match=f"cannot resume from checkpoint {checkpoint}: "):
            project.train()
        (checkpoint / name).write_bytes(before)
    assert not (folder / "pwned").exists()
    project.train()


def test_stop_record_with_foreign_pid_does_not_kill_it(tmp_path: Path) -> None:
    """One process holds the log, and the record contains the id of another process."""
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    foreign = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, folder / "events.jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        facts = {"command": "x", "pid": foreign.pid, "started": "2026-01-01T00:00:00+00:00", "ended": None}
        (folder / "run.json").write_text(json.dumps(facts | {"state": "running", "message": ""}))
        (job,) = read_jobs(tmp_path / "runs")
        assert job.state == "running"
        with pytest.raises(ConfigError, match="job has already ended"):
            stop(tmp_path / "runs", job)
        assert foreign.poll() is None
    finally:
        foreign.communicate(b"\n")
        holder.communicate(b"\n")


@pytest.mark.parametrize(
    "facts",
    [{"pid": 10**30}, {"pid": "x"}, {"started": "\x1b[31m"}, {"state": "\x1b[31m"}, {"command": ["\x1b[31m"]}, {}],
)
def test_status_hostile_job_record_is_plain_text(checked: Path, facts: dict[str, Any]) -> None:
    folder = checked / ".curator" / "runs" / "99999999T999999-1"
    folder.mkdir(parents=True, exist_ok=True)
    base = {"command": "\x1b[31m\u202e", "pid": 1, "started": "2026-01-01T00:00:00+00:00", "ended": None}
    (folder / "run.json").write_text(json.dumps(base | {"state": "done", "message": "\x1b]0;x\x07"} | facts))
    (folder / "events.jsonl").write_text('{"event": "Note", "message": "\\u001b[31m", "time": 1e400}\n[[[[\n')
    run_cli("status", "-p", checked).check(0)
    assert all(isinstance(job, Job) for job in read_jobs(folder.parent))


@pytest.mark.parametrize(
    "facts",
    [
        {"pid": float("inf")},
        {"ended": 0},
        {"message": "\ud800\u202e\x7f\x9b31m\U000e0001"},
        {"started": "0001-01-01T00:00:00+14:00"},
        {"ended": "9999-12-31T23:59:59-14:00"},
    ],
    ids=str,
)
def test_status_json_hostile_job_record_is_valid_json(checked: Path, facts: dict[str, Any]) -> None:
    folder = checked / ".curator" / "runs" / "99990101T000000-1"
    folder.mkdir(parents=True, exist_ok=True)
    base = {"command": "x", "pid": 1, "started": "2026-01-01T00:00:00+00:00", "ended": None}
    (folder / "run.json").write_text(json.dumps(base | {"state": "done", "message": "m"} | facts))
    done = run_cli("status", "--json", "-p", checked).check(0)
    json.loads(done.out.encode("utf-8"))


_STRANGE_EVENTS = (
    {"event": "Note", "message": "x", "time": "now"},
    {"event": "Note", "message": "x", "time": 1e300},
    {"event": "StageProgress", "stage": 1, "done": "x", "total": 2, "unit": "u", "rate": 1.0, "seconds_left": None},
    {"event": "StageProgress", "stage": "s", "done": 1, "total": 10**400, "unit": "u", "rate": 1, "seconds_left": 1},
    {
        "event": "StageProgress",
        "stage": "s",
        "done": 10**18,
        "total": 1,
        "unit": "\x1b",
        "rate": 1e18,
        "seconds_left": 1e18,
    },
    {"event": "StageFinished", "stage": "s", "seconds": -1e18, "summary": "\ud800", "time": 3e10},
)


def test_tui_hostile_results_folder_opens(checked: Path) -> None:
    """Every screen opens on a hostile `.curator/` and shows the readable parts."""
    kept = checked / ".curator"
    base = {"command": "\x1b[31m", "pid": 1, "started": "1970-01-01T00:00:00+00:00", "ended": None, "message": "m"}
    lines = "".join(json.dumps(event) + "\n" for event in _STRANGE_EVENTS)
    strange: list[dict[str, Any]] = [{}, {"ended": "2999-12-31T23:59:59-12:00"}, {"state": "failed"}, {"pid": 1e400}]
    for number, changed in enumerate(strange):
        folder = kept / "runs" / f"99990101T00000{number}-1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps(base | {"state": "running"} | changed))
        (folder / "events.jsonl").write_text(lines + "[" * 100_000 + "\n")
    place = {"version": 1, "mode": "tasks", "task": "\x1b[31m", "filter": "aff>((((", "sort": "\x1b[31m"}
    (kept / "tui.json").write_text(json.dumps(place | {"compared": [{"a": 1}, 5, None, "x"]}))

    async def story(app: App, pilot: Any) -> None:
        for key in "12345":
            await pilot.press(key)
            await pilot.pause()
        await pilot.press("4")
        await until(pilot, lambda: app.jobs)
        app.look_at_jobs()
        await pilot.pause(0.3)
        assert "[31m" in text(app)

    drive(checked, story)


def test_read_manifest_invalid_content_raises_data_error(tmp_path: Path) -> None:
    for content in (b"", b"\xff", b"null", b"{}", b"[" * 10_000):
        (tmp_path / "m.json").write_bytes(content)
        with pytest.raises(DataError, match=r"m\.json"):
            read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "pipe",
        " " * 1_000_001 + "{}",
        '{"version":1,"sort":"\\u001b[31m","task":"\\u001b[31m","filter":"\\ud800","compared":[{"a":1},5,null,"x"]}',
        json.dumps({"version": 1, "filter": "aff>(((( " * 10_000, "descending": 1}),
    ],
    ids=["deep", "pipe", "long", "words", "endless"],
)
def test_place_read_invalid_file_gives_defaults(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tui.json"
    if content == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(content)
    assert Place.read(path) == Place()


def test_settings_read_invalid_keys_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "tui.json").write_text('{"version": 1, "keys": {"toggle": 5}, "mouse": false}')
    found = Settings.read(tmp_path / "tui.json")
    assert (found.keys, found.mouse) == ({}, False)


def test_tui_crash_exits_with_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(app: App, **_: Any) -> None:
        app._return_code = 1

    monkeypatch.setattr(App, "run", crash)
    monkeypatch.setenv("TEXTUAL_DRIVER", "none")
    (tmp_path / "curator.toml").write_text("")
    assert run_cli("tui", "-p", tmp_path).code == 1


def test_export_in_folder_of_another_person_describes_or_ignores_it(tmp_path: Path) -> None:
    """The interface must not stop at a pipe, or end at deep nesting."""
    record, manifest = tmp_path / "curator-export.json", tmp_path / "curator-manifest.json"
    record.write_text('{"format": "trl"}')
    manifest.write_text('{"name": "a"}')
    assert export_in(tmp_path) == "an export of a as trl"
    for found in ("[" * 9000, "[]", "{", "7", ""):
        record.write_text(found)
        assert export_in(tmp_path) == ""
    record.unlink()
    os.mkfifo(record)
    assert export_in(tmp_path) == ""

"""Interrupt every stage at random moments, resume it, and compare with an undisturbed run.

    python tests/stress/kills.py --json FILE [--work DIR] [--moments 50] [--signals KILL] [--stages train …]

Each trial has five steps.

1. Copy a tiny project that is ready for the stage.
2. Run the stage's command in a separate process.
3. Send a signal after a seeded share of the time that the undisturbed command takes.
4. Run the command again.
5. Compare the rows of the store, and the bytes of every file.

Processes are forked from a process that has imported everything. Signals therefore arrive during the work, not during
imports. Stages commit after every batch instead of every ten seconds. A tiny project then has as many moments between
commits as a large one.

Each row is written as soon as its trial ends. Run the same command again to resume.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

# The benchmarks are scripts, not a package. They come last on the path: `benchmarks/tui.py` would hide package `tui`.
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from measured import provenance

EXCLUDED = {
    "created, made, applied": "the time of day",
    "seconds, peak_bytes, artifacts of the stage rate": "measured time and memory",
    "file_hashes": "a file is remembered once it is older than a second; its inode is that of the copy",
    ".curator/runs": "one folder for each process, named after its start",
    "store.duckdb": "where DuckDB puts its blocks; its rows are compared instead",
    "store.duckdb.wal": "what was committed and not merged yet; the next who writes does that",
    "*.lock, *.turn": "name the last process",
}
COMMANDS: dict[str, list[str]] = {
    "train": ["train"],
    "gradients": ["gradients"],
    "estimate": ["estimate", "task0"],
    "select": ["select"],
    "export": ["export", "curator-manifest.json", "-o", "exports"],
    "export again": ["export", "curator-manifest.json", "-o", "exports"],
    "verify": ["verify", "--runs", "1", "--seeds", "1"],
}
"""The command of each stage, in order. Each stage starts from the result of the undisturbed stage before it."""
_IMPORTED = (
    *("torch", "transformers", "peft", "accelerate", "safetensors.torch", "pyarrow", "scipy.stats", "datasets"),
    *("transformers.trainer", "transformers.models.llama.modeling_llama"),
    *("curator.cli.app", "curator.cli.tables", "curator.core.progress", "curator.export", "curator.project.project"),
    *("curator.project.status", "curator.select.selections", "curator.verify.comparison", "curator.verify.measure"),
    "curator.workspace.store.tables",
)
# A later result with the same key replaces a file or an artifact.
_REPLACED = {"files", "artifacts"}
_MEASURED = {"created", "made", "applied", "seconds", "peak_bytes"}

State = dict[str, Counter[str]]
Row = dict[str, Any]


class Server:
    """Forks a process for each command, from this process with its finished imports and its single thread.

    Args:
        scratch: Folder for the output of the commands.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        os.environ["TQDM_DISABLE"] = "1"
        for module in _IMPORTED:
            importlib.import_module(module)
        import torch

        from curator.data import corpus
        from curator.gradients import stage as stages
        from curator.training import trainer as meta_train

        torch.set_num_threads(1)
        for committing in (corpus, stages):
            vars(committing)["_COMMIT_SECONDS"] = 0.0
        vars(meta_train)["_CHECKPOINT_SECONDS"] = 0.0
        self._fork = multiprocessing.get_context("fork")

    def run(
        self,
        folder: Path,
        command: list[str],
        *,
        sign: signal.Signals | None = None,
        delay: float = 0.0,
        within: str = "",
    ) -> tuple[int, float, str]:
        """Run a command in a project.

        Args:
            folder: The project.
            command: The command without `curator`.
            sign: Signal to send.
            delay: Seconds until the signal.
            within: Start of the event that the delay waits for. Empty to count the delay from the start.

        Returns:
            Exit code, seconds from the start or from the signal, and output.
        """
        path = self._scratch / "output"
        path.unlink(missing_ok=True)
        process = self._fork.Process(target=_run_command, args=(folder, command, path))
        began = time.monotonic()
        process.start()
        if sign is not None:
            while within and process.is_alive() and not _last_event(folder).startswith(within):
                time.sleep(0.002)
            process.join(delay)
            began = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, sign)
        process.join()
        seconds = time.monotonic() - began
        output = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return process.exitcode or 0, seconds, output

    def state(self, folder: Path) -> State:
        """Count the rows of each table and the files of a project.

        Raises:
            RuntimeError: The store or a file cannot be read.
        """
        path = self._scratch / "state"
        process = self._fork.Process(target=_write_state, args=(folder, path))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"cannot read the state of the project: {folder}")
        found: dict[str, dict[str, int]] = json.loads(path.read_text())
        return {name: Counter(rows) for name, rows in found.items()}


def _run_command(folder: Path, command: list[str], output: Path) -> None:
    from curator.cli.main import main

    # Until the command installs its handlers, a signal ends the process, as in any starting program.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    sys.argv = ["curator", *command]
    main()


def _write_state(folder: Path, path: Path) -> None:
    path.write_text(json.dumps(_tables(folder) | {"files": _files(folder)}))


def _tables(folder: Path) -> State:
    from curator.workspace.store.tables import Store

    found: State = {}
    with Store(folder / ".curator" / "store.duckdb").read() as connection:
        if connection is None:
            return found
        tables = [row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        # The number of a sum depends on the order of writing. Its key and content do not.
        named = {
            "triangles": "SELECT s.set_key, s.content, t.* EXCLUDE (number)"
            " FROM triangles t JOIN statistics s USING (number)"
        }
        for table in sorted(set(tables) - {"file_hashes"}):
            result = connection.execute(named.get(table, f'SELECT * FROM "{table}"'))
            columns = [column[0] for column in result.description]
            rows = (dict(zip(columns, row, strict=True)) for row in result.fetchall())
            found[table] = Counter(_text_of(table, row) for row in rows if row.get("stage") != "rate")
    return found


def _text_of(table: str, row: Row) -> str:
    kept = {name: value for name, value in row.items() if name not in _MEASURED}
    for column in ("outputs", "manifest"):
        if column in kept:
            kept[column] = {name: value for name, value in json.loads(kept[column]).items() if name not in _MEASURED}
    if table == "statistics":
        del kept["number"]
    text = repr(sorted(kept.items()))
    return text if len(text) < 200 else f"{text[:150]}… {hashlib.sha256(text.encode()).hexdigest()}"


def _files(folder: Path) -> Counter[str]:
    found = Counter[str]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if not name.startswith(".curator/runs/"):
                found[f"{name}/"] = 1
        elif name.startswith(".curator/runs/"):
            if path.name not in ("run.json", "events.jsonl"):
                found[name] = 1
        elif name == ".curator/store.duckdb.wal":
            continue
        elif path.suffix in (".duckdb", ".lock", ".turn"):
            found[name] = 1
        elif path.name == "curator-manifest.json":
            text = json.dumps({k: v for k, v in json.loads(path.read_bytes()).items() if k not in _MEASURED})
            found[f"{name} {hashlib.sha256(text.encode()).hexdigest()}"] = 1
        else:
            found[f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}"] = 1
    return found


def differences(expected: State, found: State) -> list[str]:
    """List the rows and files that are lost, and those that are extra."""
    return [
        f"{name}: {kind} {count} × {row}"
        for name in sorted(expected.keys() | found.keys())
        for kind, rows in (
            ("lost", expected.get(name, Counter()) - found.get(name, Counter())),
            ("extra", found.get(name, Counter()) - expected.get(name, Counter())),
        )
        for row, count in rows.items()
    ]


def make_project(folder: Path) -> Path:
    """Make a project of a target and three tasks, with enough batches for signals between two commits."""
    from synthetic_project import make_model

    folder.mkdir(parents=True)
    make_model(folder / "model")
    (folder / "tasks").mkdir()
    for name, rows in (("target", 12), ("task0", 8), ("task1", 8), ("task2", 8)):
        lines = [{"prompt": f"{name} {n}: ", "completion": f"word {n * 7 % 5}"} for n in range(rows)]
        (folder / "tasks" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "curator.toml").write_text(
        '[project]\nname = "kills"\n[model]\nname_or_path = "model"\n[lora]\nr = 2\nalpha = 4\n'
        '[data]\ntasks = "tasks/*.jsonl"\ntarget = "target"\nvalidation = 0.3\nmax_length = 64\n'
        "[train]\nepochs = 2\nbatch_size = 4\nlearning_rate = 1e-3\n"
        "[gradients]\nprojection_dim = 16\npoints = [0.5, 1.0]\nbatch_tokens = 128\n[select]\nsubsets = 50\n"
    )
    return folder


class Stages:
    """Runs every stage undisturbed, and keeps its starting project, its duration and its result.

    Args:
        server: Runs the commands.
        project: A project without results.
        work: Folder for copies of the project.
        place: Folder in which every command runs. It is the same for all, because adapters store the model's path.
        last: The last stage to run.

    Raises:
        RuntimeError: An undisturbed stage failed.
    """

    def __init__(
        self, server: Server, project: Path, work: Path, *, place: Path | None = None, last: str = "verify"
    ) -> None:
        self._server, self._place = server, place or work / "trial"
        self.starts: dict[str, Path] = {}
        self.ends: dict[str, State] = {}
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, int] = {}
        here = project
        for stage, command in COMMANDS.items():
            self.starts[stage] = here
            there = copy(here, self._place)
            before = _size(there)
            code, self.seconds[stage], output = server.run(there, command)
            if code:
                raise RuntimeError(f"stage {stage} failed undisturbed: exit code {code}\n{output}")
            self.ends[stage] = server.state(there)
            self.bytes[stage] = max(_size(there) - before, 2**14)
            here = copy(there, work / f"after-{stage}")
            if stage == last:
                break

    def trial(self, stage: str, sign: signal.Signals, share: float, within: str = "") -> Row:
        """Send a signal after a share of the stage's time, resume the stage, and compare.

        A process has no signal handler before its first output and after its work. Such a process dies of the signal.

        Returns:
            `code`, `seconds` from the signal to the end of the process, `fell_in`, and `problems`.
        """
        folder, command = copy(self.starts[stage], self._place), COMMANDS[stage]
        # The rest of the stage takes a part of its time only.
        delay = share * self.seconds[stage] * (0.1 if within else 1.0)
        code, seconds, output = self._server.run(folder, command, sign=sign, delay=delay, within=within)
        fell = _last_event(folder)
        cut = self._server.state(folder)
        problems = []
        if sign == signal.SIGKILL and code not in (-signal.SIGKILL, 0):
            problems.append(f"killed with exit code {code}: {output[-2000:]}")
        left = differences(self.ends[stage], cut)
        has_handler = bool(left and output)
        if sign != signal.SIGKILL and code != 0 and (has_handler or code != -sign):
            if code != 130 or "run the same command again" not in output:
                problems.append(f"stopped with exit code {code}: {output[-2000:]}")
            if seconds > 5:
                problems.append(f"stopped after {seconds:.1f} s")
        if left:
            again, _, output = self._server.run(folder, command)
            if again:
                problems.append(f"resumed: exit code {again}: {output[-2000:]}")
            found = self._server.state(folder)
            problems += differences(self.ends[stage], found)
            lost = differences({name: rows for name, rows in cut.items() if name not in _REPLACED}, found)
            problems += [f"committed, then {problem}" for problem in lost if ": lost " in problem]
        # If nothing is left, do not run the command again: `verify --runs 1` would add another run.
        shutil.rmtree(folder)
        return {"code": code, "seconds": round(seconds, 3), "fell_in": fell, "problems": problems}


def _last_event(folder: Path) -> str:
    """Name the last event of the newest job of a project."""
    logs = sorted((folder / ".curator" / "runs").glob("*/events.jsonl"))
    lines = [line for line in logs[-1].read_text().splitlines(keepends=True) if line.endswith("\n")] if logs else []
    if not lines:
        return ""
    event = json.loads(lines[-1])
    return f"{event.get('stage', '')} {event['event']} {event.get('done', '')}".strip()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def copy(source: Path, there: Path) -> Path:
    """Replace a folder by a copy of a project."""
    shutil.rmtree(there, ignore_errors=True)
    return Path(shutil.copytree(source, there))


def main() -> None:
    """Run the missing trials, and write each row as soon as its trial ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", required=True, help="read earlier rows from FILE, and add rows"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="copy projects into DIR; default: a temporary folder")
    parser.add_argument(
        "--moments", type=int, default=50, help="number of trials of each stage and signal (default: 50)"
    )
    parser.add_argument(
        "--signals",
        nargs="+",
        default=["KILL"],
        choices=["KILL", "TERM", "INT"],
        help="signals to send (default: KILL)",
    )
    parser.add_argument(
        "--stages", nargs="+", default=list(COMMANDS), choices=list(COMMANDS), help="test these stages (default: all)"
    )
    parser.add_argument(
        "--within",
        default="",
        metavar="EVENT",
        help="wait for an event before each moment, for example 'train StageProgress' (default: do not wait)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    arguments = parser.parse_args()
    document: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"rows": []}
    rows: list[Row] = document["rows"]
    done = {(row["stage"], row["signal"], row["moment"]) for row in rows}
    header = provenance(" ".join(["python", *sys.argv]))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(arguments.work or temporary)
        server = Server(Path(temporary))
        shutil.rmtree(work / "project", ignore_errors=True)
        last = max(arguments.stages, key=list(COMMANDS).index)
        stages = Stages(server, make_project(work / "project"), work, last=last)
        draws = {
            (stage, name): random.Random(f"{arguments.seed} {stage} {name}")
            for stage in arguments.stages
            for name in arguments.signals
        }
        for moment in range(arguments.moments):
            for (stage, name), draw in draws.items():
                share = draw.random()
                if (stage, name, moment) in done:
                    continue
                row = stages.trial(stage, signal.Signals[f"SIG{name}"], share, arguments.within)
                told = {"stage": stage, "signal": name, "moment": moment, "share": round(share, 4)}
                rows.append({**told, "load": round(os.getloadavg()[0]), **row})
                if row["problems"]:
                    print(json.dumps(rows[-1], indent=1), flush=True)
                _write(arguments.json, rows, stages, header)
    for stage in COMMANDS:
        mine = [row for row in rows if row["stage"] == stage]
        print(f"{stage:12} {len(mine)} moments, {sum(bool(row['problems']) for row in mine)} with problems")


def _write(path: Path, rows: list[Row], stages: Stages, header: dict[str, Any]) -> None:
    document = {
        **header,
        "not_compared": EXCLUDED,
        "undisturbed_seconds": {stage: round(seconds, 3) for stage, seconds in stages.seconds.items()},
        "rows": rows,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()

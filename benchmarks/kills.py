"""Kill every stage at random moments, run it again, and compare with a run that nobody disturbed.

    python benchmarks/kills.py --json FILE [--work DIR] [--moments 50] [--signals KILL] [--stages train …]

Each trial copies a tiny project that is ready for a stage, runs the stage's command in a process of its own, sends it a
signal after a seeded share of the time that the undisturbed command takes, runs the command again, and compares what
the store holds, every file and its bytes. Processes are forked from one that has imported everything, so that the
moments fall into the work and not into imports. Stages commit after every batch here, as they do after ten seconds, so
that a tiny project has as many moments between commits as a large one.

Rows are kept as they come; the same command again goes on where it was.
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

EXCLUDED = {
    "created, made, applied": "the time of day",
    "seconds": "measured time",
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
"""In order: each stage begins where the undisturbed one before it has ended."""
_IMPORTED = (
    *("torch", "transformers", "peft", "accelerate", "safetensors.torch", "pyarrow", "scipy.stats", "datasets"),
    *(
        "transformers.trainer",
        "transformers.models.llama.modeling_llama",
        "curator.project.project",
        "curator.select.selections",
    ),
    *(
        "curator.verify.measure",
        "curator.verify.comparison",
        "curator.project.status",
        "curator.export",
        "curator.cli.app",
    ),
    *("curator.cli.tables", "curator.core.progress", "curator.workspace.store.tables"),
)
# An artifact is replaced by what is known later of the same key.
_REPLACED = {"files", "artifacts"}
_TIMES = {"created", "made", "applied", "seconds"}

State = dict[str, Counter[str]]
Row = dict[str, Any]


class Server:
    """Runs commands in processes that are forked from this one, which has imported everything and started no thread.

    Args:
        words: Folder for what they print.
    """

    def __init__(self, words: Path) -> None:
        self._words = words
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
        self, folder: Path, command: list[str], *, sign: signal.Signals | None = None, delay: float = 0.0
    ) -> tuple[int, float, str]:
        """Run a command in a project; its exit code, its seconds (after the signal, if there was one) and its words."""
        words = self._words / "words"
        words.unlink(missing_ok=True)
        process = self._fork.Process(target=_run_command, args=(folder, command, words))
        began = time.monotonic()
        process.start()
        if sign is not None:
            process.join(delay)
            began = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, sign)
        process.join()
        seconds = time.monotonic() - began
        said = words.read_text(encoding="utf-8", errors="replace") if words.exists() else ""
        return process.exitcode or 0, seconds, said

    def state(self, folder: Path) -> State:
        """What a project holds: each row of each table, and each file."""
        answer = self._words / "state"
        process = self._fork.Process(target=_write_state, args=(folder, answer))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{folder}: its state cannot be read")
        found: dict[str, dict[str, int]] = json.loads(answer.read_text())
        return {name: Counter(rows) for name, rows in found.items()}


def _run_command(folder: Path, command: list[str], words: Path) -> None:
    from curator.cli.main import main

    # Before the command listens, a signal does what it does to a program that has only begun to start.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    out = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    sys.argv = ["curator", *command]
    main()


def _write_state(folder: Path, answer: Path) -> None:
    answer.write_text(json.dumps(_tables(folder) | {"files": _files(folder)}))


def _tables(folder: Path) -> State:
    from curator.workspace.store.tables import Store

    found: State = {}
    with Store(folder / ".curator" / "store.duckdb").read() as connection:
        if connection is None:
            return found
        tables = [row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        # Sums are numbered as they come; what they are found by is compared.
        named = {
            "triangles": "SELECT s.set_key, s.content, t.* EXCLUDE (number)"
            " FROM triangles t JOIN statistics s USING (number)"
        }
        for table in sorted(set(tables) - {"file_hashes"}):
            result = connection.execute(named.get(table, f'SELECT * FROM "{table}"'))
            columns = [column[0] for column in result.description]
            rows = (dict(zip(columns, row, strict=True)) for row in result.fetchall())
            found[table] = Counter(_text_of(table, row) for row in rows)
    return found


def _text_of(table: str, row: Row) -> str:
    kept = {name: value for name, value in row.items() if name not in _TIMES}
    for column in ("outputs", "manifest"):
        if column in kept:
            kept[column] = {name: value for name, value in json.loads(kept[column]).items() if name not in _TIMES}
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
            text = json.dumps({k: v for k, v in json.loads(path.read_bytes()).items() if k not in _TIMES})
            found[f"{name} {hashlib.sha256(text.encode()).hexdigest()}"] = 1
        else:
            found[f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}"] = 1
    return found


def differences(expected: State, found: State) -> list[str]:
    """What is lost and what is there beside, in words."""
    return [
        f"{name}: {what} {count} × {row}"
        for name in sorted(expected.keys() | found.keys())
        for what, rows in (
            ("lost", expected.get(name, Counter()) - found.get(name, Counter())),
            ("beside", found.get(name, Counter()) - expected.get(name, Counter())),
        )
        for row, count in rows.items()
    ]


def make_project(folder: Path) -> Path:
    """A project of a target and three tasks, with enough batches for a moment to fall between them."""
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
    """Where each stage begins, how long it takes, and what an undisturbed run of it leaves.

    Args:
        server: Runs the commands.
        project: A project of which nothing is made yet.
        work: For copies of it.
        place: Where every command runs; the adapters' files say where the model is, so it is one for all.
        last: The last stage that is asked for.
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
            code, self.seconds[stage], said = server.run(there, command)
            if code:
                raise RuntimeError(f"{stage}: exit code {code}\n{said}")
            self.ends[stage] = server.state(there)
            self.bytes[stage] = max(_size(there) - before, 2**14)
            here = copy(there, work / f"after-{stage}")
            if stage == last:
                break

    def trial(self, stage: str, sign: signal.Signals, share: float) -> Row:
        """Send a signal after a share of the stage's time, run it again, and compare.

        Returns:
            `code` and `seconds` until the process had ended, and `problems`, which should be none. A process that has
            said nothing yet, or has done it all, may not be listening: it ends by the signal itself.
        """
        folder, command = copy(self.starts[stage], self._place), COMMANDS[stage]
        code, seconds, said = self._server.run(folder, command, sign=sign, delay=share * self.seconds[stage])
        fell = _last_event(folder)
        cut = self._server.state(folder)
        problems = []
        if sign == signal.SIGKILL and code not in (-signal.SIGKILL, 0):
            problems.append(f"killed with exit code {code}: {said[-2000:]}")
        left = differences(self.ends[stage], cut)
        listening = bool(left and said)
        if sign != signal.SIGKILL and code != 0 and (listening or code != -sign):
            if code != 130 or "run the same command again" not in said:
                problems.append(f"stopped with exit code {code}: {said[-2000:]}")
            if seconds > 5:
                problems.append(f"stopped after {seconds:.1f} s")
        if left:
            again, _, said = self._server.run(folder, command)
            if again:
                problems.append(f"run again: exit code {again}: {said[-2000:]}")
            found = self._server.state(folder)
            problems += differences(self.ends[stage], found)
            lost = differences({name: rows for name, rows in cut.items() if name not in _REPLACED}, found)
            problems += [f"committed, then {problem}" for problem in lost if ": lost " in problem]
        # Else all was done, and only its end was not seen: `verify --runs 1` would rightly add another.
        shutil.rmtree(folder)
        return {"code": code, "seconds": round(seconds, 3), "fell_in": fell, "problems": problems}


def _last_event(folder: Path) -> str:
    """What the newest run of a project said last."""
    logs = sorted((folder / ".curator" / "runs").glob("*/events.jsonl"))
    lines = [line for line in logs[-1].read_text().splitlines(keepends=True) if line.endswith("\n")] if logs else []
    if not lines:
        return ""
    event = json.loads(lines[-1])
    return f"{event.get('stage', '')} {event['event']} {event.get('done', '')}".strip()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def copy(source: Path, there: Path) -> Path:
    """A copy of a project, in place of an earlier one."""
    shutil.rmtree(there, ignore_errors=True)
    return Path(shutil.copytree(source, there))


def main() -> None:
    """Run the trials that are missing, and write rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True, help="where rows are, and go")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for copies of the project; default: a temporary one")
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--signals", nargs="+", default=["KILL"], choices=["KILL", "TERM", "INT"])
    parser.add_argument("--stages", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    document: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"rows": []}
    rows: list[Row] = document["rows"]
    done = {(row["stage"], row["signal"], row["moment"]) for row in rows}
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
                row = stages.trial(stage, signal.Signals[f"SIG{name}"], share)
                rows.append({"stage": stage, "signal": name, "moment": moment, "share": round(share, 4), **row})
                if row["problems"]:
                    print(json.dumps(rows[-1], indent=1), flush=True)
                _write(arguments.json, rows, stages)
    for stage in COMMANDS:
        mine = [row for row in rows if row["stage"] == stage]
        print(f"{stage:12} {len(mine)} moments, {sum(bool(row['problems']) for row in mine)} with problems")


def _write(path: Path, rows: list[Row], stages: Stages) -> None:
    document = {
        "command": "python benchmarks/kills.py --json benchmarks/results/kills.json --signals KILL TERM INT",
        "versions": {name: version(name) for name in ("duckdb", "torch", "transformers")},
        "not_compared": EXCLUDED,
        "undisturbed_seconds": {stage: round(seconds, 3) for stage, seconds in stages.seconds.items()},
        "rows": rows,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()

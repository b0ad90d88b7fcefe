"""Let every stage run into a full disk, make room, run it again, and compare with a run that nobody disturbed.

    python tests/stress/full_disk.py --json FILE [--work DIR] [--moments 20] [--stages train …]

As kills.py, but for the disturbance: the project lies on a small file system in memory of which a seeded share of what
the stage needs is free. A stage that does not get by with it must end with exit code 3 and say so, and leave no half
written file. Mounting needs root.
"""

import argparse
import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kills import COMMANDS, EXCLUDED, Row, Server, Stages, copy, differences, make_project

SIZE = 64 * 2**20


class FullDisk:
    """Runs stages on a disk with little room.

    Args:
        server: Runs the commands.
        stages: Where each begins and what it leaves.
        disk: A mounted file system, on which the project's place is `trial`.
    """

    def __init__(self, server: Server, stages: Stages, disk: Path) -> None:
        self._server, self._stages, self._disk = server, stages, disk
        self.needs: dict[str, int] = {}

    def trial(self, stage: str, free: int) -> Row:
        """Run a stage with so many bytes free, make room, run it again, and compare."""
        folder = copy(self._stages.starts[stage], self._disk / "trial")
        ballast = self._disk / "ballast"
        with ballast.open("wb") as file:
            left = shutil.disk_usage(self._disk).free - free
            for _ in range(0, max(left, 0), 4096):
                file.write(bytes(4096))
        code, seconds, said = self._server.run(folder, COMMANDS[stage])
        ballast.unlink()
        problems = []
        if code not in (0, 3):
            problems.append(f"exit code {code}: {said[-2000:]}")
        if code == 3 and "full" not in said and "No space" not in said:
            problems.append(f"it does not say that the disk is full: {said[-500:]}")
        problems += [f"half written: {path.relative_to(folder)}" for path in half_written(folder)]
        again, _, words = self._server.run(folder, COMMANDS[stage])
        if again:
            problems.append(f"run again: exit code {again}: {words[-2000:]}")
        problems += differences(self._stages.ends[stage], self._server.state(folder))
        errors = [line for line in said.splitlines() if line.startswith("error")]
        shutil.rmtree(folder)
        return {"free": free, "code": code, "seconds": round(seconds, 3), "said": errors[-1:], "problems": problems}


def half_written(folder: Path) -> list[Path]:
    """What should not be there after a command has ended by itself."""
    return [
        path
        for path in folder.rglob("*")
        if "partial" in path.name or (path.name.startswith("checkpoint-") and not (path / "complete").exists())
    ]


@contextmanager
def mounted(place: Path, size: int) -> Iterator[Path]:
    """A file system in memory of so many bytes."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def main() -> None:
    """Run the trials that are missing, and write rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True, help="where rows are, and go")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--stages", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows: list[Row] = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    done = {(row["stage"], row["moment"]) for row in rows}
    with tempfile.TemporaryDirectory() as temporary, mounted(Path(temporary) / "disk", SIZE) as disk:
        server = Server(Path(temporary))
        project = make_project(Path(temporary) / "project")
        stages = Stages(server, project, Path(temporary), place=disk / "trial")
        full = FullDisk(server, stages, disk)
        for stage in arguments.stages:
            rng = random.Random(f"{arguments.seed} {stage}")
            need = stages.bytes[stage]
            for moment in range(arguments.moments):
                free = int(need * rng.random() * 1.2)
                if (stage, moment) in done:
                    continue
                rows.append({"stage": stage, "moment": moment, **full.trial(stage, free)})
                if rows[-1]["problems"]:
                    print(json.dumps(rows[-1], indent=1), flush=True)
                document: dict[str, Any] = {
                    "command": "python tests/stress/full_disk.py --json benchmarks/results/full_disk.json",
                    "not_compared": EXCLUDED,
                    "needed_bytes": stages.bytes,
                    "rows": rows,
                }
                arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for stage in COMMANDS:
        mine = [row for row in rows if row["stage"] == stage]
        print(f"{stage:12} {len(mine)} moments, {sum(bool(row['problems']) for row in mine)} with problems")


if __name__ == "__main__":
    main()

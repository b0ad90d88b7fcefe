"""Fill the disk during every stage, free it, resume the stage, and compare with an undisturbed run.

    python tests/stress/full_disk.py --json FILE [--moments 20] [--stages train …]

The script works like kills.py, with a full disk instead of a signal. The project is on a small file system in memory.
Its free space is a seeded share of the bytes that the stage needs. A stage that needs more must exit with code 3,
report the full disk, and leave no partial file. Mounting the file system needs root.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kills import COMMANDS, EXCLUDED, Row, Server, Stages, copy, differences, make_project
from measured import provenance

SIZE = 64 * 2**20


class FullDisk:
    """Runs stages on a disk with little free space.

    Args:
        server: Runs the commands.
        stages: The starting project and the expected result of each stage.
        disk: A mounted file system. Each trial uses its folder `trial`.
    """

    def __init__(self, server: Server, stages: Stages, disk: Path) -> None:
        self._server, self._stages, self._disk = server, stages, disk
        self.needs: dict[str, int] = {}

    def trial(self, stage: str, free: int) -> Row:
        """Run a stage with little free space, free the disk, resume the stage, and compare.

        Args:
            stage: Name of the stage.
            free: Free space in bytes.
        """
        folder = copy(self._stages.starts[stage], self._disk / "trial")
        ballast = self._disk / "ballast"
        with ballast.open("wb") as file:
            left = shutil.disk_usage(self._disk).free - free
            for _ in range(0, max(left, 0), 4096):
                file.write(bytes(4096))
        code, seconds, output = self._server.run(folder, COMMANDS[stage])
        ballast.unlink()
        problems = []
        if code not in (0, 3):
            problems.append(f"exit code {code}: {output[-2000:]}")
        if code == 3 and not any(words in output for words in ("full", "No space", "disk space")):
            problems.append(f"does not report the full disk: {output[-500:]}")
        problems += [f"partial file: {path.relative_to(folder)}" for path in partial_files(folder)]
        # If nothing is left, do not run the command again: `verify --runs 1` would add another run.
        if differences(self._stages.ends[stage], self._server.state(folder)):
            again, _, output_again = self._server.run(folder, COMMANDS[stage])
            if again:
                problems.append(f"resumed: exit code {again}: {output_again[-2000:]}")
            problems += differences(self._stages.ends[stage], self._server.state(folder))
        elif stage == "verify" and "measured" not in output.partition("target: measured against")[2]:
            problems.append(f"made all runs, and printed no report: {output[-2000:]}")
        errors = [line for line in output.splitlines() if line.startswith("error")]
        shutil.rmtree(folder)
        return {"free": free, "code": code, "seconds": round(seconds, 3), "said": errors[-1:], "problems": problems}


def partial_files(folder: Path) -> list[Path]:
    """Return the files that a command must remove before it exits without a signal."""
    return [
        path
        for path in folder.rglob("*")
        if "partial" in path.name or (path.name.startswith("checkpoint-") and not (path / "complete").exists())
    ]


@contextmanager
def mounted(place: Path, size: int) -> Iterator[Path]:
    """Mount a file system in memory, and unmount it at the end.

    Args:
        place: The mount point.
        size: Size in bytes.
    """
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def main() -> None:
    """Run the missing trials, and write each row as soon as its trial ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", required=True, help="read earlier rows from FILE, and add rows"
    )
    parser.add_argument("--moments", type=int, default=20, help="number of trials of each stage (default: 20)")
    parser.add_argument(
        "--stages", nargs="+", default=list(COMMANDS), choices=list(COMMANDS), help="test these stages (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the free space (default: 0)")
    arguments = parser.parse_args()
    rows: list[Row] = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    done = {(row["stage"], row["moment"]) for row in rows}
    header = provenance("python tests/stress/full_disk.py --json benchmarks/results/full_disk.json")
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
                found = full.trial(stage, free)
                rows.append({"stage": stage, "moment": moment, "load": round(os.getloadavg()[0]), **found})
                if rows[-1]["problems"]:
                    print(json.dumps(rows[-1], indent=1), flush=True)
                document: dict[str, Any] = {
                    **header,
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

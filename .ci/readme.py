"""Read from README.md the two set-up commands, and the output that the first one must print.

python .ci/readme.py select            # print the command that installs curator and selects tasks
python .ci/readme.py test              # print the command that installs curator and runs the tests
python .ci/readme.py compare OUTPUT    # compare a file with the output that README.md shows, and fail if they differ

Other processors add numbers in another order. So numbers with decimals may differ by 0.0002. All else must be equal.
"""

import difflib
import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
_BEGINNING = "python3 -m venv .venv"
_ENDING = {"select": "curator select -p sample_data", "test": "pytest"}
_FIRST_WORD_OF_OUTPUT = "wordnet-topics:"
_DECIMAL = re.compile(r"[+-]?\d+\.\d+")
# Two units of the last digit, and a little for the rounding of their difference.
_TOLERANCE = 0.00021


def command(text: str, which: str) -> str:
    """Return one of the two set-up commands.

    Args:
        text: Text of README.md.
        which: `select` or `test`.

    Raises:
        ValueError: README.md does not hold exactly one such command.
    """
    lines: list[str] = [block.strip() for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    found = [line for line in lines if line.startswith(_BEGINNING) and line.endswith(_ENDING[which])]
    if len(found) != 1 or "\n" in found[0]:
        raise ValueError(f"not exactly one line in README.md from {_BEGINNING!r} to {_ENDING[which]!r}: {found}")
    return found[0]


def shown_output(text: str) -> list[str]:
    """Return the lines of output that README.md shows for the first command.

    Args:
        text: Text of README.md.

    Raises:
        ValueError: README.md does not hold exactly one block of output.
    """
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = [block for block in blocks if block.startswith(_FIRST_WORD_OF_OUTPUT)]
    if len(found) != 1:
        raise ValueError(f"not exactly one block in README.md that begins with {_FIRST_WORD_OF_OUTPUT!r}: {len(found)}")
    return _lines(found[0])


def equal_lines(shown: list[str], printed: list[str]) -> bool:
    """Return whether lines are equal, apart from small differences of numbers with decimals."""
    if [_DECIMAL.sub("#", line) for line in shown] != [_DECIMAL.sub("#", line) for line in printed]:
        return False
    pairs = zip(_DECIMAL.findall("\n".join(shown)), _DECIMAL.findall("\n".join(printed)), strict=True)
    return all(abs(float(one) - float(other)) <= _TOLERANCE for one, other in pairs)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def main(words: list[str]) -> int:
    """Run one of the three subcommands, and return the exit code."""
    text = README.read_text(encoding="utf-8")
    if words in (["select"], ["test"]):
        print(command(text, words[0]))
        return 0
    if len(words) == 2 and words[0] == "compare":
        shown, printed = shown_output(text), _lines(Path(words[1]).read_text(encoding="utf-8"))
        if equal_lines(shown, printed):
            same = "equals" if shown == printed else "equals, apart from rounding,"
            print(f"The output of the first command {same} the output in README.md.")
            return 0
        print("error: the output of `curator select -p sample_data` differs from README.md", file=sys.stderr)
        print(*difflib.unified_diff(shown, printed, "README.md", "printed", lineterm=""), sep="\n", file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

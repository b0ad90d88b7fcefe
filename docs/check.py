"""Check the pages at the top level and in docs: links, anchors, generated pages and commands.

python docs/check.py            # check everything, which runs every command of the pages
python docs/check.py --links    # check links and generated pages only, in a second
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# The terminal interface ends when a user ends it. Its own tests drive it in a terminal.
_INTERACTIVE = "curator tui"
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """Return the pages at the top level, and every page of docs."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """Return the curator commands in the bash blocks of a page, in order, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [" ".join(line.partition(" #")[0].split()) for line in lines]
    return [line for line in found if re.match(r"(\w+ .* \| )?curator ", line) and not line.startswith(_INTERACTIVE)]


def broken_links(page: Path) -> Iterator[str]:
    """Yield the relative links of a page without a file or an anchor as their target.

    A page of docs must not link to a file outside docs, because the site does not contain the file.
    """
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"file not found: {link}"
        elif page.is_relative_to(DOCS) and not target.is_relative_to(DOCS):
            yield f"file outside docs: {link}"
        elif anchor and anchor not in _anchors(target):
            yield f"anchor not found: {link}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchors.add(re.sub(r"[^\w\- ]", "", shown).strip().replace(" ", "-"))
    return anchors


def _run(*words: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, check=False).returncode


def main(words: list[str]) -> int:
    """Run the checks and return the exit code."""
    if words not in ([], ["--links"]):
        print(__doc__, file=sys.stderr)
        return 2
    found = [f"{page.relative_to(ROOT)}: {problem}" for page in pages() for problem in broken_links(page)]
    print(*found, sep="\n", file=sys.stderr, end="\n" if found else "")
    failed = bool(found) or bool(_run(str(DOCS / "make_reference.py"), "--check"))
    if not words:
        failed |= bool(_run("-m", "pytest", "-q", "-n", "0", *map(str, (ROOT / "tests").rglob("test_docs.py"))))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

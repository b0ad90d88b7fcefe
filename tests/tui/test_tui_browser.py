"""The served interface in a real browser: it fills the window, follows its size, and survives a reload."""

import asyncio
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browsing, needs_chromium
from conftest import pair_rows, write_rows
from PIL import Image
from served import Server, serving


@pytest.fixture
def server(tmp_path: Path, tiny_llama_folder: Path) -> Iterator[Server]:
    folder = tmp_path / "project"
    write_rows(folder / "tasks" / "target.jsonl", pair_rows("target", 6))
    (folder / "curator.toml").write_text(
        f'[model]\nname_or_path = {json.dumps(str(tiny_llama_folder))}\n[data]\ntasks = "tasks/*"\ntarget = "target"\n'
    )
    with serving(folder) as made:
        yield made


async def _cells(browser: Browser) -> tuple[int, int]:
    """Return the columns and rows that fit into the window, by the size of a cell."""
    code = (
        "(() => { const row = document.querySelector('.xterm-rows > div').getBoundingClientRect();"
        " const rows = document.querySelectorAll('.xterm-rows > div').length;"
        " return JSON.stringify([rows, row.height, row.width, innerHeight, innerWidth]); })()"
    )
    found = await browser.call("Runtime.evaluate", expression=code, returnByValue=True)
    rows, height, width, inner_height, inner_width = json.loads(found["result"]["value"])
    assert inner_height - height < rows * height <= inner_height, "the rows fill the window"
    assert inner_width - 40 < width <= inner_width, "the columns fill the window"
    return rows, round(width)


def _whole(shown: str) -> bool:
    """Return whether a screen is complete: its last line is the footer, and no other line repeats the footer."""
    lines = shown.split("\n")
    return "reading" not in shown and shown.count("? help") == 1 and "? help" in lines[-1]


async def _settled(browser: Browser) -> str:
    """Wait until the screen is complete and does not change. Return it."""
    before = ""
    for _ in range(60):
        # Other processes change the free space of the disk.
        shown = re.sub(r"[\d.]+GB", "", await browser.until(_whole))
        if shown == before:
            return shown
        before = shown
        await asyncio.sleep(0.7)
    raise AssertionError(before)


def _used(picture: bytes) -> tuple[float, float]:
    """Return the right and the lower edge of everything that is not background, as shares of the window."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    text = image.point(lambda value: 255 if value > 100 else 0).convert("L")
    box = text.getbbox()
    assert box is not None
    return box[2] / image.width, box[3] / image.height


@needs_chromium
def test_serve_browser_layout_fits_two_sizes_of_window(server: Server, tmp_path: Path) -> None:
    async def main() -> None:
        async with browsing(tmp_path) as browser:
            await browser.resize(1400, 850)
            await browser.open(server.url)
            first, size = await _settled(browser), await _cells(browser)
            right, lower = _used(await browser.screenshot())
            assert right > 0.9
            assert lower > 0.95
            await browser.resize(800, 500)
            await browser.until(lambda shown: len(shown.split("\n")) < size[0])
            small, small_size = await _settled(browser), await _cells(browser)
            assert small_size[0] < size[0]
            assert small_size[1] < size[1]
            right, lower = _used(await browser.screenshot())
            assert right > 0.9
            assert lower > 0.95
            assert small != first
            await browser.resize(1400, 850)
            await browser.until(lambda shown: len(shown.split("\n")) == size[0])
            assert await _settled(browser) == first, "the same layout as at the start"

    asyncio.run(main())


@needs_chromium
def test_serve_browser_reload_finds_same_session(server: Server, tmp_path: Path) -> None:
    async def main() -> None:
        async with browsing(tmp_path) as browser:
            await browser.open(server.url)
            await _settled(browser)
            (child,) = server.sessions()
            await browser.focus()
            await browser.press("2")
            there = await browser.until(lambda shown: "target" in shown)
            assert "target" in there
            await browser.call("Page.reload")
            await asyncio.sleep(0.5)
            await browser.until(lambda shown: "target" in shown)
            assert server.sessions() == [child]

    asyncio.run(main())

"""The pages of a layer of 2,048 neurons, or of any other number: how long they take to write, and how headless Chromium
shows them from disk.

    python benchmarks/pages.py --json
    python benchmarks/pages.py --json --neurons 100000 --copies

Makes an atlas of pictures with the spectrum of photographs, its statistics with targets of the shapes of resnet50's
layer4 (of more than 8,192 neurons of one small node, as a dictionary's), names, metrics, and shards of as many
different photographs as asked for; then writes the pages with the command, twice, and opens them. Maps are left out:
they take a network, whose time is not the pages'. ``--copies`` writes what is told of the layer only, beside copies of
128 pictures: a minute instead of hours, and the same to open; ``layer_cpu_seconds`` is what that took.

``write_seconds``, ``write_cpu_seconds`` and ``write_megabytes`` (peak memory) are of the whole command,
``update_seconds`` of a second run that finds nothing changed. Of each of these: ``first``, the wall from navigation;
``search``, a word of the names typed; ``sort`` by a metric, and ``resort`` the other way round; ``photograph``, the
neurons that one excites; ``neuron``, a neuron's own page: ``_ms`` is the time until every picture in the window is
decoded, ``_cpu_ms`` what the page's thread computed of it, ``_bytes`` what was read for it. A search waits 90 ms for
further letters. ``atlas_cpu_seconds`` wrote the stores, whose pictures are made up, in the flows' own layout; of each
store, and of the pages, there are the number of files, the most of a folder, and the bytes.

``longest_frame_ms`` is the longest interval between two frames, or task of the page's thread in the
trace, while the wall scrolls by 150 pixels a frame, in the worst of some tries, all of which are listed;
``longest_jump_ms`` the same while it jumps to 24 places all over the wall; ``longest_task_cpu_ms`` is what a task
itself computed while scrolling. On a machine that does other things, too, only what was computed is a measure.
``size_ratio`` is all bytes over those of image files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

from benchmarks.page_copies import SHOWN, write_copies
from benchmarks.page_material import LAYER, WORDS, make_atlas, words
from stores.pages.folder import SITE_FOLDER

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSER = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
IMAGES = {".webp", ".jpg", ".png"}

WAIT_MS = 1_800_000
"""For anything to appear: what a busy machine takes is no error."""

SETTLED = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const there = ".wall[aria-busy='false'] .tile, .empty:not([hidden]), .neuron .frame img";
  while (!document.querySelector(there)) await frame();
  const inside = (node) => {
    const box = node.getBoundingClientRect();
    return box.top < innerHeight && box.bottom > 0;
  };
  const tiles = [...document.querySelectorAll('.wall .tile')].filter(inside);
  const files = new Set(tiles.flatMap((tile) => [...tile.style.backgroundImage.matchAll(/url\\("([^"]+)"\\)/g)]
    .map((found) => found[1])));
  const images = [...document.querySelectorAll('.neuron img')].filter(inside);
  await Promise.all([...images, ...[...files].map((file) => Object.assign(new Image(), {src: file}))]
    .map((image) => image.decode()));
  await frame();
  return [performance.now(), tiles.length, document.getElementById('count')?.textContent || ''];
}"""
TYPE = """async (text) => {
  const box = document.getElementById('search');
  const before = document.getElementById('count').textContent;
  box.value = text;
  box.dispatchEvent(new Event('input'));
  while (document.getElementById('count').textContent === before) await new Promise(requestAnimationFrame);
}"""
ORDER = """(label) => {
  const box = document.querySelector("[aria-label='Order by']");
  box.value = [...box.options].find((option) => option.textContent === label).value;
  box.dispatchEvent(new Event('change'));
}"""
TURN = "() => document.querySelector(\"[aria-label='Descending']\").click()"
GO = "(hash) => { location.hash = hash; }"
FRAMES = """async ([step, count]) => {
  const frames = [];
  scrollTo(0, 0);
  const end = document.documentElement.scrollHeight - innerHeight;
  let last = await new Promise((done) => requestAnimationFrame(done));
  for (let i = 1; i <= count && scrollY < end; i += 1) {
    scrollTo(0, step ? i * step : (end * i) / count);
    const now = await new Promise((done) => requestAnimationFrame(done));
    frames.push(now - last);
    last = now;
  }
  return frames;
}"""


def main() -> None:
    """Make, write, open, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=2048)
    parser.add_argument("--side", type=int, default=224, help="side of a picture in pixels")
    parser.add_argument("--photos", type=int, default=6000, help="different photographs in the shards")
    parser.add_argument("--no-references", action="store_true", help="leave the photographs out")
    parser.add_argument("--copies", action="store_true", help="copies of a few pictures; nothing is timed but pages")
    parser.add_argument("--keep", type=Path, help="folder for atlas and pages; used again if it is there")
    parser.add_argument("--tries", type=int, default=3, help="times that the pages are opened")
    parser.add_argument("--json", action="store_true", help="figures only, as JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        if asked.copies:
            shutil.rmtree(folder / "pages", ignore_errors=True)
            figures: dict[str, float] = {"neurons": asked.neurons, **write_copies(folder / "pages", asked.neurons)}
            figures |= _worst(folder / "pages" / "index.html", asked.tries)
        else:
            begun = time.process_time()
            atlas = make_atlas(folder, asked.neurons, asked.side, asked.photos)
            figures = {"atlas_cpu_seconds": round(time.process_time() - begun, 1), **on_disk(folder)}
            figures |= measure(atlas, folder / "pages", asked.no_references, asked.neurons, asked.tries)
    if asked.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<22} {value:,.2f}" if isinstance(value, float) else f"{name:<22} {value:,}")


def on_disk(folder: Path) -> dict[str, float]:
    """Files and bytes of the stores in ``folder``."""
    found: dict[str, float] = {}
    for kind in ("statistics", "atlas"):
        [store] = folder.glob(f"{kind}-*.zarr")
        files = [path for path in store.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        found |= {f"{kind}_files": len(files), f"{kind}_megabytes": round(size / 1e6, 1)}
        found[f"{kind}_files_of_a_folder"] = max(Counter(path.parent for path in files).values())
    return found


def measure(atlas: Path, out: Path, no_references: bool, neurons: int, tries: int) -> dict[str, float | int]:
    """All figures of one atlas; ``out`` is made anew."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "flows.cli.main", "pages", str(atlas), "--out", str(out), "--no-maps"]
    command += ["--no-references"] if no_references else []
    (written, cpu), (updated, _) = (_timed(command) for _ in range(2))
    figures: dict[str, float | int] = {
        "neurons": neurons, "write_seconds": written, "write_cpu_seconds": cpu, "update_seconds": updated,
    }  # fmt: skip
    # kilobytes on Linux
    figures["write_megabytes"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    files = [path for path in out.rglob("*") if path.is_file()]
    sizes = {path: path.stat().st_size for path in files}
    images = sum(size for path, size in sizes.items() if path.suffix in IMAGES)
    figures |= _worst(out / "index.html", tries) | {
        "files": len(files),
        "files_of_a_folder": max(Counter(path.parent for path in files).values()),
        "total_bytes": sum(sizes.values()),
        "size_ratio": round(sum(sizes.values()) / images, 4),
    }
    return figures


def _worst(index: Path, tries: int) -> dict[str, float | int]:
    """A bound on every frame is shown by the worst try alone; run it on an idle machine."""
    opened = [_opened(index) for _ in range(tries)]
    worst = max(opened, key=lambda tried: tried["longest_frame_ms"])
    return worst | {f"longest_frame_ms_of_try_{number}": one["longest_frame_ms"] for number, one in enumerate(opened)}


def _timed(command: list[str]) -> tuple[float, float]:
    """Seconds, and seconds of processor time."""
    begun, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    root = str(Path(__file__).parents[1])
    subprocess.run(command, check=True, cwd=root, env={**os.environ, "PYTHONPATH": root}, capture_output=True)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(time.monotonic() - begun, 1), round(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, 1)


class _Opened:
    """The pages in a browser, and what they read and computed for each thing that was done."""

    def __init__(self, page: Page, index: Path) -> None:
        self.page, self.index, self.figures = page, index, dict[str, float | int]()
        self._read: list[Path] = []
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: self._read.append(Path(unquote(urlsplit(request.url).path))))
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def _computed(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return next(float(one["value"]) * 1000 for one in metrics if one["name"] == "TaskDuration")

    def step(self, name: str, act: Callable[[], object]) -> str:
        """Do something and wait until all is shown; returns how many neurons the wall says it shows."""
        before, done, first = self._computed(), len(self._read), name == "first"
        begun = 0.0 if first else float(self.page.evaluate("performance.now()"))
        act()
        shown, tiles, count = self.page.evaluate(SETTLED)
        files = set(self._read[done:]) - set(self._read[:done])
        self.figures |= {
            f"{name}_ms": round(shown - begun, 1),
            f"{name}_cpu_ms": round(self._computed() - (0 if first else before), 1),
            f"{name}_bytes": sum(path.stat().st_size for path in files),
        }
        if first:
            self.figures["first_pictures"] = tiles
        return str(count)


def _opened(index: Path) -> dict[str, float | int]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS, timeout=WAIT_MS)
        # the first page of a browser pays for the browser's own start
        browser.new_page().goto("about:blank")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        opened = _Opened(page, index)
        opened.step("first", lambda: page.goto(index.as_uri(), wait_until="commit"))
        browser.start_tracing(page=page)
        frames = page.evaluate(FRAMES, [150, 240])
        trace = json.loads(browser.stop_tracing())
        jumps = page.evaluate(FRAMES, [0, 24])
        page.evaluate("scrollTo(0, 0)")
        word = str(words(WORDS)[1])[:3]
        found = opened.step("search", lambda: page.evaluate(TYPE, word))
        opened.figures["search_found"] = int((found or "0").split()[0].replace(",", ""))
        page.evaluate(TYPE, "")
        opened.step("sort", lambda: page.evaluate(ORDER, "Selectivity"))
        opened.step("resort", lambda: page.evaluate(TURN))
        if has_photographs(index):
            opened.step("photograph", lambda: page.evaluate(TYPE, "image:photo000007"))
        opened.step("neuron", lambda: (page.evaluate(GO, f"#/0/{LAYER}/{SHOWN}"), page.wait_for_selector(".neuron")))
        browser.close()
    ran = [event for event in trace["traceEvents"] if _is_task(event, trace)]
    tasks = [event["dur"] / 1000 for event in ran]
    return opened.figures | {
        "longest_frame_ms": round(max([*frames, *tasks]), 1),
        "longest_task_cpu_ms": round(max(event.get("tdur", 0) for event in ran) / 1000, 1),
        "mean_frame_ms": round(sum(frames) / len(frames), 1),
        "frames": len(frames),
        "longest_jump_ms": round(max(jumps), 1),
    }


def has_photographs(index: Path) -> bool:
    """Whether the pages show photographs."""
    return (index.parent / SITE_FOLDER / "photos").is_dir()


def _is_task(event: dict[str, object], trace: dict[str, list[dict[str, object]]]) -> bool:
    return (
        event.get("ph") == "X"
        and event.get("name") in {"RunTask", "ThreadControllerImpl::RunTask"}
        and ((event.get("pid"), event.get("tid")) in _page_threads(trace))
    )


def _page_threads(trace: dict[str, list[dict[str, object]]]) -> set[tuple[object, object]]:
    if "threads" not in trace:
        named = [event for event in trace["traceEvents"] if event.get("name") == "thread_name"]
        found = {
            (event["pid"], event["tid"])
            for event in named
            if isinstance(event["args"], dict) and event["args"].get("name") == "CrRendererMain"
        }
        trace["threads"] = [{"found": found}]
    threads = trace["threads"][0]["found"]
    assert isinstance(threads, set)
    return threads


if __name__ == "__main__":
    main()

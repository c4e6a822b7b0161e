"""The pages of a layer of 2,048 neurons: how long they take to write, and how headless Chromium shows them from disk.

    python benchmarks/pages.py --json

Makes an atlas of pictures with the spectrum of photographs, its statistics with targets of the shapes of resnet50's
layer4, and shards of as many different photographs as asked for; then writes the pages with the command, twice, and
opens them. Maps are left out: they take a network, whose time is not the pages'. ``write_seconds`` and
``write_megabytes`` (peak memory) are of the whole command, ``update_seconds`` of a second run that finds nothing
changed. ``first_paint_ms`` is from navigation until every picture in the window is decoded, ``first_bytes`` what was
read by then. ``longest_frame_ms`` is the longest interval between two frames, or task of the page's thread in the
trace, while the wall scrolls from end to end, in the worst of three tries, all of which are listed;
``longest_task_cpu_ms`` is what a task itself computed. ``size_ratio`` is all bytes over those of image files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

from benchmarks.page_material import make_atlas

BROWSER = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TRIES = 3
IMAGES = {".webp", ".jpg", ".png"}

PAINTED = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  while (!document.querySelector('.wall .tile')) await frame();
  const inside = [...document.querySelectorAll('.wall .tile')].filter((tile) => {
    const box = tile.getBoundingClientRect();
    return box.top < innerHeight && box.bottom > 0;
  });
  const files = new Set(inside.flatMap((tile) => [...tile.style.backgroundImage.matchAll(/url\\("([^"]+)"\\)/g)]
    .map((found) => found[1])));
  await Promise.all([...files].map((file) => { const image = new Image(); image.src = file; return image.decode(); }));
  await frame();
  return [performance.now(), inside.length];
}"""

SCROLL = """async () => {
  const frames = [];
  let last = await new Promise((done) => requestAnimationFrame(done));
  const step = Math.max(40, (document.documentElement.scrollHeight - innerHeight) / 240);
  for (;;) {
    const before = scrollY;
    scrollBy(0, step);
    const now = await new Promise((done) => requestAnimationFrame(done));
    frames.push(now - last);
    last = now;
    if (scrollY === before) break;
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
    parser.add_argument("--keep", type=Path, help="folder for atlas and pages; used again if it is there")
    parser.add_argument("--json", action="store_true", help="figures only, as JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        atlas = make_atlas(folder, asked.neurons, asked.side, asked.photos)
        figures = measure(atlas, folder / "pages", asked.no_references)
    if asked.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<22} {value:,.2f}" if isinstance(value, float) else f"{name:<22} {value:,}")


def measure(atlas: Path, out: Path, no_references: bool) -> dict[str, float | int]:
    """All figures of one atlas; ``out`` is made anew."""
    subprocess.run(["rm", "-rf", str(out)], check=True)
    command = [sys.executable, "-m", "flows.cli.main", "pages", str(atlas), "--out", str(out), "--no-maps"]
    command += ["--no-references"] if no_references else []
    seconds = [_timed(command) for _ in range(2)]
    figures: dict[str, float | int] = {"write_seconds": round(seconds[0], 1), "update_seconds": round(seconds[1], 1)}
    # kilobytes on Linux
    figures["write_megabytes"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    files = [path for path in out.rglob("*") if path.is_file()]
    sizes = {path: path.stat().st_size for path in files}
    images = sum(size for path, size in sizes.items() if path.suffix in IMAGES)
    # A bound on every frame is shown by the worst try alone; run it on an idle machine.
    tries = [_opened(out / "index.html") for _ in range(TRIES)]
    figures |= max(tries, key=lambda tried: tried["longest_frame_ms"])
    figures |= {f"longest_frame_ms_of_try_{number}": tried["longest_frame_ms"] for number, tried in enumerate(tries)}
    figures |= {
        "files": len(files),
        "total_bytes": sum(sizes.values()),
        "size_ratio": round(sum(sizes.values()) / images, 4),
    }
    return figures


def _timed(command: list[str]) -> float:
    begun = time.monotonic()
    root = str(Path(__file__).parents[1])
    subprocess.run(command, check=True, cwd=root, env={**os.environ, "PYTHONPATH": root}, capture_output=True)
    return time.monotonic() - begun


def _opened(index: Path) -> dict[str, float | int]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        # the first page of a browser pays for the browser's own start
        browser.new_page().goto("about:blank")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        read: list[Path] = []
        page.on("request", lambda request: read.append(Path(unquote(urlsplit(request.url).path))))
        page.goto(index.as_uri(), wait_until="commit")
        painted, shown = page.evaluate(PAINTED)
        first = sum(path.stat().st_size for path in set(read))
        page.wait_for_load_state("networkidle")
        browser.start_tracing(page=page)
        frames = page.evaluate(SCROLL)
        trace = json.loads(browser.stop_tracing())
        browser.close()
    ran = [event for event in trace["traceEvents"] if _is_task(event, trace)]
    tasks = [event["dur"] / 1000 for event in ran]
    return {
        "first_paint_ms": round(painted, 1),
        "first_bytes": first,
        "first_pictures": shown,
        "longest_frame_ms": round(max([*frames, *tasks]), 1),
        "longest_task_cpu_ms": round(max(event.get("tdur", 0) for event in ran) / 1000, 1),
        "mean_frame_ms": round(sum(frames) / len(frames), 1),
        "frames": len(frames),
    }


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

"""Progress in a terminal of any width and in a log."""

from __future__ import annotations

import doctest
import io
import re
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from rich.console import Console

from flows.running import progress
from flows.running.progress import EVERY, Bar, bar, shortened

NAME = "backbone.features.denseblock4.denselayer16.attention.conv2[0]: neurons done"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.StringIO]:
    """Makes standard error a terminal of a width; what is written there."""

    def of_width(width: int) -> io.StringIO:
        screen = io.StringIO()

        def console(**_: object) -> Console:
            return Console(file=screen, force_terminal=True, width=width, force_jupyter=False, color_system=None)

        monkeypatch.setattr(progress, "Console", console)
        return screen

    return of_width


def last_line(screen: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n").rstrip().splitlines()[-1]


@pytest.mark.parametrize("width", [60, 80, 132, 200])
@pytest.mark.parametrize(("total", "whole"), [(1_281_167, None), (None, 140_000_000)])
def test_numbers_are_whole_however_narrow_the_terminal(
    terminal: Callable[[int], io.StringIO], width: int, total: int | None, whole: int | None
) -> None:
    screen = terminal(width)
    with bar(NAME, total, whole) as shown:
        shown.tick(1_281_166, 139_999_999)
        shown.tick(1, 1)
    line = last_line(screen)
    assert len(line) <= width
    assert re.search(r" 1281167/1281167 \d:\d\d:\d\d left \d:\d\d:\d\d$", line), line
    assert line.startswith("bac")
    assert "neurons done" in line or width < 80


def test_a_name_that_fits_stays(terminal: Callable[[int], io.StringIO]) -> None:
    screen = terminal(80)
    with bar("layer4.2[bold]: neurons done", 8) as shown:
        shown.tick(8)
    assert last_line(screen).startswith("layer4.2[bold]: neurons done ")


def test_a_shortened_name_has_its_two_ends() -> None:
    assert doctest.testmod(progress).failed == 0
    assert shortened("abc", 3) == "abc"
    assert all(len(shortened(NAME, room)) == room for room in range(12, len(NAME)))


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The bars' alone: Prefect's threads wait by their own."""
    own = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=own))
    return own


def test_a_log_has_a_line_every_so_often(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with bar("bytes read", 250) as shown:
        for _ in range(250):
            clock.now += 1
            shown.tick()
    said = capsys.readouterr().err
    assert EVERY == 60
    assert "\r" not in said
    assert "\x1b" not in said
    assert said.splitlines() == [
        "bytes read: 60 of 250 in 0:01:00, about 0:03:10 left",
        "bytes read: 120 of 250 in 0:02:00, about 0:02:10 left",
        "bytes read: 180 of 250 in 0:03:00, about 0:01:10 left",
        "bytes read: 240 of 250 in 0:04:00, about 0:00:10 left",
        "bytes read: 250 of 250 in 0:04:10",
    ]


def test_a_log_has_lines_while_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a worker makes a block of pictures."""

    class Log(io.StringIO):
        lines = threading.Semaphore(0)

        def flush(self) -> None:
            self.lines.release()

    log = Log()
    monkeypatch.setattr(progress, "EVERY", 0.6)
    monkeypatch.setattr("sys.stderr", log)
    with bar("neurons done", 64):
        assert [log.lines.acquire(timeout=60) for _ in range(2)] == [True, True]
    assert re.match(r"neurons done: 0 of 64 in 0:00:0\d\n", log.getvalue())


def test_a_log_says_how_far_a_run_came_that_failed(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(shown: Bar) -> None:
        shown.tick(3)
        clock.now += 7
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"), bar("images seen", None) as shown:
        failing(shown)
    assert capsys.readouterr().err == "images seen: 3 in 0:00:07\n"


class Unread(io.StringIO):
    """A log whose reader has gone away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_log_that_nobody_reads_any_more_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Unread())
    with bar("images seen", 3) as shown:
        shown.tick(3)

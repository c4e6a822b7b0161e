"""Which pictures of a comparison are measured already, so that one that was stopped measures no more than the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from flows.reports.controls import read_record, write_record
from flows.reports.plan import Case, Comparison
from flows.running.process import judges_at, load
from stores import open_atlas, open_statistics
from stores.arrays.provenance import JSON, fingerprint

MEASURED = "measured.json"
MEASURES = 2
"""Version of what is measured of pictures: those that another version has measured are measured again."""


class Measures:
    """What was measured of the pictures of a comparison."""

    def __init__(self, comparison: Comparison, cases: Sequence[Case]) -> None:
        self._comparison, self._cases = comparison, list(cases)
        self._path = comparison.folder / MEASURED
        job, statistics = comparison.job, open_statistics(comparison.store)
        running = job.running.of_flow
        judges = judges_at(job.judges, load(comparison.model, running), running, comparison.model.download)
        self._beside: dict[str, JSON] = {
            "version": MEASURES,
            "statistics": dict(statistics.provenance),
            "judges": {name: str(judge.identity.get("weights", "")) for name, judge in judges.items()},
        }

    @contextmanager
    def wanted(self, case: Case) -> Iterator[bool]:
        """Whether a case is to be measured, in the block; it is known to be so when that has ended."""
        name, now = f"{case.layer}/{case.name}", self._fingerprint(case)
        wanted = not self._there(case) or read_record(self._path).get(name) != now
        yield wanted
        if wanted:
            write_record(self._path, read_record(self._path) | {name: now})

    def _fingerprint(self, case: Case) -> str:
        """Of all that the metrics of a case follow from."""
        job = self._comparison.evaluation(case, self._cases)
        pictures = [self._said(url, case.layer) for url in (job.atlas, *job.siblings)]
        return fingerprint({**self._beside, "layer": case.layer, "pictures": pictures})

    def _said(self, url: str, name: str) -> Mapping[str, JSON]:
        layer = open_atlas(url).layer(name)
        return {"settings": layer.settings, "status": layer.status().tolist()}

    def _there(self, case: Case) -> bool:
        """Whether the atlas has metrics: it may have been made anew."""
        return "curve_distance" in open_atlas(self._comparison.atlas(case)).layer(case.layer).metric_names()

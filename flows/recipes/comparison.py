"""Methods compared: the same neurons by every method, measured, and one report of it."""

from __future__ import annotations

from prefect import flow

from flows.recipes.atlas import build_atlas
from flows.recipes.evaluation import evaluate_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.reports.controls import checked, costed, photographs
from flows.reports.kept import Measures
from flows.reports.plan import ReportJob
from flows.reports.writing import write_report
from flows.running.cluster import in_process
from flows.running.workers.workplaces import kept_workers


@flow(name="compare-methods", task_runner=in_process(), persist_result=False)
def compare_methods(job: ReportJob) -> str:
    """What is made already is left alone, so a stopped comparison goes on; returns the path of the report's page."""
    comparisons = checked(job)
    with kept_workers():
        for comparison in comparisons:
            select_references(comparison.references())
            for layer in job.layers:
                measure_targets(comparison.targets(layer))
            cases = comparison.cases()
            for case in cases:
                with costed(comparison, case):
                    build_atlas(comparison.pictures(case))
            measures = Measures(comparison, cases)
            for case in cases:
                with measures.wanted(case) as wanted:
                    if wanted:
                        evaluate_atlas(comparison.evaluation(case, cases))
            photographs(comparison)
    return write_report(comparisons)

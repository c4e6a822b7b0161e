"""What a flow is asked to do: frozen settings, the parameters of the deployments and the options of the command."""

from flows.jobs.fields import CLASS_WORDS, LABEL_KEY, LABELS, Folder, Location
from flows.jobs.judging import EvaluateJob, NamesJob
from flows.jobs.making import BLOCK, AtlasJob, FullJob, LayerJob, ReferencesJob, TargetsJob
from flows.jobs.running import Running, cores
from flows.jobs.settled import settled

__all__ = [
    "BLOCK",
    "CLASS_WORDS",
    "LABELS",
    "LABEL_KEY",
    "AtlasJob",
    "EvaluateJob",
    "Folder",
    "FullJob",
    "LayerJob",
    "Location",
    "NamesJob",
    "ReferencesJob",
    "Running",
    "TargetsJob",
    "cores",
    "settled",
]

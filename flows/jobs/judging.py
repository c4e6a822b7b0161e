"""What the recipes are asked that measure and name finished pictures."""

from __future__ import annotations

from pydantic import Field

from flows.jobs.fields import CLASS_WORDS, Location
from flows.jobs.running import Running
from vital.settings import Settings


class EvaluateJob(Settings):
    """Metrics of an atlas's pictures, written beside them."""

    atlas: Location = Field(description="atlas store whose pictures are measured")
    store: Location | None = Field(None, description="its statistics store  [default: where the atlas says it is]")
    layers: tuple[str, ...] = Field((), description="layers to measure; all of the atlas by default")
    judges: tuple[str, ...] = Field(
        (),
        description="other networks that look at the pictures: efficientnet_lite2, squeezenet, a torchvision model, "
        "package.module:factory, or open_clip:ARCHITECTURE/WEIGHTS",
    )
    download: bool = Field(False, description="fetch weights of judges that are not in the local cache")
    siblings: tuple[Location, ...] = Field(
        (),
        description="atlases of the same neurons made with other seeds: adds how much the pictures differ, and what "
        "judges can tell from all of them together",
    )
    steering: bool = Field(
        False,
        description="also find out whether somebody made the network lead to one picture whatever it begins as: takes "
        "180 steps a neuron",
    )
    shards: tuple[Location, ...] = Field(
        (), description="where the shards are now, when they moved since the index was made"
    )
    running: Running = Running()


class NamesJob(Settings):
    """Words for the neurons of an atlas's layers, written beside their pictures."""

    atlas: Location = Field(description="atlas store whose neurons are named")
    vocabulary: Location = Field(
        CLASS_WORDS,
        min_length=1,
        description="'classes', those of the data set or of the judge; or a text file of words, one a line, which "
        "takes a CLIP model as judge",
    )
    judge: str | None = Field(
        None,
        description="network that says how much a word is in an image: one that classifies, by its logits, or "
        "open_clip:ARCHITECTURE/WEIGHTS, by cosines  [default: the data set's labels say it]",
    )
    broader: Location | None = Field(
        None,
        description='JSON file of broader words, such as {"dog": ["golden retriever", "n02085620", 153]}; or data.noun '
        "of WordNet 3.0, for its hypernyms of ImageNet's classes",
    )
    layers: tuple[str, ...] = Field((), description="layers whose neurons are named; all of the atlas by default")
    words: int = Field(3, ge=1, le=20, description="words kept of a neuron")
    shuffles: int = Field(200, ge=20, description="how often images are shuffled to find what chance reaches")
    quantile: float = Field(
        0.95, gt=0, lt=1, description="share of the shuffles above whose best word a name must score"
    )
    download: bool = Field(False, description="fetch weights of the judge that are not in the local cache")
    store: Location | None = Field(None, description="its statistics store  [default: where the atlas says it is]")
    shards: tuple[Location, ...] = Field(
        (), description="where the shards are now, when they moved since the index was made"
    )
    running: Running = Running()

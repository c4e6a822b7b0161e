"""What a picture's activations must match: means over a neuron's references, or over each of the facets that these fall
into."""

from vital.measuring.targets.facets import Facets, chance_of, find_facets
from vital.measuring.targets.loose import MOST_REFERENCES, Seen, seen_by, usual_references
from vital.measuring.targets.means import NodeTarget, Target, measure
from vital.measuring.targets.passes import Attribution, Crop, node_relevance
from vital.measuring.targets.trends import (
    FEWEST_GRADED,
    GradedImages,
    first_drawn,
    graded_bytes,
    image_rows,
    trend,
)
from vital.measuring.targets.vectors import photo_vectors, reference_vectors

__all__ = [
    "FEWEST_GRADED", "MOST_REFERENCES", "Attribution", "Crop", "Facets", "GradedImages", "NodeTarget", "Seen", "Target",
    "chance_of", "find_facets", "first_drawn", "graded_bytes", "image_rows", "measure", "node_relevance",
    "photo_vectors", "reference_vectors", "seen_by", "trend", "usual_references",
]  # fmt: skip

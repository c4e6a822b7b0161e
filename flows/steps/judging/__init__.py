"""What pictures are worth: a layer's pictures as they are measured, the photographs beside them, the metrics."""

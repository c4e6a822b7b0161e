"""What holds for all tests: one thread each, and shapes in signatures that are checked."""

from __future__ import annotations

import os

# Before torch is imported, and for child processes too: small networks lose far more to waiting threads than they
# gain, above all on a busy machine, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings
from jaxtyping import install_import_hook

# A deadline would measure what else the machine is doing.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# Before anything of them is imported, whichever tests come first.
install_import_hook(["stores", "vital"], "beartype.beartype")

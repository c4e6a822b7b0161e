"""What can go wrong in the algorithm, as one small tree.

::

    VitalError
    ├── UnknownModel          no such model, or its weights cannot be had
    ├── UnknownLayer          no such layer; the message gives the nearest names
    ├── UnknownNeuron         a neuron that the layer does not have
    ├── UnsupportedOperation  an operation of the network without a relevance rule
    ├── UnsuitableInput       a size or a setting that this network cannot take
    ├── FailedForward         the network's own forward raised an error, which the message gives
    ├── DoesNotFit            a batch that does not fit into memory
    └── GpuFailed             a GPU or its driver failed, as the message says

Every message states what came, what was expected and the way out.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches


class VitalError(Exception):
    """Base of all errors of the algorithm; its text is one sentence for the user."""


class UnknownModel(VitalError):
    """The model's name, factory or weights cannot be found."""


class UnknownLayer(VitalError):
    """The network has no module of this name, or it has no activation map."""


class UnknownNeuron(VitalError):
    """The layer has no such neuron."""


class UnsupportedOperation(VitalError):
    """The network uses an operation for which no relevance rule is known."""


class UnsuitableInput(VitalError):
    """The network cannot take pictures of this size, or a setting contradicts another."""


class FailedForward(VitalError, RuntimeError):
    """The network's own forward raised an error."""


class DoesNotFit(VitalError):
    """Not even one picture fits into the device's memory, or a batch that is not to be made smaller does not."""


class GpuFailed(VitalError):
    """A GPU or its driver failed; a process cannot use it after that."""


OF_GPU = re.compile(r"CUDA (driver )?error|cu(DNN|FFT|SOLVER|SPARSE) error|(CUBLAS|CUDNN|CUFFT)_STATUS_", re.I)
"""How torch begins to say what CUDA's runtime, driver and libraries answered."""


def of_gpu(error: BaseException) -> bool:
    """Whether an error is what a GPU or its driver answered, whatever asked it."""
    return isinstance(error, RuntimeError) and OF_GPU.search(str(error)) is not None


def nearest(name: str, known: Sequence[str], count: int = 5) -> str:
    """The names most like ``name``, as a list in words; the first few when nothing is alike.

    >>> nearest("layr4", ["layer4", "conv1"])
    'layer4'
    """
    return ", ".join(map(in_line, get_close_matches(name, known, count, cutoff=0.4) or known[:count]))


def in_line(name: str) -> str:
    """A name as it is, or where it would break the line or command a terminal, with its control characters spelt.

    >>> print(in_line("слой 1"), in_line("a\\nb"))
    слой 1 a\\nb
    """
    return name if name.isprintable() else repr(name)[1:-1]

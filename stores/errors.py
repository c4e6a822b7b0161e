"""What can go wrong on disk, as one small tree.

::

    StoreError
    ├── MissingStore       no store at this URL
    ├── SchemaMismatch     a store, group or array of another kind, shape or version than expected
    ├── ForeignStore       made from other weights, images or settings; names the field and both values
    ├── MisalignedBlock    a task would write a part of a Zarr shard
    ├── UnreachableStore   the disk is full, or the service answers errors
    ├── UnreadableStore    a file of it was cut off, damaged or removed
    ├── MissingShard       no tar at this path or URL
    ├── UnreadableShard    compressed, garbage, or other bytes than when it was read first
    ├── UnreadableImage    the bytes are no image, or one that is too large
    └── UnsuitableFolder   a folder that cannot be packed, or an output that exists

Every message says what came, what was expected and the way out.
"""

from enum import IntEnum


class Status(IntEnum):
    """What became of an image when it was read; stored as uint8 in ``index/status``."""

    OK = 0
    UNDECODABLE = 1
    TOO_LARGE = 2
    DUPLICATE_KEY = 3
    NO_IMAGE = 4
    WRONG_LABEL = 5
    UNSEEN = 6
    FOREIGN_LABEL = 7
    LINK = 8
    APART = 9
    SEVERAL_IMAGES = 10
    OTHER_CHANNELS = 11
    BEYOND_RANGE = 12

    @property
    def meaning(self) -> str:
        """What images of this status are, to be read behind their number."""
        return STATUS_MEANINGS[self]


STATUS_MEANINGS: dict[Status, str] = {
    Status.OK: "read and used",
    Status.UNDECODABLE: "cannot be decoded as an image",
    Status.TOO_LARGE: "of more pixels or bytes than the limit",
    Status.DUPLICATE_KEY: "with the key of an earlier sample of the shard",
    Status.NO_IMAGE: "without a file with an image extension",
    Status.WRONG_LABEL: "with a .cls file that is no class number",
    Status.UNSEEN: "known by its place, not read yet",
    Status.FOREIGN_LABEL: "read and used, but labelled with no class of the network",
    Status.LINK: "linked or sparse in the tar, so that the bytes are not there",
    Status.APART: "in files that lie apart from the image of the same key",
    Status.SEVERAL_IMAGES: "with several images, none of them called input",
    Status.OTHER_CHANNELS: "with other channels than the network takes",
    Status.BEYOND_RANGE: "with values of no known range, which --black and --white would say",
}

USED = (Status.OK, Status.FOREIGN_LABEL)
"""What an image is that takes part in the statistics; all others are rejected."""


class PictureStatus(IntEnum):
    """What became of a neuron; stored as uint8 in ``status`` of targets and of pictures."""

    NOT_MADE = 0
    MADE = 1
    DEAD = 2
    NON_FINITE = 3
    TOO_FEW_REFERENCES = 4

    @property
    def meaning(self) -> str:
        """Why a picture has this status, in one line for reports."""
        return PICTURE_STATUS_MEANINGS[self]


PICTURE_STATUS_MEANINGS: dict[PictureStatus, str] = {
    PictureStatus.NOT_MADE: "not made yet",
    PictureStatus.MADE: "made",
    PictureStatus.DEAD: "the neuron is zero on every image, so there is nothing to show",
    PictureStatus.NON_FINITE: "a value became infinite or undefined on the way",
    PictureStatus.TOO_FEW_REFERENCES: "the data set holds fewer references than were asked for",
}


class StoreError(Exception):
    """Base of all errors of the stores; its text is one sentence for the user."""


SERVICES = ("aiohttp", "botocore", "gcsfs", "google", "azure")
"""Packages whose errors are no OSErrors, and which are there only where somebody installed them."""


def of_disk_or_service(error: BaseException) -> bool:
    """Whether this is what a disk or a service answers, and no fault of the program."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in SERVICES


class MissingStore(StoreError):
    """There is no store at the URL."""


class SchemaMismatch(StoreError):
    """The store, group or array is of another kind, shape, type or version than expected."""


class ForeignStore(StoreError):
    """The store was made from something else; the message names the field, both values and the way out."""


class MisalignedBlock(StoreError):
    """A task does not own whole Zarr shards.

    Zarr rewrites a shard as a whole: of two tasks that write into one shard, the later silently drops the rows of the
    earlier. So a write of anything but one whole block is refused.
    """


class UnreachableStore(StoreError):
    """The store cannot be read or written at the moment: the disk is full, or the service behind the URL fails."""


class UnreadableStore(StoreError):
    """A file of the store, an array's metadata or a chunk of it, was cut off, changed or removed since it was
    written."""


class MissingShard(StoreError):
    """There is no tar at the path or URL."""


class UnreadableShard(StoreError):
    """The file is compressed, is no tar, or no longer holds what its index says."""


class UnreadableImage(StoreError):
    """The bytes cannot become an image.

    ``status`` is what the index records about it: ``Status.UNDECODABLE`` or ``Status.TOO_LARGE``.
    """

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class UnsuitableFolder(StoreError):
    """The folder cannot be packed into shards, or the output exists."""

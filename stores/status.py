"""The numbers that stand in ``status`` arrays, and what they mean."""

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

    @property
    def meaning(self) -> str:
        """One line for reports."""
        return STATUS_MEANINGS[self]


STATUS_MEANINGS: dict[Status, str] = {
    Status.OK: "read and used",
    Status.UNDECODABLE: "its bytes are no image that can be decoded",
    Status.TOO_LARGE: "more pixels or bytes than the limit",
    Status.DUPLICATE_KEY: "an earlier sample of its shard has the same key",
    Status.NO_IMAGE: "the sample holds no file with an image extension",
    Status.WRONG_LABEL: "its .cls file is no class number",
    Status.UNSEEN: "known by its place, not read yet",
    Status.FOREIGN_LABEL: "read and used, but its label is no class of the network",
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
        """One line for reports."""
        return PICTURE_STATUS_MEANINGS[self]


PICTURE_STATUS_MEANINGS: dict[PictureStatus, str] = {
    PictureStatus.NOT_MADE: "not made yet",
    PictureStatus.MADE: "made",
    PictureStatus.DEAD: "the neuron is zero on every image, so there is nothing to show",
    PictureStatus.NON_FINITE: "a value became infinite or undefined on the way",
    PictureStatus.TOO_FEW_REFERENCES: "the data set holds fewer references than were asked for",
}

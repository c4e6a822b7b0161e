"""Whose turn it is to change what a store keeps of all its shards: one run's at a time.

Object storage has no lock, so a run says first that it asks, in a lease of its own, and looks then who else does. Of
two runs the one that wrote later sees the other, so the turn is never that of both, where a store shows at once what
was written.
"""

from dataclasses import dataclass, field

import zarr

from stores.arrays.leases import Holder, Watch, release, renew, take

TURN = "turn"
"""Where the leases of those that ask lie, by their runs."""


@dataclass
class Turn:
    """A run that asks for its turn at the store at ``url``, and says every now and then within ``term`` seconds that it
    lives."""

    url: str
    holder: Holder
    term: float
    _watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self._watch = Watch(self.url, TURN, self.holder)

    def ask(self, group: zarr.Group) -> Holder | None:
        """Ask, and say who is to be waited for; None where it is one's turn, until `end`.

        Who sees others steps back for one whose run's number is smaller; that one keeps its place, so that one of those
        that wait comes next.
        """
        first = self._first(group)
        if first is not None and first.run < self.holder.run:
            return first
        take(group, TURN, self.holder.run, self.holder, self.term)
        first = self._first(group)
        if first is not None and first.run < self.holder.run:
            self.end(group)
        return first

    def _first(self, group: zarr.Group) -> Holder | None:
        others = [lease.holder for lease in self._watch.others(group, TURN.__eq__)]
        return min(others, key=lambda one: one.run, default=None)

    def renew(self, group: zarr.Group) -> None:
        """Say that one is at it still."""
        renew(group, TURN, self.holder.run, self.holder, self.term)

    def end(self, group: zarr.Group) -> None:
        """Leave it to others; nothing happens where it was not one's turn."""
        release(group, TURN, self.holder.run, self.holder)


def at_work(watch: Watch, group: zarr.Group) -> Holder | None:
    """A run that works on blocks of the store, as far as ``watch`` does not see that it has ended; None where none
    does."""
    return next((lease.holder for lease in watch.others(group, lambda path: path != TURN)), None)

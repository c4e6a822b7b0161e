"""The ``vital`` command."""

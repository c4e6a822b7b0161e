"""The server that Prefect keeps its runs in: its start, what is wrong when there is none, and its end."""

from flows.running.server.start import SECONDS, STARTUP, NoServer, give_it_time, served

__all__ = ["SECONDS", "STARTUP", "NoServer", "give_it_time", "served"]

"""The algorithm: torch and numpy; no storage, no orchestrator."""

"""The embedded photographs."""

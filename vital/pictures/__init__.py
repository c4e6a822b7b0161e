"""Pictures: what is optimised, towards what, and how."""

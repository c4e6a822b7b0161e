"""From atlases to pages."""

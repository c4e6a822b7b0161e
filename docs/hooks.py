"""Of the site under construction: no page may fetch anything from elsewhere."""

import re
from typing import Any

FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*?\ssrc\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel\s*=\s*["']?(?:stylesheet|preconnect|preload|icon|dns-prefetch))[^>]*?"""
    r"""\shref\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|@import\s+(?:url\()?["']?((?:https?:)?//[^"'\s)]+)"""
    r"""|\bimport\s*\(\s*["']((?:https?:)?//[^"']+)""",
    re.IGNORECASE,
)

DIAGRAMS = re.compile(r"<script type=\"module\">(?:(?!</script>).)*?mermaid.*?</script>", re.DOTALL)
"""What a page of a notebook would fetch for diagrams, which none here has."""


def fetched(html: str) -> list[str]:
    """Addresses of what a browser would fetch from elsewhere to show a page; links that a reader follows are none."""
    return [next(filter(None, match.groups())) for match in FETCHED.finditer(html)]


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The page without the code for diagrams; ends the build where it still fetches something from elsewhere."""
    output = DIAGRAMS.sub("", output)
    if addresses := fetched(output):
        raise ValueError(f"{page.file.src_uri} fetches {', '.join(addresses)}: ship it with the site, or leave it out")
    return output

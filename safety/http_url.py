"""URLs of HTTP that people name: where alerts are posted to, where a dashboard is."""

from __future__ import annotations

from urllib.parse import urlsplit


def http_url(url: object) -> str:
    """The URL, where it is one of a host that speaks HTTP.

    Raises:
        ValueError: it is none.
    """
    text = url if isinstance(url, str) else ""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is none
        fits = False
    if not fits or not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("expected a URL that begins with http:// or https://")
    return text

"""The domain `language`: English, as written in the documentation that Python carries along."""

from __future__ import annotations

from pydoc_data import topics

from rsi_ray.tasks.text import TextDomain, text_domain, without_repeats


def language(*, length: int, holdout_size: int) -> TextDomain:
    """Predict the next byte of `pydoc_data.topics`, the text behind `help("topics")`."""
    texts = (topics.topics[name].encode() for name in sorted(topics.topics))
    return text_domain("language", without_repeats(texts), length=length, holdout_size=holdout_size)

"""What is common to all who post to a Discord webhook: text from outside stays text, and its URL stays out of logs."""

from __future__ import annotations

import logging
import re

CONTENT = 2000
"""Characters of a message. Source: Discord's published interface."""
_MARKDOWN = re.compile(r"([\\`*_~|>#\[\]()<{}!+\-])")
_ZERO_WIDTH = "\u200b"


def escaped(line: str) -> str:
    """One line from outside: no markup, no mention, no link."""
    text = _MARKDOWN.sub(r"\\\1", " ".join(line.encode("utf-8", "replace").decode().split()))
    return text.replace("@", f"@{_ZERO_WIDTH}").replace("://", f":{_ZERO_WIDTH}//")


def units(text: str) -> int:
    """Length as Discord's clients count it: UTF-16 code units, the stricter of the ways to count."""
    return len(text.encode("utf-16-le", "replace")) // 2


class _WithoutWebhooks(logging.Filter):
    """httpx logs the URL of every request; a webhook's URL is its password."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "/webhooks/" not in record.getMessage()


logging.getLogger("httpx").addFilter(_WithoutWebhooks())

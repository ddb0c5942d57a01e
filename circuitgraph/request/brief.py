"""A request's text where there is little room for it."""

__all__ = ["brief"]

MOST = 120


def brief(text: str) -> str:
    """Return a request's text, cut where it would fill a page: sets may have thousands of edges.

    Example:
        >>> brief("9.9 -> logits")
        '9.9 -> logits'
        >>> brief(", ".join(["5.5 -> 8.6.v"] * 20))[-40:]
        '.v, 5.5 -> 8.6.v, 5 ... (278 characters)'
        >>> len(brief("9.9, " * 1000))
        120
    """
    if len(text) <= MOST:
        return text
    end = f" ... ({len(text)} characters)"
    return text[: MOST - len(end)] + end

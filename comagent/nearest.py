"""Suggestions for names that were mistyped."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean", "nearest"]


def nearest(name: str, names: Iterable[str], *, limit: int = 3) -> tuple[str, ...]:
    """Those of `names` that look most like `name`, best first; none where nothing is near. Case does not count."""
    folded: dict[str, str] = {}
    for candidate in names:
        folded.setdefault(candidate.casefold(), candidate)
    return tuple(folded[match] for match in get_close_matches(name.casefold(), folded, n=limit, cutoff=0.6))


def did_you_mean(name: str, names: Iterable[str], *, otherwise: str = "") -> str:
    """The remedy for an unknown name: a question with the nearest names, or `otherwise` where nothing is near."""
    matches = nearest(name, names)
    quoted = " or ".join(f'"{match}"' for match in matches)
    return f"Did you mean {quoted}?" if quoted else otherwise

"""Query parameters: read strictly, out of range is refused and not clamped."""

from collections.abc import Sequence
from urllib.parse import parse_qs

from app.api.http import Call
from app.error import invalid


class Query:
    """The parameters of one request; of a doubled one the last counts, except where all do."""

    def __init__(self, call: Call) -> None:
        text = call.scope.get("query_string", b"")
        try:
            self._values = parse_qs(text.decode(), keep_blank_values=True, errors="strict") if text else {}
        except ValueError:
            raise invalid("The query is not UTF-8.") from None

    def text(self, name: str) -> str | None:
        """A parameter's text, or None."""
        return self._values[name][-1] if name in self._values else None

    def texts(self, name: str) -> list[str]:
        """All values of a parameter, in order."""
        return self._values.get(name, [])

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within a range. Refusal `invalid_request`."""
        text = self.text(name)
        if text is None:
            return default
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if not least <= value <= most:
            raise invalid(f"{name} is a whole number from {least} to {most}.")
        return value

    def word(self, name: str, words: Sequence[str]) -> str:
        """One of these words, "" without the parameter. Refusal `invalid_request`."""
        text = self.text(name)
        if text is not None and text not in words:
            raise invalid(f"{name} is one of {', '.join(words)}.")
        return text or ""

"""Query parameters: read strictly, out of range is refused and not clamped."""

from collections.abc import Sequence
from urllib.parse import parse_qs

from app.api.call import Call
from app.model.errors import invalid

FIELDS_MOST = 100


def fields_of(query: bytes) -> dict[str, list[str]]:
    """Every parameter with its values. Refusal `invalid_request` for over FIELDS_MOST of them, or for no UTF-8."""
    if query.count(b"&") >= FIELDS_MOST:
        raise invalid(f"The query has more than {FIELDS_MOST} fields.")
    try:
        return parse_qs(query.decode(), keep_blank_values=True, errors="strict") if query else {}
    except ValueError:
        raise invalid("The query is not UTF-8.") from None


class Query:
    """The parameters of one request; of a doubled one the last counts, except where all do."""

    def __init__(self, call: Call) -> None:
        self._values = fields_of(call.scope.get("query_string", b""))

    def get_text(self, name: str) -> str | None:
        """A parameter's text, or None."""
        return self._values[name][-1] if name in self._values else None

    def get_texts(self, name: str) -> list[str]:
        """All values of a parameter, in order."""
        return self._values.get(name, [])

    def get_integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within a range. Refusal `invalid_request`."""
        text = self.get_text(name)
        if text is None:
            return default
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if not least <= value <= most:
            raise invalid(f"{name} is a whole number from {least} to {most}.")
        return value

    def get_word(self, name: str, words: Sequence[str]) -> str:
        """One of these words, "" without the parameter. Refusal `invalid_request`."""
        text = self.get_text(name)
        if text is not None and text not in words:
            raise invalid(f"{name} is one of {', '.join(words)}.")
        return text or ""

    def get_words(self, name: str, words: Sequence[str]) -> list[str]:
        """One or several of these words, comma-separated, in the order of `words`; none without the parameter.

        Refusal `invalid_request`.
        """
        text = self.get_text(name)
        given = [] if text is None else text.split(",")
        if not set(given).issubset(words):
            raise invalid(f"{name} is one or several, comma-separated, of {', '.join(words)}.")
        return [word for word in words if word in given]

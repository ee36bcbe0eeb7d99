"""What the service says about itself, on stderr: lines for a person, or one JSON object a line for a machine.

Owns: the two forms (JOBWIRE_LOG, `--log`), and that no key is in either: whatever looks like one is masked, wherever it
comes from. With `json`, each request is a line, too: see app/api/request_log.py.
"""

import logging
import re
import sys

import msgspec

from app.model.times import rfc3339

LOG_FORMS = ("text", "json")
SECRET = re.compile(r"\b(emit|whsec)_[A-Za-z0-9+/_=-]{8,}")


def mask_secrets(text: str) -> str:
    """The text without what looks like a key or a secret of ours."""
    return SECRET.sub(r"\1_***", text)


class TextFormatter(logging.Formatter):
    """Lines for a person."""

    def format(self, record: logging.LogRecord) -> str:
        return mask_secrets(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask_secrets(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = mask_secrets(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


def configure_logging(form: str) -> None:
    """Log to stderr in one of LOG_FORMS."""
    handler = logging.StreamHandler(sys.stderr)
    text = TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)

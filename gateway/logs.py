"""Log lines: JSON for collectors, readable on a terminal. User speech and text are never logged at info or above."""

import logging
import sys
from typing import Literal

import structlog

_OURS = "ASGI callable returned without completing response."
"""uvicorn's words for a transfer that we broke off on purpose, and have logged ourselves."""


def configure(level: str, form: Literal["auto", "json", "console"]) -> None:
    """For this process, our lines and the libraries' alike, on stdout."""
    readable = form == "console" or (form == "auto" and sys.stdout.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a caller's malformed body is told to the caller
    for chatty in ("alembic", "aiosqlite", "asyncio", "uvicorn.error", "websockets"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


def _is_news(record: logging.LogRecord) -> bool:
    """Not what we have logged ourselves, nor the traceback of a refused setting, which is said in one line."""
    text = record.getMessage()
    return (
        text != _OURS and "SettingsError" not in text and "DatabaseUnusable" not in text and "startup fail" not in text
    )

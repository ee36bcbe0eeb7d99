"""What a shell may complete beside commands and options: ids of jobs and spaces, scopes.

Never says a word and never fails: a shell that asks has no use for either.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from ..api.admin import SCOPES, Admin
from ..api.jobs import Jobs
from ..errors import JobwireError
from .terminal_text import harmless

_WAIT_S = 2.0
_JOBS = 100


def a_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest jobs of the space."""
    try:
        jobs = Jobs.from_env("reader")
        jobs.http = jobs.http.waiting(_WAIT_S)
        recent = jobs.list_jobs(limit=_JOBS)
    except JobwireError:
        return []
    return [
        CompletionItem(job.id, help=harmless(f"{job.status} {job.name}"))
        for job in recent
        if job.id.startswith(incomplete.upper())
    ]


def a_space(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """All spaces, with the root key; else none."""
    try:
        admin = Admin.from_env()
        admin.http = admin.http.waiting(_WAIT_S)
        spaces = admin.spaces()
    except JobwireError:
        return []
    return [CompletionItem(space.id, help=harmless(space.name)) for space in spaces if space.id.startswith(incomplete)]


def a_scope(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Every scope that a key may have."""
    return [CompletionItem(scope) for scope in SCOPES if scope.startswith(incomplete)]

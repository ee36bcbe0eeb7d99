"""Settings: a value that cannot be used is one sentence that names its variable, whatever it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.redis_links.dialling import connector
from app.settings import BadSetting, read, variables
from tests.test_processes import environment

NAMES = [variable for _, variable, _, _ in variables()]
NUMBERS = [variable for _, variable, default, _ in variables() if type(default) in (int, float)]

BAD = {
    "JOBWIRE_PREFIX": ["a b", "{a}", "a*", "a\tb", "a\\b", "\udcff"],
    "JOBWIRE_ROOT_KEY": ["x", "x" * 15, "x" * 15 + " ", "x" * 20 + "\n", "ü" * 20, "\udcff" * 20],
    "JOBWIRE_PUBLIC_URL": [
        "jobs.example.org",
        "ftp://jobs.example.org",
        "https://",
        "https://a b",
        "https://a?b",
        "//a",
    ],
    "JOBWIRE_ORIGINS": ["example.org", "https://example.org/", "https://example.org,x", "https://a:b"],
    "JOBWIRE_SHARDED_PUBSUB": ["yes", "2"],
    "JOBWIRE_APPENDFSYNC": ["never", "Always"],
    "JOBWIRE_LOG": ["xml"],
    "JOBWIRE_CALLBACK_ALLOW": ["10.0.0.0/99", "example.org"],
    "JOBWIRE_CALLBACK_SCHEDULE": ["now", "-1", "nan", "inf", ",", "1e400"],
    **{variable: ["many", "", "-1", "nan", "inf", "1e400", "9" * 5000, str(2**53 + 2)] for variable in NUMBERS},
}

BAD_URLS = [
    "localhost:6399",
    "localhost",
    "http://localhost",
    " redis://localhost",
    "redis://localhost:port",
    "redis://localhost:99999",
    "redis://localhost/first",
    "redis://localhost?db=first",
    "redis://localhost?no_such_option=1",
    "redis://[::1",
    "redis://:pass/word@localhost",
    "redis://:pass/word\u2100@localhost",
    "redis://:pass/word[@localhost",
    "rediss://localhost?ssl_cert_reqs=perhaps",
    "unix://",
    "unix://redis.sock",
    "unix://run/redis.sock",
    "redis+sentinel://localhost",
    "redis+sentinel:///jobs",
    "redis+sentinel://a,,b/jobs",
    "redis+sentinel://a:port/jobs",
    "redis+sentinel://a/jobs/first",
    "redis+sentinel://a/jobs?ssl_ca_certs=x",
    "redis+cluster://",
    "redis+cluster://a,,b",
    "redis+cluster://a:port",
    "redis+cluster://a:6379/0",
    "redis+cluster://a?db=1",
    "redis+cluster://a?ssl_ca_certs=x",
]


@pytest.mark.parametrize(("variable", "text"), [(name, text) for name, texts in BAD.items() for text in texts if text])
def test_a_value_that_cannot_be_used_is_a_sentence_that_names_its_variable(variable: str, text: str) -> None:
    with pytest.raises(BadSetting) as refused:
        read({variable: text})
    said = str(refused.value)
    assert said.startswith(f"{variable} is ")
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.parametrize("variable", NAMES)
def test_an_empty_value_is_the_default(variable: str) -> None:
    assert read({variable: ""}) == read({})


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_redis_url_that_cannot_be_used_is_a_sentence_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match=r".+") as refused:
        connector(url, 3.0)
    said = str(refused.value)
    assert said.endswith(".")
    assert "\n" not in said
    assert "pass/word" not in said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "redis+cluster://a:6379/3",
            "a cluster has no database numbers: no / and nothing behind it may follow the nodes.",
        ),
        (
            "redis+cluster://a:6379/0",
            "a cluster has no database numbers: no / and nothing behind it may follow the nodes.",
        ),
        ("redis+cluster://a?db=3", "a cluster has no database numbers: remove the option db."),
        ("redis-cluster://a", "it must begin with one of redis://, "),
        ("redis://a/jobs", "behind the host may stand / and the number of a database, and nothing else."),
    ],
)
def test_the_sentence_says_what_to_write_and_nothing_of_the_url_that_is_false(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".+") as refused:
        connector(url, 3.0)
    assert str(refused.value).startswith(said)


def sentence(variable: str, text: str) -> str:
    """Why the value cannot be used; "" when it can."""
    try:
        settings = read({variable: text})
    except BadSetting as error:
        return str(error)
    try:
        if settings.redis_url:
            connector(settings.redis_url, settings.redis_timeout_s)
    except ValueError as error:
        return f"REDIS_URL is {error}"
    return ""


@given(st.sampled_from(NAMES), st.text(st.characters(exclude_characters="\0"), min_size=1))
@example("REDIS_URL", "redis://[")
def test_whatever_a_variable_holds_is_a_setting_or_a_sentence(variable: str, text: str) -> None:
    said = sentence(variable, text)
    assert said == "" or (said.startswith(f"{variable} is ") and said.endswith(".") and "\n" not in said)


@given(st.sampled_from(("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster")), st.text())
def test_whatever_stands_behind_the_scheme_is_a_connector_or_a_sentence(scheme: str, rest: str) -> None:
    said = sentence("REDIS_URL", f"{scheme}://{rest}")
    assert said == "" or (said.endswith(".") and "\n" not in said)


@pytest.mark.parametrize(
    ("command", "variable", "value"),
    [
        ("up", "REDIS_URL", "localhost:6399"),
        ("up", "JOBWIRE_ROOT_KEY", "x"),
        ("up", "JOBWIRE_RATE", "many"),
        ("web", "REDIS_URL", "localhost:6399"),
        ("sweeper", "REDIS_URL", "redis://localhost?no_such_option=1"),
        ("callbacks", "REDIS_URL", "redis+sentinel://localhost"),
        ("web", "JOBWIRE_METRICS_FOLDER", "/dev/null/metrics"),
        ("sweeper", "JOBWIRE_METRICS_FOLDER", "/dev/null/metrics"),
        ("callbacks", "JOBWIRE_METRICS_FOLDER", "/dev/null/metrics"),
    ],
)
def test_a_command_says_it_on_one_line_and_ends(tmp_path: Path, command: str, variable: str, value: str) -> None:
    env = environment(**{"REDIS_URL": "unix:///nowhere", variable: value})
    options = ["--data", str(tmp_path / "data")] if command == "up" else []
    done = subprocess.run(
        [sys.executable, "-m", "jobwire", command, *options],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 78
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"jobwire: {variable} is ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "data").exists()

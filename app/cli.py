"""The server's commands: up, cluster, web, sweeper, callbacks.

What a person types, and what they read when it does not work.
"""

import logging
import os
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from urllib.parse import quote

import click
import msgspec

import jobwire
from app.backend import Backend
from app.local.cluster_forming import HOST
from app.local.cluster_up import cluster_up
from app.local.credentials import Credentials, CredentialsError
from app.local.embedded_cluster import LAST_PORT_BASE, MOST_NODES, EmbeddedCluster
from app.local.embedded_valkey import AskedOtherwise, EmbeddedError, WrongLayout
from app.local.up import until_signal, up
from app.main import count_together, run_callbacks, run_sweeper, web_from_environment
from app.metrics.service_log import LOG_FORMS, configure_logging
from app.model.errors import Outage
from app.redis_links.dialling import connector
from app.serve import OPTIONS, open_listening_socket, run_process, serve
from app.settings import BadSetting, Settings, read
from app.worker_processes import WorkerFailed, Workers
from jobwire.configuration.settings import data_folder

log = logging.getLogger("jobwire")

EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_CONFIG = 78


def exit_with(text: object, code: int) -> NoReturn:
    """Say why on stderr and leave."""
    click.echo(f"jobwire: {text}", err=True)
    sys.exit(code)


def settings_or_exit() -> Settings:
    """The settings of the environment; a wrong one ends the program."""
    configure_logging("text")
    try:
        settings = read()
        if settings.redis_url:
            connector(settings.redis_url, settings.redis_timeout_s)
    except BadSetting as error:
        exit_with(error, EX_CONFIG)
    except ValueError as error:
        exit_with(f"REDIS_URL is not the address of a Redis: {error}", EX_CONFIG)
    configure_logging(settings.log)
    return settings


def set_log(ctx: click.Context, option: click.Parameter, form: str | None) -> None:
    """`--log` is the variable JOBWIRE_LOG for this process and those that it starts."""
    if form:
        os.environ["JOBWIRE_LOG"] = form


log_option = click.option(
    "--log",
    type=click.Choice(LOG_FORMS),
    expose_value=False,
    callback=set_log,
    help="Form of the log on stderr; json has a line for each request, too.",
)


def needs_root_key(settings: Settings) -> None:
    """Tell the operator of a server without a root key."""
    if not settings.root_key:
        log.warning("JOBWIRE_ROOT_KEY is not set: nobody can make spaces and keys.")


def check_metrics_folder(settings: Settings) -> None:
    """End the program if the folder of the metrics, if there is one, cannot be used."""
    if not settings.metrics_folder:
        return
    folder = Path(settings.metrics_folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lock").open("ab").close()
    except OSError as error:
        exit_with(f"JOBWIRE_METRICS_FOLDER is {folder}: {error.strerror or error}.", EX_CONFIG)


def needs_redis(settings: Settings) -> None:
    """End the program unless a Redis is named."""
    if not settings.redis_url:
        exit_with("REDIS_URL is not set; `jobwire up` starts a Valkey of its own.", EX_CONFIG)


@click.command("up")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder of the data and the keys.")
@log_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line with url and keys when ready, no more.")
def up_command(host: str, port: int, data: Path | None, as_json: bool) -> None:
    """Serve everything from one process, on an embedded Valkey or on REDIS_URL.

    \b
    jobwire up
    jobwire up --port 0 --json --data ./data
    """
    settings = settings_or_exit()

    def announce(credentials: Credentials, ticket: str) -> None:
        click.echo(msgspec.json.encode(credentials).decode() if as_json else describe_server(credentials, ticket))

    try:
        run_process(up(settings, data or data_folder(os.environ), host, port, announce))
    except WrongLayout as error:
        exit_with(error, EX_CONFIG)
    except (EmbeddedError, CredentialsError) as error:
        exit_with(error, EX_UNAVAILABLE)
    except Outage as outage:
        exit_with(outage.text, EX_UNAVAILABLE)
    except OSError as error:
        exit_with(f"cannot listen on {host} port {port}: {error.strerror or error}", EX_UNAVAILABLE)


def describe_server(credentials: Credentials, ticket: str) -> str:
    """What a person needs to begin. The link signs in, once, within five minutes; in a log it would be no secret, so
    that only a terminal gets it."""
    rows = [("url", credentials.url)]
    if credentials.public_url:
        rows.append(("public url", credentials.public_url))
    rows += [("space", credentials.space_id), ("root key", credentials.root_key)]
    rows += [(f"{role} key", key) for role, key in credentials.keys.items()]
    page = (credentials.public_url or credentials.url).rstrip("/")
    rows.append(("page", f"{page}/#/ticket/{ticket}" if sys.stdout.isatty() else page))
    width = max(len(name) for name, _ in rows)
    return "\n".join(["jobwire is up.", *(f"  {name:<{width}}  {value}" for name, value in rows)])


@click.group("cluster")
def cluster_command() -> None:
    """A cluster of embedded Valkeys on this machine, for trying and for tests."""


@cluster_command.command("up")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder of the nodes.")
@click.option("--primaries", type=click.IntRange(1, MOST_NODES // 2), help="How many; a new cluster has 3.")
@click.option("--replicas", type=click.IntRange(0, 1), help="Replicas of each primary; a new cluster has none.")
@click.option("--port-base", type=click.IntRange(1024, LAST_PORT_BASE), help="First port; any that are free otherwise.")
@log_option
def cluster_up_command(data: Path | None, primaries: int | None, replicas: int | None, port_base: int | None) -> None:
    """Run a Redis cluster of embedded Valkeys, and print its REDIS_URL. A folder keeps its nodes and their ports.

    \b
    jobwire cluster up
    jobwire cluster up --data ./cluster --replicas 1 --port-base 7001
    """
    settings = settings_or_exit()
    cluster = EmbeddedCluster(
        data or beside(data_folder(os.environ)),
        primaries=primaries,
        replicas=replicas,
        port_base=port_base,
        appendfsync=settings.appendfsync,
        maxmemory_bytes=settings.maxmemory_bytes,
    )
    try:
        run_process(cluster_up(cluster, lambda cluster: click.echo(describe_cluster(cluster))))
    except (WrongLayout, AskedOtherwise) as error:
        exit_with(error, EX_CONFIG)
    except EmbeddedError as error:
        exit_with(error, EX_UNAVAILABLE)


def beside(folder: Path) -> Path:
    """Where the cluster lies if nobody says where: beside the folder of `up`, which belongs to one server."""
    return folder.with_name(f"{folder.name}-cluster")


def describe_cluster(cluster: EmbeddedCluster) -> str:
    """What a person needs to begin."""
    nodes = "\n".join(f"  node-{number}  {HOST}:{port}" for number, port in enumerate(cluster.ports, 1))
    return f"""A cluster of {len(cluster.ports)} nodes is up, in {cluster.data}:
{nodes}

REDIS_URL={cluster.url}

Run next, each with that REDIS_URL in its environment:
  jobwire web          (with a JOBWIRE_ROOT_KEY of yours, 16 characters or more)
  jobwire sweeper
  jobwire callbacks"""


@click.command("web")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@log_option
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256), help="Processes.")
def web_command(host: str, port: int, workers: int) -> None:
    """Serve HTTP, on the Redis of REDIS_URL. Any number of these may run.

    \b
    REDIS_URL=redis://127.0.0.1 jobwire web --host 0.0.0.0 --workers 4 --log json
    """
    settings = settings_or_exit()
    needs_redis(settings)
    needs_root_key(settings)
    check_metrics_folder(settings)
    with listen_or_exit(host, port) as sock, TemporaryDirectory(prefix="jobwire-metrics-") as folder:
        if workers > 1 and not settings.metrics_folder:
            os.environ["JOBWIRE_METRICS_FOLDER"] = folder
        try:
            run_process(serve_by(workers, sock, f"http://{host}:{port}"))
        except WorkerFailed:
            exit_with("a worker could not serve; the log says why.", EX_UNAVAILABLE)


def listen_or_exit(host: str, port: int) -> socket.socket:
    """A socket to which clients may connect from now on; an address that is taken ends the program."""
    try:
        sock = open_listening_socket(host, port)
        sock.listen(OPTIONS["backlog"])
    except OSError as error:
        exit_with(f"cannot listen on {host} port {port}: {error.strerror or error}", EX_UNAVAILABLE)
    return sock


async def serve_by(workers: int, sock: socket.socket, url: str) -> None:
    """Serve from this process, or from several that it starts."""

    async def ready() -> None:
        click.echo(f"jobwire serves {url}", err=True)

    if workers > 1:
        await Workers(sock, workers).run(ready)
    else:
        await serve(web_from_environment(), sock, ready)


metrics_option = click.option("--metrics", "metrics_at", metavar="[HOST:]PORT", help="Answer /metrics there.")


def show_metrics(settings: Settings, place: str | None) -> None:
    """Count together with others, and answer /metrics at a place, if that is asked for."""
    check_metrics_folder(settings)
    count_together(settings)
    try:
        if place:
            from app.metrics.exposition import serve_metrics  # noqa: PLC0415  # with its client, only where it is asked for

            serve_metrics(place)
    except (ValueError, OSError, OverflowError) as error:
        exit_with(f"cannot answer /metrics at {place}: {error}", EX_UNAVAILABLE)


@click.command("sweeper")
@metrics_option
@log_option
def sweeper_command(metrics_at: str | None) -> None:
    """Act on what is due: leases, schedules, retention.

    Several may run: for one Redis, or for each primary of a cluster, one of them works.

    \b
    REDIS_URL=redis://127.0.0.1 jobwire sweeper --metrics 9100
    """
    settings = settings_or_exit()
    needs_redis(settings)
    show_metrics(settings, metrics_at)

    async def work() -> None:
        backend = Backend(settings)
        await backend.start()
        try:
            await run_sweeper(backend, until_signal)
        finally:
            await backend.close()

    run_process(work())


@click.group("callbacks", invoke_without_command=True)
@metrics_option
@log_option
@click.pass_context
def callbacks_command(ctx: click.Context, metrics_at: str | None) -> None:
    """Send callbacks, pushes and Slack messages. Several may run. Subcommands ask the API instead.

    \b
    jobwire callbacks                   the process, on the Redis of REDIS_URL
    jobwire callbacks retry JOB         send the callback of an ended job once more
    jobwire callbacks secret SPACE      a new secret that signs a space's callbacks
    """
    if ctx.invoked_subcommand is None:
        settings = settings_or_exit()
        needs_redis(settings)
        show_metrics(settings, metrics_at)
        run_process(run_callbacks(settings, until_signal))


@callbacks_command.command("retry")
@click.argument("job")
def callback_retry(job: str) -> None:
    """Send the callback of JOB, which has ended, once more: now, and on the whole schedule if that fails.

    \b
    jobwire callbacks retry JOB
    """
    jobs = jobwire.Jobs.from_env("root")
    jobs.http.call("POST", f"/jobs/{quote(job, safe='')}/callback/retry")
    click.echo(f"The callback of {job} is due now.")


@callbacks_command.command("secret")
@click.argument("space")
@click.option(
    "--drop-old", is_flag=True, help="Make no secret; drop the one before the newest, so that it signs no more."
)
def callback_secret(space: str, drop_old: bool) -> None:
    """Print a new secret that signs what is sent for SPACE; it is shown this once.

    The one before it goes on signing, too, until --drop-old: give the receivers the new one in between.

    \b
    jobwire callbacks secret SPACE
    jobwire callbacks secret SPACE --drop-old
    """
    change = {"dropOldWebhookSecret": True} if drop_old else {"rotateWebhookSecret": True}
    path = "/spaces/" + quote(space, safe="")
    answer = jobwire.Jobs.from_env("root").http.call("PATCH", path, body=msgspec.json.encode(change))
    secret = msgspec.json.decode(answer.body).get("webhookSecret")
    click.echo("The newest secret is the only one now." if secret is None else secret)


@click.command("demo")
@click.pass_context
def demo_command(ctx: click.Context) -> None:
    """Show what jobwire does: start a server, run two commands as jobs, watch them live, check the result, stop."""
    from app.local.demo import demo  # noqa: PLC0415  # with all of the client half, which no server needs

    if not demo():
        ctx.exit(1)


commands = [up_command, cluster_command, web_command, sweeper_command, callbacks_command, demo_command]
"""What `jobwire` finds by the entry point group `jobwire.commands`."""

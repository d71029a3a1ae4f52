"""The measured systems: how each is started, and whose CPU belongs to it."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import floor_server, postgres
from bench.processes import ROOT, Child, Client, Missing, environment, free_port

ENVIRONMENTS = ROOT / ".bench"
PINS = ROOT / "bench" / "peers"
KFM_EVENT_BYTES = "select sum(octet_length(envelope)) from kfm.journal"


@dataclass(slots=True)
class System:
    """One running system: its client, and the processes whose CPU a turn costs (children included)."""

    name: str
    client: Client
    pids: list[int]
    database: str = ""
    event_bytes: str = ""
    settings: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Bench:
    """What the systems of one run share: the scratch folder, what to stop, and our one server."""

    home: Path
    stack: ExitStack
    floor_uvloop: bool = False
    server: "Server | None" = None

    def child(self, child: Child) -> Child:
        """Own a process until the bench ends."""
        self.stack.callback(child.close)
        return child

    def client(self, name: str, argv: list[str | Path], timeout: float = 60) -> Client:
        """Start a client and wait until it has had its first answers."""
        client = Client(argv, self.home / f"client-{name}.log")
        self.stack.callback(client.close)
        client.hear("ready", timeout)
        return client

    def cluster(self, name: str, **more: str) -> postgres.Cluster:
        """Start a Postgres of its own for one system; `more`: settings of it."""
        cluster = postgres.Cluster(self.home, name, **more)
        self.stack.callback(cluster.close)
        return cluster


class Server(Child):
    """Our own server: `kfm serve` on a fresh KFM_HOME, embedded Postgres, ports of the kernel's choice."""

    def __init__(self, home: Path, **extra: str) -> None:
        self.home = home / "kfm"
        self.home.mkdir(exist_ok=True)
        (self.home / "endpoints.json").unlink(missing_ok=True)
        self.begun = time.monotonic()
        super().__init__(
            [Path(sys.executable).with_name("kfm"), "serve"],
            home / "kfm-server.log",
            env=environment(
                KFM_HOME=str(self.home),
                KFM_GRPC_ADDRESS="127.0.0.1:0",
                KFM_HTTP_ADDRESS="127.0.0.1:0",
                KFM_TOOLS="bench.tools:TOOLS",
                **extra,
            ),
        )
        try:
            self.endpoints = self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def grpc(self) -> str:
        """The address of its gRPC door."""
        return self.endpoints["grpc"]

    def database(self) -> str:
        """The address of its embedded database, as the postmaster itself wrote it down."""
        moved = self.home / "postgres.path"
        data = Path(moved.read_text().strip()) if moved.exists() else self.home / "postgres"
        sockets = (data / "cluster" / "postmaster.pid").read_text().splitlines()[4]
        return f"postgresql://kfm@/kfm?host={sockets}"

    def _wait(self, timeout: float = 60) -> dict[str, str]:
        """The addresses, once it has written them. Raises Missing."""
        path = self.home / "endpoints.json"
        while time.monotonic() - self.begun < timeout:
            self.check()
            if path.exists():
                try:
                    return json.loads(path.read_text())
                except ValueError:
                    pass  # half written
            time.sleep(0.01)
        raise Missing(f"kfm serve wrote no endpoints.json within {timeout:.0f} s: {self.tail()}")


@contextmanager
def scratch() -> Generator[Path]:
    """A folder on a real disk (fsync must cost something), removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="kfm-bench-", dir="/var/tmp"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment, made from its pins when they changed. Raises Missing."""
    place, pins = ENVIRONMENTS / name, PINS / f"{name}.txt"
    python, stamp = place / "bin" / "python", place / ".pins"
    if not stamp.exists() or stamp.read_text() != pins.read_text():
        print(f"bench: making the environment of {name}", file=sys.stderr, flush=True)
        uv = Path(sys.executable).with_name("uv")
        ENVIRONMENTS.mkdir(exist_ok=True)
        if not python.exists():
            _run([uv, "venv", "-q", "--python", sys.executable, place])
        _run([uv, "pip", "install", "-q", "--python", python, "-r", pins])
        stamp.write_text(pins.read_text())
    return python


def restate_binary() -> Path:
    """Restate's server from its npm package, without install scripts. Raises Missing."""
    place, pins = ENVIRONMENTS / "restate-server", PINS / "restate-server.json"
    found = list(place.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    wanted = place / "package.json"
    if not found or not wanted.exists() or wanted.read_text() != pins.read_text():
        npm = shutil.which("npm")
        if npm is None:
            raise Missing("Restate's server comes from npm, and there is no npm here")
        print("bench: installing Restate's server", file=sys.stderr, flush=True)
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pins, wanted)
        _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", place], cwd=place)
        found = list(place.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise Missing("the npm package of Restate's server has no binary for this platform")
    return found[0]


def _run(argv: list[str | Path], cwd: Path = ROOT) -> None:
    done = subprocess.run(
        [str(a) for a in argv], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise Missing(f"{Path(argv[0]).name} failed: {(done.stderr or done.stdout)[-800:]}")


def _kfm(bench: Bench, name: str, module: str, tool: str) -> System:
    if bench.server is None:
        bench.server = Server(bench.home)
        bench.child(bench.server)
    server = bench.server
    client = bench.client(name, [sys.executable, "-m", module, server.grpc, tool])
    url = server.database()
    return System(
        name,
        client,
        [client.pid, server.pid],
        database=url if name != "kfm-sdk" else "",
        event_bytes=KFM_EVENT_BYTES,
        settings=postgres.settings(url),
    )


def _floor(bench: Bench) -> System:
    cluster, port = bench.cluster("floor"), free_port()
    extra = ["uvloop"] if bench.floor_uvloop else []
    server = bench.child(
        Child(
            [sys.executable, "-m", "bench.floor_server", cluster.url(), str(port), *extra],
            bench.home / "floor-server.log",
        )
    )
    client = bench.client("floor", [sys.executable, "-m", "bench.clients.floor", f"127.0.0.1:{port}"])
    url = cluster.url()
    return System(
        "floor",
        client,
        [client.pid, server.pid, cluster.pid],
        database=url,
        event_bytes=floor_server.EVENT_BYTES,
        settings=postgres.settings(url),
    )


def _langgraph(bench: Bench) -> System:
    python, cluster = peer_python("langgraph"), bench.cluster("langgraph")
    url = cluster.create("langgraph")
    client = bench.client("langgraph", [python, "-m", "bench.peers.langgraph_client", url])
    return System("langgraph", client, [client.pid, cluster.pid])


def _dbos(bench: Bench) -> System:
    python, cluster = peer_python("dbos"), bench.cluster("dbos")
    url = cluster.create("dbos")
    client = bench.client("dbos", [python, "-m", "bench.peers.dbos_client", url])
    return System("dbos", client, [client.pid, cluster.pid])


def _restate(bench: Bench) -> System:
    python, binary = peer_python("restate"), restate_binary()
    ingress, admin, app_port, node = (free_port() for _ in range(4))
    env = environment(
        RESTATE_DISABLE_TELEMETRY="true",
        RESTATE_LISTEN_MODE="tcp",
        RESTATE_BIND_IP="127.0.0.1",
        RESTATE_BIND_PORT=str(node),
        RESTATE_INGRESS__BIND_PORT=str(ingress),
        RESTATE_ADMIN__BIND_PORT=str(admin),
        RESTATE_LOG_FILTER="warn",
    )
    data = bench.home / "restate"
    server = bench.child(
        Child([binary, "--base-dir", data, "--no-logo"], bench.home / "restate-server.log", env=env)
    )
    app = bench.child(
        Child(
            [
                python.with_name("hypercorn"),
                "-b",
                f"127.0.0.1:{app_port}",
                "--log-level",
                "error",
                "bench.peers.restate_app:app",
            ],
            bench.home / "restate-app.log",
        )
    )
    client = bench.client(
        "restate",
        [python, "-m", "bench.peers.restate_client", str(ingress), str(admin), str(app_port)],
    )
    return System("restate", client, [client.pid, app.pid, server.pid])


START: dict[str, Callable[[Bench], System]] = {
    "kfm": lambda b: _kfm(b, "kfm", "bench.clients.kfm", "calculator"),
    "kfm-amo": lambda b: _kfm(b, "kfm-amo", "bench.clients.kfm", "bench_effect"),
    "kfm-sdk": lambda b: _kfm(b, "kfm-sdk", "bench.clients.kfm_sdk", "calculator"),
    "floor": _floor,
    "restate": _restate,
    "langgraph": _langgraph,
    "dbos": _dbos,
}
"""Every system by the name that its measurements carry, in the order in which a round visits them."""

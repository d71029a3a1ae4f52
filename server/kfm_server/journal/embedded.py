"""The embedded Postgres: binaries from a wheel, everything else ours.

The wheel's own launcher is not used: it opens parents' modes, trusts pid files, and forgets to stop.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from kfm_server.journal.account import Account, choose_account
from kfm_server.journal.binaries import binaries, version_of

RECOVERY_SECONDS = 3600.0
_MOST_CONNECTIONS = 100
_SOCKETS = "postgres.sockets"
"""Where the directory of its sockets is, in the home."""
_SETTINGS = (
    "shared_buffers=128MB",
    f"max_connections={_MOST_CONNECTIONS}",
    "jit=off",
    "fsync=on",
    "listen_addresses=",
    "unix_socket_permissions=0777",  # the directory is private, and the server asks for the peer's name
    "log_min_messages=warning",
)


class EmbeddedError(OSError):
    """The embedded Postgres cannot be used; the text says what to change."""


@dataclass(slots=True)
class EmbeddedPostgres:
    """A running server, ours alone. `dsn` names the database `kfm`, `data` its directory, `pid` the postmaster."""

    dsn: str
    data: Path
    pid: int
    process: subprocess.Popen[bytes]
    sockets: Path
    lock: int
    again: Callable[[], Awaitable["subprocess.Popen[bytes]"]]
    """Starts another server process on the same data and the same sockets."""

    async def keep_alive(self, on_death: Callable[[int], None]) -> None:
        """Until cancelled: whenever the server dies, tell its exit code and start it again, under the same DSN."""
        while True:
            on_death(await self.wait())
            self.process = await self.again()
            self.pid = self.process.pid

    async def stop(self, patience: float = 30.0) -> None:
        """Stop it: clients are cut off, everything is written. Safe to call twice."""
        if self.lock < 0:
            return
        try:
            if not await _stop_process(self.process, patience):
                raise EmbeddedError(f"Postgres ({self.pid}) does not stop")
        finally:
            lock, self.lock = self.lock, -1
            shutil.rmtree(self.sockets, ignore_errors=True)
            os.close(lock)

    async def wait(self) -> int:
        """Wait until it ends, for whatever reason; answers the exit code."""
        while self.process.poll() is None:  # noqa: ASYNC110 (a child tells nobody but its reaper)
            await asyncio.sleep(0.25)
        return self.process.returncode


async def start(home: Path) -> EmbeddedPostgres:
    """Start the database under `home` (made if missing), and wait until it answers, recovery included.

    When this returns, no earlier process can write to the database any more: a postmaster that a killed
    one left behind is stopped first. Raises EmbeddedError, also if another server uses this home.
    """
    home, lock = _lock(home)
    try:
        account = await asyncio.to_thread(choose_account)
        data = await asyncio.to_thread(_data_directory, home, account)
        programs = await asyncio.to_thread(binaries, version_of(data), account)
        await _stop_orphan(data)
        if version_of(data) is None:
            await _initialise(data, programs, account)
        _write_access(data, account)
        return await _launch(home, data, programs, account, lock)
    except BaseException:
        os.close(lock)
        raise


def _lock(home: Path) -> tuple[Path, int]:
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise EmbeddedError(
            f"another server runs on {home}: stop it, or give this one a home of its own (KFM_HOME)"
        ) from None
    return home, lock


def _data_directory(home: Path, account: Account) -> Path:
    """Where the data lives: in the home, unless the account that runs the server cannot get there."""
    data = home / "postgres"
    moved = home / "postgres.path"
    if moved.exists():
        data = Path(moved.read_text("utf-8").strip())
    if account.reaches(data.parent):
        if not data.exists():
            account.make_directory(data)
        return data
    if data.exists():
        raise EmbeddedError(f"user {account.name}, who runs Postgres, cannot reach {data}")
    data = account.elsewhere(home) / "data"
    account.make_directory(data)
    fresh = moved.with_suffix(".new")
    fresh.write_text(f"{data}\n", "utf-8")
    fresh.replace(moved)
    return data


async def _initialise(data: Path, programs: Path, account: Account) -> None:
    fresh = data / "new"
    shutil.rmtree(fresh, ignore_errors=True)
    arguments = [
        str(programs / "initdb"),
        *("-D", str(fresh), "--username=kfm", "--auth=reject", "--encoding=UTF8"),
        *("--locale=C", "--no-sync", "--no-instructions"),
    ]
    output = data / "initdb.log"
    process = _spawn(arguments, output, account)
    try:
        code = await asyncio.to_thread(process.wait)
    except BaseException:
        process.kill()
        raise
    if code != 0:
        raise EmbeddedError(f"initdb failed: {output.read_text('utf-8', 'replace')[-4000:].strip()}")
    # The rename is the commit: a directory that a killed initdb left half made is never used.
    await asyncio.to_thread(os.sync)
    fresh.rename(data / "cluster")


def _write_access(data: Path, account: Account) -> None:
    """Only the user who runs this process gets in, through the socket."""
    cluster = data / "cluster"
    account.write(cluster / "pg_hba.conf", "local all kfm peer map=kfm\n")
    account.write(cluster / "pg_ident.conf", f'kfm "{account.caller}" kfm\n')


async def _launch(home: Path, data: Path, programs: Path, account: Account, lock: int) -> EmbeddedPostgres:
    _remove_left_sockets(home)
    sockets = Path(tempfile.mkdtemp(prefix="kfm-"))  # short: a socket's path may have about 100 bytes
    dsn = f"postgresql://kfm@/{{}}?host={quote(str(sockets), safe='')}"
    arguments = [str(programs / "postgres"), "-D", str(data / "cluster"), "-k", str(sockets)]
    for setting in _SETTINGS:
        arguments += ["-c", setting]

    async def run() -> subprocess.Popen[bytes]:
        return await _run(arguments, dsn.format("postgres"), home / "postgres.log", account)

    try:
        (home / _SOCKETS).write_text(str(sockets), encoding="utf-8")
        account.own(sockets)
        process = await run()
    except BaseException:
        shutil.rmtree(sockets, ignore_errors=True)
        raise
    return EmbeddedPostgres(dsn.format("kfm"), data, process.pid, process, sockets, lock, run)


def _remove_left_sockets(home: Path) -> None:
    """Remove the directory of sockets of a server that was killed; its Postgres, which may have ended well, leaves it."""
    with contextlib.suppress(OSError, ValueError):
        left = Path((home / _SOCKETS).read_text(encoding="utf-8"))
        if left.parent == Path(tempfile.gettempdir()) and left.name.startswith("kfm-"):
            left.rmdir()  # empty by then; what is not is somebody else's


async def _run(arguments: list[str], dsn: str, log: Path, account: Account) -> subprocess.Popen[bytes]:
    """Start the server and wait until it answers. Raises EmbeddedError with what it said."""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        start_at = _size(log)
        process = _spawn(arguments, log, account)
        try:
            if await _answers(dsn, process):
                return process
        except BaseException:
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(process.wait)
            raise
        # Children of a killed postmaster may need a moment to notice and let go of their memory.
        if asyncio.get_running_loop().time() > deadline:
            said = _said(log, start_at)
            raise EmbeddedError(f"Postgres does not start: {said}")
        await asyncio.sleep(0.2)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _said(log: Path, start_at: int) -> str:
    return log.read_bytes()[start_at:][-4000:].decode(errors="replace").strip()


def _spawn(arguments: list[str], log: Path, account: Account) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = account.options()
    with log.open("ab") as output:
        return subprocess.Popen[bytes](
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # a Ctrl-C in the terminal is for us to answer
            **options,
        )


async def _answers(dsn: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait for a real connection, as long as recovery takes; False if the server has ended."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + RECOVERY_SECONDS
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=10)
        except (
            OSError,
            TimeoutError,
            asyncpg.CannotConnectNowError,
            asyncpg.PostgresConnectionError,
        ) as error:
            if process.poll() is not None:
                return False
            if loop.time() > deadline:
                raise EmbeddedError(f"Postgres has not answered for {RECOVERY_SECONDS:g} s") from error
            await asyncio.sleep(0.01)
            continue
        try:
            if not await connection.fetchval("select exists (select from pg_database where datname = 'kfm')"):
                await connection.execute("create database kfm")
        finally:
            await connection.close()
        return True


async def _stop_process(process: subprocess.Popen[bytes], patience: float) -> bool:
    """Fast stop; an immediate one, with recovery at the next start, when that takes too long."""
    for number, seconds in ((signal.SIGINT, patience), (signal.SIGQUIT, 5.0)):
        if process.poll() is None:
            process.send_signal(number)
        try:
            await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            continue
        return True
    return False


async def _stop_orphan(data: Path) -> None:
    """Stop a postmaster that lives on this data; remove the pid file of one that does not live."""
    cluster = data / "cluster"
    file = cluster / "postmaster.pid"
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
        pid = abs(int(lines[0]))
    except (OSError, ValueError, IndexError):
        file.unlink(missing_ok=True)
        return
    loop = asyncio.get_running_loop()
    for number, seconds in ((signal.SIGINT, 10.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0)):
        if not _runs_on(pid, cluster):
            break
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            break
        deadline = loop.time() + seconds
        while _runs_on(pid, cluster) and loop.time() < deadline:  # noqa: ASYNC110 (not our child)
            await asyncio.sleep(0.01)
    else:
        if _runs_on(pid, cluster):
            raise EmbeddedError(f"an old Postgres ({pid}) on {data} cannot be stopped")
    # What is left is stale; its pid may be anybody's by now.
    file.unlink(missing_ok=True)
    if len(lines) > 4 and Path(lines[4]).name.startswith("kfm-"):
        shutil.rmtree(lines[4], ignore_errors=True)


def _runs_on(pid: int, cluster: Path) -> bool:
    """Whether the process is a postmaster on this cluster: pids are used again."""
    proc = Path("/proc") / str(pid)
    if Path("/proc/self").exists():
        try:
            state = (proc / "stat").read_text().rpartition(")")[2].split()[0]
            return state not in "ZX" and os.path.samefile(proc / "cwd", cluster)
        except OSError:
            return False
    shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    return str(cluster).encode() in shown.stdout


def _environment() -> dict[str, str]:
    """Nothing of ours: no PG* variable may change what is started."""
    return {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}

"""Reading the configuration again while the server runs: when its files change, on SIGHUP, and when an operator asks."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from kfm.admin.v1 import admin_service_pb2 as pb
from kfm.catalogue.errors import ConfigInvalid

from kfm_server import metrics
from kfm_server.settings.config import Change, Config
from kfm_server.settings.schema import Settings, SettingsError
from kfm_server.settings.sources import Stamp, stamp

log = structlog.get_logger(__name__)
Apply = Callable[[Settings], Awaitable[None]]
"""Makes the process go by these. Whole or not at all; SettingsError refuses."""
Tell = Callable[[Change], Awaitable[None]]
"""Tells of what was put in force."""
_Files = Mapping[Path, Stamp]


class ConfigReloader:
    """One per process. A configuration that cannot be used, or that `apply` refuses, leaves the one before in force."""

    def __init__(self, config: Config, apply: Apply, tell: Tell, *, poll: float = 1.0) -> None:
        """`poll`: seconds between two looks at the files; a file that is still being written is left for the next."""
        self._config = config
        self._apply = apply
        self._tell = tell
        self._poll = poll
        self._one_at_a_time = asyncio.Lock()
        self._read: _Files = config.in_force.files
        metrics.CONFIG_LOADED_AT.set(config.loaded_at)

    async def run(self) -> None:
        """Watch the files and `config.asked` until cancelled."""
        seen = self._read
        while True:
            try:
                async with asyncio.timeout(self._poll):
                    await self._config.asked.wait()
            except TimeoutError:
                before, seen = seen, await asyncio.to_thread(_now, self._config.in_force.files)
                if seen == self._read or seen != before:
                    continue
            self._config.asked.clear()
            with contextlib.suppress(SettingsError):  # it was logged, and is shown
                await self._reload()

    async def reload(self) -> pb.ReloadConfigResponse:
        """Read again, now. Raises ConfigInvalid."""
        try:
            change = await self._reload()
        except SettingsError as error:
            raise ConfigInvalid(str(error)[:4000]) from None
        return pb.ReloadConfigResponse(
            changed=[*change.applied, *change.need_restart],
            need_restart=change.need_restart,
            digest=change.digest,
        )

    def show(self) -> pb.GetConfigResponse:
        """All that is in force."""
        config = self._config
        read_at = Timestamp()
        read_at.FromMicroseconds(int(config.loaded_at * 1_000_000))
        return pb.GetConfigResponse(
            values=[
                pb.ConfigValue(name=name, value_json=v.shown, source=v.place, reloads=v.reloads)
                for name, v in sorted(config.values.items())
            ],
            digest=config.digest,
            loaded_at=read_at,
            last_error=config.last_error,
        )

    async def _reload(self) -> Change:
        async with self._one_at_a_time:
            config = self._config
            try:
                self._read = await asyncio.to_thread(_now, config.in_force.files)
                found = await asyncio.to_thread(config.read_again)
                await self._apply(config.would_be(found).settings)
            except SettingsError as error:
                config.failed(error)
                metrics.CONFIG_RELOADS.labels("refused").inc()
                metrics.CONFIG_IN_ERROR.set(1)
                log.error("config_refused", error=str(error))
                raise
            change = config.take(found)
            self._read = found.files
            metrics.CONFIG_RELOADS.labels("applied").inc()
            metrics.CONFIG_IN_ERROR.set(0)
            metrics.CONFIG_LOADED_AT.set(config.loaded_at)
            if change.applied or change.need_restart:
                log.info("config_changed", applied=change.applied, need_restart=change.need_restart)
            if change.applied:
                await self._tell(change)
            return change


def _now(files: _Files) -> _Files:
    """The same files as they are now."""
    return {path: stamp(path) for path in files}

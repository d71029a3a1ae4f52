"""Reading the configuration again: all of it or nothing."""

import asyncio
from pathlib import Path

import pytest
from kfm.catalogue.errors import ConfigInvalid
from kfm_server.settings import Change, Config, ConfigReloader, Settings, SettingsError

pytestmark = pytest.mark.requirement("R1")


class Process:
    """What goes by a configuration; it refuses what it is told to."""

    def __init__(self, home: Path) -> None:
        self.file = home / "config.toml"
        self.file.write_text("")
        self.config = Config.load({"home": str(home)}, environment={})
        self.refuses = ""
        self.meanwhile: str | None = None
        self.goes_by: list[Settings] = []
        self.told: asyncio.Queue[Change] = asyncio.Queue()
        self.reloader = ConfigReloader(self.config, self.apply, self.told.put, poll=0.01)

    async def apply(self, new: Settings) -> None:
        if self.refuses:
            raise SettingsError(self.refuses)
        if self.meanwhile is not None:
            self.file.write_text(self.meanwhile)
            self.meanwhile = None
        self.goes_by.append(new)


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """One with an empty config.toml."""
    return Process(tmp_path)


async def test_what_the_process_refuses_is_not_in_force(process: Process) -> None:
    process.file.write_text('[models.m]\nprovider = "scripted"')
    process.refuses = "models.m: no such script"
    with pytest.raises(ConfigInvalid, match="no such script"):
        await process.reloader.reload()
    assert not process.config.settings.models
    assert process.reloader.show().last_error == "models.m: no such script"
    process.refuses = ""
    changed = await process.reloader.reload()
    assert "models.m.provider" in changed.changed
    assert process.goes_by == [process.config.settings]
    assert process.reloader.show().last_error == ""


async def test_the_process_goes_by_what_was_in_force_where_a_restart_is_needed(process: Process) -> None:
    process.file.write_text('partitions = 4\nlog_level = "error"')
    first = await process.reloader.reload()
    again = await process.reloader.reload()
    assert (list(first.changed), list(first.need_restart)) == (["log_level", "partitions"], ["partitions"])
    assert (list(again.changed), list(again.need_restart)) == (["partitions"], ["partitions"])
    assert [(s.partitions, s.log_level) for s in process.goes_by] == [(16, "error")] * 2
    assert process.told.qsize() == 1


async def test_a_file_is_taken_up_once_it_changed_and_a_bad_one_once_it_was_mended(process: Process) -> None:
    watching = asyncio.create_task(process.reloader.run())
    try:
        process.file.write_text('log_level = "warning"')
        async with asyncio.timeout(10):
            assert (await process.told.get()).applied == ("log_level",)
            process.file.write_text("log_level = 3")
            with pytest.raises(ConfigInvalid):
                await process.reloader.reload()
            process.file.write_text('log_level = "debug"')
            assert (await process.told.get()).applied == ("log_level",)
        assert process.config.settings.log_level == "debug"
    finally:
        watching.cancel()


async def test_what_changes_after_it_was_read_is_taken_up_too(process: Process) -> None:
    process.file.write_text('log_level = "warning"')  # behind the first reading, before anybody watches
    process.meanwhile = 'log_level = "error"'
    watching = asyncio.create_task(process.reloader.run())
    try:
        async with asyncio.timeout(10):
            assert [(await process.told.get()).applied for _ in range(2)] == [("log_level",)] * 2
        assert [settings.log_level for settings in process.goes_by] == ["warning", "error"]
    finally:
        watching.cancel()


async def test_what_a_program_made_itself_stays_as_it_is() -> None:
    settings = Settings(log_level="error", partitions=4)
    config = Config.given(settings)
    seen: list[Change] = []

    async def apply(new: Settings) -> None:
        assert new == settings

    async def tell(change: Change) -> None:
        seen.append(change)

    changed = await ConfigReloader(config, apply, tell).reload()
    assert (list(changed.changed), seen) == ([], [])
    assert config.values["log_level"].place == "given"

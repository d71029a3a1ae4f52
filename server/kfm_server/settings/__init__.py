"""Settings: the only reader of the environment. Flags win over KFM_* variables, those over config.toml, that over defaults."""

from kfm_server.settings.config import Change, Config
from kfm_server.settings.reloading import ConfigReloader
from kfm_server.settings.schema import KEYS, CodeSettings, Settings, SettingsError, Telemetry, TurnLimits

__all__ = [
    "KEYS",
    "Change",
    "CodeSettings",
    "Config",
    "ConfigReloader",
    "Settings",
    "SettingsError",
    "Telemetry",
    "TurnLimits",
]

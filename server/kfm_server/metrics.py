"""The numbers that operators watch, on /metrics."""

from prometheus_client import Counter, Gauge, Histogram

TURNS_SUBMITTED = Counter("kfm_turns_submitted_total", "Turns that were accepted.")
TURNS_FINISHED = Counter("kfm_turns_finished_total", "Turns that ended.", ["outcome"])
LATE_RESULTS = Counter("kfm_late_results_total", "Results of superseded attempts that were refused.")
PARTITIONS_OWNED = Gauge("kfm_partitions_owned", "Partitions that this process owns.")
SESSIONS_IN_MEMORY = Gauge("kfm_sessions_in_memory", "Sessions with unfinished turns in this process.")
CALLS_IN_FLIGHT = Gauge("kfm_calls_in_flight", "Calls that count against max_in_flight.")
STREAMS = Gauge("kfm_streams", "Streams and waiting calls that count against max_streams.")
TASKS = Gauge("kfm_tasks", "Tasks of the event loop: what keeps growing under an even load is leaking.")
WATCHERS = Gauge("kfm_watchers", "Readers of turns in this process.")
WATCHER_UNSENT = Gauge("kfm_watcher_unsent_bytes", "Most bytes that any one reader has yet to be given.")
BUS_SECONDS = Histogram(
    "kfm_bus_seconds", "From an event's time to its delivery to a consumer group.", ["group", "topic"]
)
BUS_FAILURES = Counter("kfm_bus_failures_total", "Attempts of deliveries that failed.", ["group", "topic"])
BUS_DEAD_LETTERS = Counter("kfm_bus_dead_letters_total", "Messages that were buried.", ["group", "topic"])
BUS_LAG = Gauge("kfm_bus_lag", "Events that a consumer group has yet to read here.", ["group"])
CONFIG_RELOADS = Counter(
    "kfm_config_reloads_total", "Readings of the configuration after the start.", ["outcome"]
)
CONFIG_IN_ERROR = Gauge(
    "kfm_config_in_error", "1 while the latest reading could not be used; the one before is in force."
)
CONFIG_LOADED_AT = Gauge(
    "kfm_config_loaded_at_seconds", "When the configuration in force was read, in Unix time."
)

"""The numbers that operators watch, on /metrics."""

from prometheus_client import Counter, Gauge, Histogram

TURNS_SUBMITTED = Counter("kfm_turns_submitted_total", "Turns that were accepted.")
TURNS_STARTED = Counter("kfm_turns_started_total", "Turns that began, by personality.", ["personality"])
TURNS_FINISHED = Counter("kfm_turns_finished_total", "Turns that ended.", ["outcome"])
POOL_WAITING = Gauge("kfm_pool_waiting", "Attempts that wait here for a worker of the pool.", ["pool"])
POOL_OLDEST = Gauge(
    "kfm_pool_oldest_seconds",
    "How long the oldest of those has been asked for; 0 if there is none.",
    ["pool"],
)
POOL_LOST = Counter("kfm_pool_attempts_lost_total", "Attempts whose worker was lost.", ["pool"])
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
BUS_OLDEST = Gauge(
    "kfm_bus_oldest_seconds", "Age of the oldest event that a consumer group has yet to read here.", ["group"]
)
BUS_RESETS = Counter(
    "kfm_bus_resets_total", "Times that a broker had lost events that a group had read.", ["group", "channel"]
)
RELAYED = Counter("kfm_relay_published_total", "Events that the broker has confirmed.", ["topic"])
RELAY_FAILURES = Counter("kfm_relay_failures_total", "Publications that the broker did not confirm.")
RELAY_REFILLS = Counter(
    "kfm_relay_refills_total", "Refills of a topic's partition that had lost events.", ["topic"]
)
CONFIG_RELOADS = Counter(
    "kfm_config_reloads_total", "Readings of the configuration after the start.", ["outcome"]
)
CONFIG_IN_ERROR = Gauge(
    "kfm_config_in_error", "1 while the latest reading could not be used; the one before is in force."
)
CONFIG_LOADED_AT = Gauge(
    "kfm_config_loaded_at_seconds", "When the configuration in force was read, in Unix time."
)
SPANS_SENT = Counter("kfm_spans_sent_total", "Spans that the collector took.")
SPANS_DROPPED = Counter("kfm_spans_dropped_total", "Spans that nobody got.", ["reason"])
MODEL_CALLS = Counter(
    "kfm_model_calls_total", "Calls of models, every attempt counted.", ["model", "outcome"]
)
MODEL_BREAKER = Gauge(
    "kfm_model_breaker", "Breaker of a model's endpoint: 0 closed, 1 half open, 2 open.", ["model"]
)
MODEL_FALLBACKS = Counter(
    "kfm_model_fallbacks_total", "Calls that went to another model of the chain.", ["model", "to"]
)
MODEL_CACHE = Counter(
    "kfm_model_cache_total", "Calls looked up in the cache of replies.", ["model", "outcome"]
)
MODEL_FLIGHTS = Counter(
    "kfm_model_flights_total",
    "Calls with an idempotency key: start, hit, conflict, complete or fail.",
    ["event"],
)
MODEL_TOKENS = Counter("kfm_model_tokens_total", "Tokens of model calls.", ["model", "direction"])
MODEL_COST = Counter("kfm_model_cost_usd_total", "US dollars that model calls cost.", ["model"])
MODEL_SECONDS = Histogram(
    "kfm_model_call_seconds",
    "Time of model calls.",
    ["model"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)

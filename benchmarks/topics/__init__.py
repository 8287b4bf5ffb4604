"""One module a topic; each gives one table."""

from benchmarks.topics import http, idle, loads, pool, prefix, service, soak

TOPICS = {
    "http": http.measure,
    "service": service.measure,
    "loads": loads.measure,
    "prefix": prefix.measure,
    "pool": pool.measure,
    "idle": idle.measure,
    "soak": soak.measure,
}
"""By name, in the order in which they run."""

BY_REQUEST = frozenset({"soak"})
"""Run only when named: it takes ten minutes and shows nothing that moves."""

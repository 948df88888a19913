"""A backend that is asked again: retries within a budget, timeouts, hedged reads, and a circuit breaker.

policy.py    which errors are a store in trouble, which of them leave in doubt what happened, and how long to wait
breaker.py   who is let through to a store that failed
calls.py     one call, bounded in time, under the breaker; what it was like, in numbers
feed.py      bytes on their way, so that a reading can be timed, hedged and taken up again
backend.py   ResilientBackend: what may be repeated, and what follows when it is in doubt (law 7)
"""

from ostraka.backends.resilience.backend import ResilientBackend
from ostraka.backends.resilience.breaker import BreakerState
from ostraka.backends.resilience.calls import Statistics
from ostraka.backends.resilience.policy import Resilience

__all__ = ["BreakerState", "Resilience", "ResilientBackend", "Statistics"]

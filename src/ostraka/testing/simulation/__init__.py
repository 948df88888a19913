"""The whole store in one process, under one seed (law 12): the machine, its disks, its time and its threads are played.

Production code runs as it is: state, commits, recovery, segments, pools, collection, compaction, healing. Played are
what lies beneath it: files (`files`, `disk`), clock and randomness (`machine`), threads, locks, queues and executors
(`threads`), the event loop (`loop`), and the key-value library (`maps`). Several processes serve one store, and may be
killed at every system call; the power goes and takes from each disk what was not synced; disks fail in every way.

::

    machine, scheduler   processes, power, and whose turn it is: all that can vary is drawn from one generator
    linking              puts the played names in the place of the standard library's and LMDB's
    service, adversary   a served store as `ostraka serve` runs it, and what goes wrong with it
    clients, history     what is asked of it, and whether any order of events explains the answers
    checks, operator     what has to be true when it has come to rest, and who brings it there
    schedule             one run of all of this, from a seed; ``python -m ostraka.testing.simulation`` runs many

Needs greenlet.
"""

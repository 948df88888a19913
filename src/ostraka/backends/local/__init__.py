"""The backend in a directory: a file for each path, published whole and synced (law 9).

    backend.py      LocalBackend: the calls, and what of them waits in threads
    place.py        the root and the ways into it; what a file's ETag is; which error the kernel's numbers are
    staging.py      files that nobody sees yet, and how one is published: nothing else renames or unlinks a path
    directories.py  when their names are durable, and which are empty
    uploads.py      staging files that outlive their writer, under a token
    walk.py         all paths in byte order
    flow.py         bytes on their way between the loop and a file
    threads.py      work in threads, and what becomes of it when its caller is cancelled

On disk is what the paths say, and beside it one directory, ``.ostraka-staging``, with ``writes/`` (of writers that are
at it now), ``uploads/`` and ``locks/``. All of it may be removed while nobody has the backend open.
"""

from ostraka.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]

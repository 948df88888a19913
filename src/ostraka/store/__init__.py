"""A whole store out of its rooms: keys, recovery, opening, disks that come and go, fsck.

Doors (server, command line, library) open a `Store` here and use what is in it; nothing below knows this room.
"""

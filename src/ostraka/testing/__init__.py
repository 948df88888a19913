"""What Ostraka is tested with, public so that users can test with it too.

- ``powercut``: a directory that loses at a power cut whatever was not synced, and that can be made to fail.
- ``processes``: a real server in a process of its own, and clients for it.

Nothing is imported here: FUSE and boto3 are wanted only by those who ask for them.
"""

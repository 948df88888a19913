"""A store as its client sees it, whichever way leads to it, and what is done with the objects in one.

    types.py      `Client`: what every way to a store can do, and what it tells
    here.py       the way through this process: over ostraka.library, when nobody serves the store
    s3.py         the way over S3: of a server that serves it, on this machine or another
    wire.py       beneath s3.py: connections, retries, and certificates that are known
    signing.py    beneath s3.py: requests are signed (version 4)
    answers.py    beneath s3.py: XML, and S3's errors as the kinds of errors.py
    bodies.py     what is sent, as often as it has to be
    transfer.py   one object: upload, download, copy, each verified end to end
    verifying.py  what was read is what was stored
    actions.py    what is to be done with one object
    walk.py       a directory as the keys that it would have, in their order
    sync.py       what has to be done so that two sides are alike
    crew.py       many of them at once, until all are done or somebody interrupts

S3 is spoken by a small client of our own over the standard library's http.client, and botocore is no dependency: the
server's own half of the signature is half of a client already, its checksums are those that have to be sent, and what
is left is short. Also weighed: awscrt's S3 client (1 GiB of memory at least, no way to pin a certificate, its own
threads to be interrupted), obstore (no buckets, verifies no checksum of what it reads).
"""

"""What begins in an interpreter of its own, for starts.py, which looks at the clock: python -m load.begin WHAT DIR

Says "ready" after the first answer, then waits for the end of its standard input. The answer is a bucket that was made:
every one of them is asked for the same. Imports nothing but what it begins: moto's environment has no Ostraka, and ours
has no moto; and no boto3, whose import would be most of what is measured.
"""

import http.client
import sys

from load.signing import ACCESS, SECRET, Signer


def library(directory: str) -> None:
    import ostraka

    with ostraka.open(directory) as store:
        store.create_bucket("bench")
        ready()


def fixture(directory: str) -> None:
    from ostraka.testing import serve

    with serve(directories=[directory]) as endpoint:
        make_bucket(endpoint.url, endpoint.access_key, endpoint.secret_key)
        ready()


def moto_thread(directory: str) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    make_bucket(f"http://{host}:{port}", ACCESS, SECRET)
    ready()
    server.stop()


def make_bucket(url: str, access: str, secret: str) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.connect()
    connection.sock.sendall(Signer(host, int(port), access, secret).head("PUT", "/bench"))
    answer = http.client.HTTPResponse(connection.sock, method="PUT")
    answer.begin()
    assert answer.status == 200, (answer.status, answer.read())
    connection.close()


def ready() -> None:
    print("ready", flush=True)
    sys.stdin.read()


BEGINNINGS = {"library": library, "fixture": fixture, "moto-thread": moto_thread, "nothing": lambda _: ready()}

if __name__ == "__main__":
    BEGINNINGS[sys.argv[1]](sys.argv[2])

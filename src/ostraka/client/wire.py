"""Requests over the wire: kept connections, retries, a certificate that is known, and an end when somebody interrupts.

A request is sent again when no answer came or the server said that it could not (5xx): every body can be read again,
and every request of S3 that we send may be repeated. Between two attempts lies a pause that doubles and has jitter.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import msgspec

from ostraka.client.bodies import BytesBody
from ostraka.client.types import Body, OnBytes
from ostraka.errors import Forbidden, Invalid, Truncated, Unavailable
from ostraka.host import Host
from ostraka.s3.checksums import ALGORITHMS, DEFAULT, encode
from ostraka.sigv4 import UNSIGNED, Keys, Scope, signed_headers

CONNECT_SECONDS_MAX = 10.0
SILENCE_SECONDS_MAX = 120.0
ATTEMPTS_MAX = 6
STRANGER_ATTEMPTS_MAX = 2  # where nobody ever answered: the URL is wrong, or no server runs
PAUSE_SECONDS = 0.2  # before the second attempt; doubled before each further one
AGAIN = frozenset((429, 500, 502, 503, 504))
NOTHING = BytesBody(b"")

Connection = http.client.HTTPConnection


class Address(msgspec.Struct, frozen=True):
    """Where a server is. ``pinned``: the certificate (DER) that it must show, instead of one that is vouched for."""

    url: str
    tls: bool
    host: str
    port: int
    pinned: bytes = b""

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False


def address_of(url: str, certificate: str = "") -> Address:
    """The address in a URL: http(s)://HOST[:PORT]. ``certificate``: the PEM text that begins with the server's own.

    Raises Invalid.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise Invalid(f"{url} is no URL of a server: {e}", reason="url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(f"{url} is no URL of a server: give http://HOST:PORT or https://HOST:PORT", reason="url")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise Invalid(f"{url}: a server's URL ends with its port, such as http://127.0.0.1:9000", reason="url")
    tls = parts.scheme == "https"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname, parts.hostname)  # it listens on all: here, too
    pinned = b""
    if certificate:
        begin, end = certificate.index(ssl.PEM_HEADER), certificate.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
        pinned = ssl.PEM_cert_to_DER_cert(certificate[begin:end])
    return Address(url.rstrip("/"), tls, host, port or (443 if tls else 80), pinned)


class Answer:
    """An answer whose body is not read yet. Closed, its connection is used again if the body was read to its end."""

    def __init__(self, wire: "Wire", connection: Connection, response: http.client.HTTPResponse) -> None:
        self._wire = wire
        self._connection = connection
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.getheaders()}

    def readinto(self, view: memoryview) -> int:
        """Some bytes of the body; 0 at its end. Raises OSError and HTTPException."""
        return self._response.readinto(view)

    def read(self, size_max: int) -> bytes:
        """All of the body. Raises Unavailable if it is longer than it may be."""
        data = self._response.read(size_max + 1)
        if len(data) > size_max:
            raise Unavailable("the server's answer is longer than one of S3 can be", reason="answer")
        return data

    def close(self) -> None:
        reusable = self._response.isclosed() and not self._response.will_close
        self._response.close()
        self._wire.give_back(self._connection, reusable)

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Wire:
    """One server, any number of threads."""

    def __init__(self, address: Address, keys: Keys, region: str, host: Host, ca_file: str = "") -> None:
        self.address = address
        self._host = host
        self._keys = keys
        self._scope = Scope(region)
        self._context = _context(address, ca_file)
        self._sign_bodies = not address.tls and not address.loopback
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self.stop = threading.Event()
        self._answered = False  # ever: a server is there

    # -- requests

    def request(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body = NOTHING,
        on_bytes: OnBytes | None = None,
        *,
        guard: bool = False,
        last_word: bool = False,
    ) -> Answer:
        """Send it until it is answered with anything but a failure of the server, or `ATTEMPTS_MAX` times.

        ``guard``: a checksum of the body goes with it. ``last_word``: also after `interrupt`, and only once. Raises
        Unavailable; what the server answers is the caller's.
        """
        given = dict(headers or {})
        digests = _digests(body, guard, self._sign_bodies)
        given.update(digests.headers)
        attempt = 0
        while True:
            attempt += 1
            patient = attempt < ATTEMPTS_MAX and not last_word
            sent = _Count(on_bytes)
            try:
                answer = self._once(method, path, query, given, body, digests.payload, sent, last_word)
            except (OSError, http.client.HTTPException) as e:
                sent.undo()
                patient = patient and (self._answered or attempt < STRANGER_ATTEMPTS_MAX)
                if not self._again(patient, attempt, last_word):
                    raise self._gone(e) from None
                continue
            if answer.status not in AGAIN or not self._again(patient, attempt, last_word):
                return answer
            sent.undo()
            answer.close()

    def _once(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: Body,
        payload: str,
        sent: "_Count",
        last_word: bool,
    ) -> Answer:
        connection = self._take(last_word)
        try:
            named, now = {**headers, "host": _host_header(self.address)}, self._host.clock.time()
            signed = signed_headers(self._keys, self._scope, now, method, path, query, named, payload)
            target = f"{path}?{query}" if query else path
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in signed.items():
                connection.putheader(name, value)
            if body.size or method in ("PUT", "POST"):
                connection.putheader("content-length", str(body.size))
            connection.endheaders()
            refusal = _send(connection, body, sent)
            try:
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as e:
                raise refusal or e from None
            if refusal is not None:
                response.will_close = True
        except BaseException:
            self.give_back(connection, False)
            raise
        self._answered = True
        return Answer(self, connection, response)

    def _again(self, patient: bool, attempt: int, last_word: bool) -> bool:
        """Whether to try once more; the pause before it."""
        if not patient or (self.stop.is_set() and not last_word):
            return False
        jitter = 0.5 + int.from_bytes(self._host.random(2), "big") / 65536
        self.stop.wait(PAUSE_SECONDS * 2 ** (attempt - 1) * jitter)
        return not self.stop.is_set()

    def _gone(self, error: Exception) -> Unavailable | Forbidden:
        url = self.address.url
        if self.stop.is_set():
            return Unavailable("interrupted", reason="interrupted")
        if isinstance(error, ssl.SSLCertVerificationError):
            return Forbidden(
                f"{url} shows a certificate that nobody here vouches for ({error.verify_message}): name its "
                "authority's file in AWS_CA_BUNDLE",
                reason="certificate",
            )
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, ssl.SSLError):
            return Unavailable(f"{url} does not speak TLS as we do ({why}): http:// perhaps?", reason="tls")
        if self._answered:
            return Unavailable(f"{url} went away ({why}): give the command again once it is back", reason="gone")
        return Unavailable(f"no server answers at {url} ({why}): is it running there?", reason="url")

    # -- connections

    def _take(self, last_word: bool) -> Connection:
        with self._lock:
            if self.stop.is_set() and not last_word:
                raise ConnectionAbortedError("interrupted")
            if self._idle:
                connection = self._idle.pop()
                self._busy.add(connection)
                return connection
        connection = self._connect()
        with self._lock:
            self._busy.add(connection)
        return connection

    def _connect(self) -> Connection:
        where = self.address
        if self._context is None:
            connection = Connection(where.host, where.port, timeout=CONNECT_SECONDS_MAX)
        else:
            connection = http.client.HTTPSConnection(
                where.host, where.port, timeout=CONNECT_SECONDS_MAX, context=self._context
            )
        try:
            connection.connect()
            sock: socket.socket = connection.sock
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(SILENCE_SECONDS_MAX)
            if where.pinned and isinstance(sock, ssl.SSLSocket) and sock.getpeercert(True) != where.pinned:
                raise ssl.SSLError("it shows another certificate than the one it was started with")
        except BaseException:
            connection.close()
            raise
        return connection

    def give_back(self, connection: Connection, reusable: bool) -> None:
        """Keep a connection for the next request, or close it."""
        with self._lock:
            self._busy.discard(connection)
            if reusable and not self.stop.is_set():
                self._idle.append(connection)
                return
        connection.close()

    def interrupt(self) -> None:
        """Requests under way end with an error, further ones do not begin."""
        self.stop.set()
        with self._lock:
            for connection in self._busy:
                sock = connection.sock
                if sock is not None:
                    try:
                        sock.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class _Count:
    """Bytes of one attempt that were told as sent, to be taken back if it has to be made again."""

    def __init__(self, on_bytes: OnBytes | None) -> None:
        self._on_bytes: Callable[[int], None] = on_bytes or (lambda size: None)
        self._told = 0

    def add(self, size: int) -> None:
        self._told += size
        self._on_bytes(size)

    def undo(self) -> None:
        self._on_bytes(-self._told)


class _Digests(msgspec.Struct, frozen=True):
    headers: dict[str, str]
    payload: str


def _digests(body: Body, guard: bool, sign: bool) -> _Digests:
    """One pass over the body for all that is to be said of it ahead."""
    sums = {name: ALGORITHMS[name].new() for name, wanted in ((DEFAULT, guard), ("SHA256", sign)) if wanted}
    if body.size and sums:
        for piece in body.pieces():
            for sum_ in sums.values():
                sum_.update(piece)
    headers = {ALGORITHMS[DEFAULT].header: encode(sums[DEFAULT].digest())} if guard else {}
    return _Digests(headers, sums["SHA256"].digest().hex() if sign else UNSIGNED)


def _send(connection: Connection, body: Body, sent: _Count) -> OSError | None:
    """Send the body; the error if the server takes no more of it, which may have a reason to be read."""
    size = 0
    for piece in body.pieces():
        try:
            connection.send(piece)
        except (BrokenPipeError, ConnectionResetError) as e:
            return e
        sent.add(len(piece))
        size += len(piece)
    if size != body.size:
        raise Truncated(f"a body of {body.size} bytes gave {size}", reason="body")
    return None


def _host_header(address: Address) -> str:
    name = f"[{address.host}]" if ":" in address.host else address.host
    return name if address.port == (443 if address.tls else 80) else f"{name}:{address.port}"


def _context(address: Address, ca_file: str) -> ssl.SSLContext | None:
    if not address.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as e:
        raise Invalid(f"AWS_CA_BUNDLE={ca_file}: {e.strerror or e}", reason="certificate") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if address.pinned:  # the very certificate is known, from the server itself: stronger than anybody's word for it
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

"""A DNS server that knows one name, for what gRPC does with several addresses."""

from __future__ import annotations

import socket
import struct
import threading

_A, _CLASS_IN, _ANSWER, _NO_ERROR = 1, 1, 0x8180, 0


class DnsServer:
    """Answers every question for an IPv4 address with all of its own; no other records (RFC 1035, section 4)."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="dns-server")

    def __enter__(self) -> DnsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(1500)
            if not query:
                return
            end = query.index(b"\0", 12) + 5
            question = query[12:end]
            kind = struct.unpack("!H", question[-4:-2])[0]
            known = self._addresses if kind == _A else []
            records = b"".join(
                b"\xc0\x0c" + struct.pack("!HHIH", _A, _CLASS_IN, 60, 4) + socket.inet_aton(address)
                for address in known
            )
            header = query[:2] + struct.pack("!HHHHH", _ANSWER | _NO_ERROR, 1, len(known), 0, 0)
            self._socket.sendto(header + question + records, sender)

"""Where a server is: what the caller writes as a target, as gRPC understands it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from polarvec._errors import InvalidRequest

DEFAULT_TARGET = "localhost:50051"
_DEFAULT_PORT = 50051
_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "vsock:", "xds:")
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
_ENDS_WITH_PORT = re.compile(r":[0-9]+$")


def parse_targets(target: str | Sequence[str]) -> tuple[str, ...]:
    """One target or several, each as gRPC understands it.

    Raises:
        InvalidRequest: There is none, or one is malformed.
        TypeError: One is no str.
    """
    targets = (target,) if isinstance(target, (str, bytes)) else tuple(target)
    if not targets:
        raise InvalidRequest("The list of targets is empty; give host:port of at least one server.")
    for one in targets:
        if not isinstance(one, str):
            raise TypeError(f"a target is of type {type(one).__name__}; give a str or a list of str")
    return tuple(map(parse_target, targets))


def parse_target(target: str) -> str:
    """A target that gRPC understands: `host`, `host:port`, or a gRPC name such as dns:///host:port or unix:/path.

    Raises:
        InvalidRequest: It is empty or a URL of another protocol, or the port is no port.
    """
    target = target.strip()
    if not target or any(character.isspace() for character in target):
        raise InvalidRequest("The target is empty or has a space in it; give host:port, such as localhost:50051.")
    if target.startswith("dns:") and not _ENDS_WITH_PORT.search(target):  # gRPC itself would go to port 443.
        return f"{target}:{_DEFAULT_PORT}"
    if target.startswith(_SCHEMES):
        return target
    if "/" in target:
        raise InvalidRequest(f"The target {target!r} is no gRPC target; give host:port without a scheme or a path.")
    if "," in target:
        raise InvalidRequest(f"The target {target!r} has a comma in it; give several targets as a list.")
    match = _HOST_AND_PORT.fullmatch(target)
    if match is None or (match[2] and not 0 < int(match[2]) < 65536):
        raise InvalidRequest(f"The target {target!r} has no valid port; give host:port, for IPv6 [address]:port.")
    return target if match[2] else f"{target}:{_DEFAULT_PORT}"

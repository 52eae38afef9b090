"""TLS of the connection: whom the client trusts and who it says it is; files are read when a client is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike, fspath

import grpc

from polarvec._errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Tls:
    """An encrypted connection; `Tls()` trusts the roots that gRPC brings.

    Every certificate and key is a path of a PEM file, or the PEM itself as bytes.
    """

    ca: str | PathLike[str] | bytes | None = None
    """Certificates that the server's must come from; None means gRPC's own roots."""
    certificate: str | PathLike[str] | bytes | None = None
    """The client's certificate, with those between it and the root: for servers that ask for one (mTLS)."""
    key: str | PathLike[str] | bytes | None = field(default=None, repr=False)
    """The client certificate's private key."""
    server_name: str | None = None
    """The name that the server's certificate has, where it is not the target's."""


def tls_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """What gRPC needs to connect.

    Raises:
        InvalidRequest: A file cannot be read, is no PEM, or half of certificate and key is missing.
    """
    if (tls.certificate is None) != (tls.key is None):
        raise InvalidRequest("Tls has a certificate or a key without the other; give both, or neither.")
    return grpc.ssl_channel_credentials(
        root_certificates=_pem("ca", tls.ca),
        private_key=_pem("key", tls.key),
        certificate_chain=_pem("certificate", tls.certificate),
    )


def tls_options(tls: Tls | None) -> tuple[tuple[str, str], ...]:
    """Channel options that make the server's certificate be held against `server_name`."""
    if tls is None or tls.server_name is None:
        return ()
    return (("grpc.ssl_target_name_override", tls.server_name), ("grpc.default_authority", tls.server_name))


def _pem(name: str, source: str | PathLike[str] | bytes | None) -> bytes | None:
    if source is None:
        return None
    if isinstance(source, bytes):
        content, what = source, f"Tls.{name}"
    else:
        what = f"Tls.{name}, the file {fspath(source)!r},"
        try:
            with open(source, "rb") as file:
                content = file.read()
        except OSError as error:
            raise InvalidRequest(f"{what} cannot be read ({error.strerror}); give a path of a PEM file.") from error
    if b"-----BEGIN " not in content:
        raise InvalidRequest(f"{what} is no PEM; give a PEM file's path, or its content as bytes.")
    return content

"""TLS of the public doors: one certificate for gRPC and HTTP, and clients' certificates on request."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import grpc

from polarvec_server.errors import ConfigError


class TlsFiles:
    """The PEM files of a server that speaks TLS."""

    def __init__(self, cert_file: str, key_file: str, client_ca_file: str) -> None:
        """Checks the files. Raises ConfigError if one cannot be read, or the key is not the certificate's."""
        self._cert_file, self._key_file, self._client_ca_file = cert_file, key_file, client_ca_file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password callback a key with a password would ask the terminal.
            context.load_cert_chain(cert_file, key_file, password=_no_password)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"POLARVEC_TLS_CERT_FILE {cert_file} and POLARVEC_TLS_KEY_FILE {key_file} are no certificate and "
                f"its key without a password ({_cause(error)})."
            ) from error
        try:
            if client_ca_file:
                context.load_verify_locations(client_ca_file)
        except OSError as error:
            raise ConfigError(
                f"POLARVEC_TLS_CLIENT_CA_FILE {client_ca_file} holds no certificates ({_cause(error)})."
            ) from error

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Returns what a gRPC server listens with."""
        pair = (Path(self._key_file).read_bytes(), Path(self._cert_file).read_bytes())
        if not self._client_ca_file:
            return grpc.ssl_server_credentials([pair])
        roots = Path(self._client_ca_file).read_bytes()
        return grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=True)

    def uvicorn_options(self) -> dict[str, Any]:
        """Returns what an HTTP server listens with."""
        options: dict[str, Any] = {"ssl_certfile": self._cert_file, "ssl_keyfile": self._key_file}
        if self._client_ca_file:
            options |= {"ssl_ca_certs": self._client_ca_file, "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return options


def read_tls(cert_file: str, key_file: str, client_ca_file: str) -> TlsFiles | None:
    """Returns the files of a server that speaks TLS, None for one that does not. Raises ConfigError."""
    return TlsFiles(cert_file, key_file, client_ca_file) if cert_file else None


def _no_password() -> str:
    raise ValueError("the key has a password")


def _cause(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "SSL"
    return getattr(error, "strerror", None) or str(error)

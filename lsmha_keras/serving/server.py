"""Runs a service in this process until a signal stops it."""

import errno
import math
import socket

from lsmha_keras.errors import StorageError

# Seconds after the longest answer in which connections are closed.
_CLOSING = 5


def open_socket(host, port):
    """Takes the address of a service, before anything is loaded.

    Args:
        host: str, name or address of an interface.
        port: int; 0 takes a free one.

    Returns:
        A `socket.socket` that listens.

    Raises:
        OSError: if the address is in use, not of this machine, or not allowed.

    Example:

    ```python
    with open_socket("127.0.0.1", 0) as opened:
        print(address(opened))
    ```
    """
    received = f"Received: --host {host} --port {port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: "The port is in use; choose another, or 0 for any that is free.",
            errno.EACCES: "The system does not allow this port; choose one above 1023.",
            errno.EADDRNOTAVAIL: "This machine has no such address.",
        }
        unknown = f"The address cannot be used: {error.strerror or error}."
        reason = reasons.get(error.errno, unknown)
        raise StorageError(f"{reason} {received}") from error


def address(opened):
    """Returns the address of a listening socket as a URL."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(app, opened, seconds, verbose=False):
    """Serves until SIGTERM or Ctrl-C; requests that have begun are answered first.

    Args:
        app: ASGI application.
        opened: `socket.socket` that listens; closed at the end.
        seconds: float, what an answer may take.
        verbose: bool, whether each request is logged.

    Example:

    ```python
    run_server(create_app(predictor), open_socket("127.0.0.1", 8000), seconds=30)
    ```
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="info" if verbose else "warning",
        access_log=verbose,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(seconds) + _CLOSING,
    )
    try:
        uvicorn.Server(config).run(sockets=[opened])
    except KeyboardInterrupt:
        # Uvicorn answers the signal by a stop in good order, and raises it again afterwards.
        return

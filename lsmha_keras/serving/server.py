"""Runs a service in this process until it gets a signal."""

import errno
import math
import socket

from lsmha_keras.errors import StorageError

# Seconds to close connections, after the time of the longest answer.
_CLOSING = 5


def open_socket(host, port):
    """Opens the socket of a service; called before a model is loaded, to fail early.

    Args:
        host: str, name or address of an interface.
        port: int; 0 means any free one.

    Returns:
        A listening `socket.socket`.

    Raises:
        OSError: if the address is in use, not this machine's, or not allowed.

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
    """Serves until SIGTERM or Ctrl-C, then finishes the requests in progress.

    Args:
        app: ASGI application.
        opened: listening `socket.socket`; it is closed at the end.
        seconds: float, time limit of an answer.
        verbose: bool, whether to log each request.

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
        # Uvicorn shuts down gracefully on a signal, and raises it again afterwards.
        return

"""Where the chief of a search is, and whether it is there."""

import os
import socket

_VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def check_environment():
    """Checks KerasTuner's environment variables for a search on several machines.

    Returns:
        bool, whether they are set.

    Raises:
        ValueError: if only some are set, or the port is none.

    Example:
        >>> check_environment()
        False
    """
    values = {name: os.environ.get(name) for name in _VARIABLES}
    missing = [name for name, value in values.items() if not value]
    if len(missing) == len(_VARIABLES):
        return False
    if missing:
        raise ValueError(
            f"A search on several machines needs all of {', '.join(_VARIABLES)}. "
            f"Received: an environment without {', '.join(missing)}"
        )
    port = values["KERASTUNER_ORACLE_PORT"]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"A port is in 1 .. 65535. Received: KERASTUNER_ORACLE_PORT={port!r}")
    return True


def check_chief(timeout=60.0):
    """Waits, on a worker, until the chief answers.

    Args:
        timeout: float, seconds.

    Raises:
        ConnectionError: if it does not.

    Example:

    ```python
    check_chief(timeout=10)
    ```
    """
    import grpc

    address = chief_address()
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=timeout)
        except grpc.FutureTimeoutError:
            raise ConnectionError(
                f"The chief did not answer at {address} within {timeout:g} s. Start it first, with "
                "KERASTUNER_TUNER_ID=chief and the same address, and let the network through. "
                f"Received: KERASTUNER_ORACLE_IP:PORT={address}"
            ) from None


def check_port():
    """Checks, on the chief, that it can listen at its address.

    Raises:
        OSError: if another process does, or the address is not of this machine.

    Example:

    ```python
    check_port()
    ```
    """
    host, _, port = chief_address().rpartition(":")
    try:
        # gRPC itself would share the port, and half of the workers would ask the other process.
        family, *_, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise OSError(
            f"The chief cannot listen at {host}:{port} ({error.strerror}); choose another port, or "
            f"this machine's address. Received: KERASTUNER_ORACLE_IP:PORT={host}:{port}"
        ) from error


def chief_address():
    """Returns the chief's address, "host:port", by KerasTuner's environment variables."""
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from lsmha_keras.studies.chief_address import check_chief, check_environment, check_port

pytestmark = pytest.mark.backend_free


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        probe.listen()
        yield str(probe.getsockname()[1])


def use(monkeypatch, tuner="worker0", host="127.0.0.1", port="8000"):
    values = {"TUNER_ID": tuner, "ORACLE_IP": host, "ORACLE_PORT": port}
    for name, value in values.items():
        if value is None:
            monkeypatch.delenv(f"KERASTUNER_{name}", raising=False)
        else:
            monkeypatch.setenv(f"KERASTUNER_{name}", value)


def test_environment(monkeypatch):
    use(monkeypatch, None, None, None)
    assert check_environment() is False
    use(monkeypatch)
    assert check_environment() is True


@pytest.mark.parametrize(
    "values, message",
    [
        ({"port": None}, "without KERASTUNER_ORACLE_PORT"),
        ({"tuner": None, "host": None}, "without KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP"),
        ({"port": "http"}, "KERASTUNER_ORACLE_PORT='http'"),
        ({"port": "70000"}, "65535"),
    ],
)
def test_bad_environment(monkeypatch, values, message):
    use(monkeypatch, **values)
    with pytest.raises(ValueError, match=message):
        check_environment()


def test_a_port_that_is_taken(monkeypatch, port):
    use(monkeypatch, "chief", port=port)
    with pytest.raises(OSError, match=rf"127.0.0.1:{port} .*another port"):
        check_port()


def test_no_chief(monkeypatch):
    pytest.importorskip("grpc")
    use(monkeypatch, port="9")  # "discard": nobody listens there
    with pytest.raises(ConnectionError, match="127.0.0.1:9 within 0.5 s"):
        check_chief(timeout=0.5)


def test_a_port_that_grpc_would_share(monkeypatch):
    grpc = pytest.importorskip("grpc")
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    use(monkeypatch, "chief", port=str(port))
    with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
        check_port()
    check_chief(timeout=10)  # and a chief that is there is found
    server.stop(None).wait()
    check_port()

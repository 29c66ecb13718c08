"""`lsmha serve`: its process from the start to the end, and what it refuses."""

import contextlib
import http.client
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

import lsmha_keras as lsmha
from lsmha_keras import cli
from lsmha_keras.serving.server import address, open_socket
from tests.checks import PATIENCE
from tests.models.test_one_photo import photo

ROOT = pathlib.Path(lsmha.__file__).parent.parent
FRAMEWORKS = ("keras", "keras_hub", "tensorflow", "jax", "torch", "onnx")
# As the command, and then it says what has been imported.
SERVE = f"""
import sys
from lsmha_keras.cli import main
status = main(sys.argv[1:])
print([name for name in {FRAMEWORKS} if name in sys.modules])
sys.exit(status)
"""
pytestmark = pytest.mark.backend_free


@contextlib.contextmanager
def running(*options):
    """A service in a process of its own: the process and (host, port)."""
    pytest.importorskip("fastapi", reason='a service needs `pip install "lsmha-keras[serve]"`')
    pytest.importorskip("onnxruntime", reason="computes")
    kept = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", "lsmha-small", "--port", "0"]
        + ["--seconds", str(PATIENCE), *options],
        env={**kept, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        found = re.search(r" in onnxruntime: http://127\.0\.0\.1:(\d+)$", line)
        assert found, line or process.communicate(timeout=PATIENCE)[1]
        yield process, ("127.0.0.1", int(found[1]))
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.mark.skipif(os.name != "posix", reason="these signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_after_the_requests_that_have_begun(number):
    file = io.BytesIO()
    Image.fromarray(photo(64, 64)).save(file, "PNG")
    body = file.getvalue()
    with running() as (process, place):
        connection = http.client.HTTPConnection(*place, timeout=PATIENCE)
        connection.putrequest("POST", "/classify?top=1")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:100])
        wait_until(lambda: requests_in_progress(place) == 1)

        busy = subprocess.run(
            [sys.executable, "-m", "lsmha_keras.cli", "serve", "lsmha-small"]
            + ["--port", str(place[1])],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *sys.path]))},
            capture_output=True,
            text=True,
        )
        assert (busy.returncode, busy.stdout) == (2, "")
        assert busy.stderr.count("\n") == 1 and "The port is in use; choose another" in busy.stderr
        assert f"Received: --host 127.0.0.1 --port {place[1]}" in busy.stderr

        process.send_signal(number)
        wait_until(lambda: refuses(place))
        connection.send(body[100:])
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200
        label, _ = lsmha.Predictor("lsmha-small", runtime="onnxruntime")(photo(64, 64))[0]
        assert answer["images"][0]["classes"][0]["name"] == label
        # Neither Keras nor a backend was imported.
        assert process.communicate(timeout=PATIENCE) == ("stopped\n[]\n", "")
        assert process.returncode == 0


def requests_in_progress(place):
    connection = http.client.HTTPConnection(*place, timeout=PATIENCE)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return float(re.search(r"^lsmha_requests_in_progress (\S+)$", text, re.M)[1])


def refuses(place):
    try:
        socket.create_connection(place, timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart", "prometheus_client"])
def test_a_missing_package_is_one_line(package, monkeypatch, capsys):
    for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        # None stands for a module that cannot be imported.
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    assert cli.main(["serve", "lsmha-small"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"The package {package} is needed" in error
    assert 'pip install "lsmha-keras[serve]"' in error


@pytest.fixture
def installed(monkeypatch):
    """Lets the command go on to what comes after the look at its packages."""
    for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name, sys))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lsmha-smal"], "lsmha-small"),
        (["cct_2_3x2_h16"], "without trained weights"),
        (["lsmha-small", "--host", "192.0.2.1"], "This machine has no such address."),
        (["lsmha-small", "--host", "no such host"], "The address cannot be used"),
    ],
)
def test_refused_in_one_line(arguments, message, installed, capsys):
    assert cli.main(["serve", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "expected a port from 0 to 65535. Received: 65536"),
        (["--port", "http"], "expected a port from 0 to 65535. Received: http"),
        (["--max-requests", "0"], "expected a positive integer. Received: 0"),
    ],
)
def test_mistyped_options(options, message, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["serve", "lsmha-small", *options])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_addresses_are_written_as_urls():
    with open_socket("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        assert address(opened) == f"http://127.0.0.1:{port}"
        with pytest.raises(OSError, match="The port is in use"):
            open_socket("127.0.0.1", port)
    if not socket.has_ipv6:
        return
    with contextlib.suppress(OSError):  # a system may have it switched off
        with open_socket("::1", 0) as opened:
            assert address(opened) == f"http://[::1]:{opened.getsockname()[1]}"

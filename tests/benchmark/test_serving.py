"""The load test of `lsmha bench serve`: what counts as answered, refused, lost and wrong."""

import contextlib
import csv
import http.server
import json
import socket
import threading

import numpy as np
import pytest

from lsmha_keras import cli
from lsmha_keras.benchmark import serving
from lsmha_keras.predictor import Predictor

pytestmark = pytest.mark.backend_free


@contextlib.contextmanager
def answering(answer):
    """A server that answers POST number n with the status and body that a function of n returns."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        count = 0

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            Handler.count += 1
            status, found = answer(Handler.count)
            if status is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


GOOD = serving.Request(b"image", "image/png", 200, [0.5])


def classes(*scores):
    return {"images": [{"classes": [{"score": score}]} for score in scores]}


def load(answer, bad_percent=0):
    with answering(answer) as url:
        return serving._load(url, GOOD, clients=2, seconds=0.3, bad_percent=bad_percent)


def test_right_answers():
    found = load(lambda number: (200, classes(0.5004)))
    assert found.answered == len(found.latencies) > 4
    assert (found.lost, found.wrong, found.bad, found.first_problem) == (0, 0, 0, "")
    assert min(found.latencies) > 0 and found.seconds >= 0.3


@pytest.mark.parametrize(
    ("answer", "kind", "problem"),
    [
        ((200, classes(0.502)), "wrong", "the answer differs from that of `Predictor`"),
        ((200, classes(0.5, 0.5)), "wrong", "the answer differs from that of `Predictor`"),
        ((503, {"message": "busy"}), "wrong", "503 in place of 200: busy"),
        ((None, None), "lost", "no answer: "),
    ],
)
def test_one_answer_that_must_not_be(answer, kind, problem):
    found = load(lambda number: answer if number == 3 else (200, classes(0.5)))
    assert {name: getattr(found, name) for name in ("lost", "wrong")} == {
        "lost": int(kind == "lost"),
        "wrong": int(kind == "wrong"),
    }
    assert found.first_problem.startswith(problem)
    assert found.answered > 4  # it goes on


def test_bad_requests_must_be_refused():
    found = load(lambda number: (200, classes(0.5)), bad_percent=50)
    assert found.answered and found.wrong and found.first_problem.startswith("200 in place of 4")


def test_a_case_from_the_command_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("fastapi", reason='a service needs `pip install "lsmha-keras[serve]"`')
    pytest.importorskip("onnxruntime", reason="computes")
    monkeypatch.setattr(serving, "_WARM_UP", 0.3)
    monkeypatch.setattr(serving, "_BARE", 0.1)
    output = tmp_path / "serving.csv"
    options = ["--images", "3", "--clients", "4", "--seconds", "1", "--bad", "40"]
    arguments = ["bench", "serve", "lsmha-small", *options, "--output", str(output)]
    assert cli.main(arguments) == 0
    with output.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["lost"], row["wrong"], row["note"]) == ("0", "0", "")
    assert int(row["requests"]) > int(row["bad_requests"]) > 0
    share = float(row["images_per_s"]) / float(row["bare_images_per_s"])
    assert float(row["share_of_bare"]) == pytest.approx(share, abs=0.0006)
    assert 0 < float(row["p50_ms"]) <= float(row["p99_ms"]) <= float(row["slowest_ms"])
    assert 3 <= float(row["mean_batch"]) <= 12
    assert " of the runtime alone" in capsys.readouterr().out
    assert cli.main(arguments) == 0
    assert "1 of 1 cases are in" in capsys.readouterr().out


def test_a_service_that_does_not_start_is_reported():
    with pytest.raises(RuntimeError, match="did not start"), serving._service("nothing", "keras"):
        pass


@pytest.mark.parametrize("sent", serving.SENT)
def test_requests_and_the_runtime_get_the_same_images(sent):
    pytest.importorskip("onnxruntime", reason="computes")
    predictor = Predictor("lsmha-small", runtime="onnxruntime", num_threads=1)
    request, inputs = serving._good_request(predictor, sent, 2)
    scores = [predictor.best(row)[0]["score"] for row in predictor.probabilities(inputs)]
    np.testing.assert_allclose(request.scores, scores)
    assert request.body.count(b"\xff\xd8\xff") == (2 if sent == "photo" else 0)

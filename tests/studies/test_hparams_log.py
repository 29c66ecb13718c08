"""Trials on TensorBoard's HParams page."""

import os
import subprocess
import sys
import time

import pytest

from lsmha_keras.studies.execution import write_hparams

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(("failed", "status"), [(False, 1), (True, 2)])
def test_hparams_as_the_page_reads_them(tmp_path, failed, status):
    pytest.importorskip("tensorboard")
    settings = {"num_heads": 4, "design": "full", "bias": True}
    for value in (0.5, 0.25):  # the second one replaces the first
        assert write_hparams(tmp_path / "trial_0", settings, {"val_accuracy": value}, failed)
    (group,) = _session_groups(tmp_path)
    hparams = group.hparams
    assert hparams["num_heads"].number_value == 4
    assert hparams["design"].string_value == "full" and hparams["bias"].bool_value is True
    (session,) = group.sessions
    assert session.status == status  # api.proto: 1 success, 2 failure
    assert abs(session.end_time_secs - time.time()) < 600
    (metric,) = session.metric_values
    assert metric.name.tag == "val_accuracy" and metric.value == 0.25
    assert abs(metric.wall_time_secs - time.time()) < 600


def _session_groups(logs):
    """Asks the server of TensorBoard's page, with no browser."""
    from tensorboard import context
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, list_session_groups
    from tensorboard.plugins.hparams.backend_context import Context

    events = EventMultiplexer().AddRunsFromDirectory(str(logs))
    events.Reload()
    provider = MultiplexerDataProvider(events, str(logs))
    backend = Context(TBContext(data_provider=provider, logdir=str(logs)))
    request = api_pb2.ListSessionGroupsRequest(slice_size=9, allowed_statuses=[0, 1, 2, 3])
    handler = list_session_groups.Handler(context.RequestContext(), backend, "", request)
    return handler.run().session_groups


def test_hparams_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    assert write_hparams(tmp_path, {"num_heads": 4}, {"val_accuracy": 0.25}) is False
    assert not list(tmp_path.iterdir())


def test_hparams_without_tensorflow(tmp_path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("jax", reason="Keras needs another backend")
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from lsmha_keras.studies.execution import write_hparams\n"
        "assert write_hparams(sys.argv[1], {'num_heads': 4}, {'val_accuracy': 0.25})"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, env=environment)
    assert len(list(tmp_path.iterdir())) == 1

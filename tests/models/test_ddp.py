"""Two processes under torch's `DistributedDataParallel` train as one process does."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import lsmha_keras
from tests.checks import PATIENCE

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "torch", reason="about torch"),
    pytest.mark.slow,
]
PROCESSES = 2
# Gloo's threads wait for the other process when they are destroyed; it may be gone by then.
_ALIVE = []


def train(path, rank=None, steps=3):
    """Trains a few steps, as a process of two with every second image, or alone with all."""
    import torch

    keras.utils.set_random_seed(0)
    model = lsmha_keras.CCTBackbone(
        image_shape=(8, 8, 3), hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8
    )
    rng = np.random.default_rng(0)
    images = torch.tensor(rng.normal(size=(8, 8, 8, 3)).astype("float32"))
    called, rows = model, slice(None)
    if rank is not None:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{path}.meet", rank=rank, world_size=PROCESSES
        )
        called, rows = torch.nn.parallel.DistributedDataParallel(model), slice(rank, None, 2)
        _ALIVE.append(called)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        # One channel, as the layer norm at the end keeps the mean over all of them.
        (called(images[rows])[..., 0] ** 2).mean().backward()
        optimizer.step()
    if rank is not None:
        torch.distributed.barrier()
    return [weight.detach().numpy().copy() for weight in model.parameters()]


def test_two_processes_train_as_one(tmp_path):
    path = tmp_path / "weights"
    workers = [
        subprocess.Popen([sys.executable, "-m", __name__, str(path), str(rank)])
        for rank in range(PROCESSES)
    ]
    try:
        alone = train(path)
        assert [worker.wait(timeout=PATIENCE) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    changes = [np.abs(a - b).max() for a, b in zip(alone, train(path, steps=0), strict=True)]
    assert max(changes) > 1e-2
    for rank in range(PROCESSES):
        with np.load(f"{path}.{rank}.npz") as file:
            found = [file[name] for name in file.files]
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


if __name__ == "__main__":
    np.savez(f"{sys.argv[1]}.{sys.argv[2]}.npz", *train(sys.argv[1], int(sys.argv[2])))
    os._exit(0)  # without the destructors, see `_ALIVE`

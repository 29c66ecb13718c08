"""Single-head performance and the scores of heads work on every kind of attention."""

import numpy as np
import pytest

from lsmha_keras.attention.registry import attention_names
from lsmha_keras.shp.head_scores import head_scores
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readout_trainer import fit_readout
from tests.attention.test_kinds import WITHOUT_SCORES
from tests.attention.test_registry import make_classifier
from tests.checks import random_images


@pytest.mark.parametrize("name", attention_names())
def test_heads_of_each_kind_are_measured(name):
    model = make_classifier(attention=name, num_conv_blocks=1)
    data = random_images(12, 16, 16, 3), np.arange(12) % 3
    readouts = fit_readout(model, data, epochs=1, num_labels=3, verbose=0)
    result = single_head_performance(model, readouts, data, verbose=0)[1]
    assert result.matrices.shape == (4, 3, 3)
    assert np.isfinite(result.matrices).all()
    if name in WITHOUT_SCORES:
        with pytest.raises(ValueError, match="no scores"):
            head_scores(model, data, verbose=0)
        return
    scores = head_scores(model, data, verbose=0)[1]
    assert all(np.isfinite(values).all() and len(values) == 4 for values in scores.values())

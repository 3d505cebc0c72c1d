"""What holds for cores of any architecture: the size of their maps, the frames they lose, and that they are causal."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.factorized3d import Factorized3d, Factorized3dConfig
from models.full3d import Full3d, Full3dConfig
from models.gru import Gru, GruConfig
from models.static2d import Static2d, Static2dConfig

ODD = st.sampled_from([1, 3, 5])
STRIDE = st.integers(1, 3)


@st.composite
def layered(draw, config_class, spatial, **others):
    n_layers = draw(st.integers(1, 3))

    def draw_each(strategy):
        return tuple(draw(st.lists(strategy, min_size=n_layers, max_size=n_layers)))

    return config_class(
        channels=draw_each(st.integers(1, 3)),
        spatial_kernels=draw_each(spatial),
        temporal_kernels=draw_each(st.integers(1, 3)),
        spatial_strides=draw_each(st.integers(1, 2)),
        **{name: draw(strategy) for name, strategy in others.items()},
    )


def framewise(config_class, **others):
    kernels = st.lists(ODD, max_size=2).flatmap(lambda later: st.integers(1, 6).map(lambda first: (first, *later)))
    return st.builds(config_class, n_features=st.integers(1, 2), kernels=kernels, stride=STRIDE, **others)


MODELS = {
    "factorized3d": (Factorized3d, layered(Factorized3dConfig, st.integers(1, 5), pads_frames=st.booleans())),
    "full3d": (Full3d, layered(Full3dConfig, ODD)),
    "gru": (Gru, framewise(GruConfig, gru_kernel=ODD, n_rotations=st.sampled_from([None, 1, 4]))),
    "static2d": (Static2d, framewise(Static2dConfig, n_frames_ignored=st.integers(0, 3))),
}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15)
@given(data=st.data())
def test_maps_have_the_size_that_is_announced_and_know_no_later_frame(name, data):
    model_class, configs = MODELS[name]
    config = data.draw(configs)
    height, width, n_predicted = (data.draw(st.integers(low, low + 4)) for low in (30, 33, 1))
    torch.manual_seed(0)
    # Without sessions, the core is all there is.
    core = model_class(config, {}, frame_size=(height, width)).eval().core
    videos = torch.randn(1, 3, config.n_frames_lost + n_predicted, height, width)
    changed_frame = data.draw(st.integers(0, videos.shape[2] - 1))
    changed = videos.clone()
    changed[:, :, changed_frame] += 1
    with torch.no_grad():
        maps, changed_maps = core(videos), core(changed)
    assert maps.shape[2:] == (n_predicted, *config.map_size(height, width))
    n_unchanged = max(0, changed_frame - config.n_frames_lost)
    torch.testing.assert_close(changed_maps[:, :, :n_unchanged], maps[:, :, :n_unchanged], atol=1e-6, rtol=1e-6)

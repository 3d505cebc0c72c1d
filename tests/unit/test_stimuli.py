from __future__ import annotations

import numpy as np
import pytest

from sensorium_data.movies import sign_video
from sensorium_data.sessions import SESSIONS, Stimulus, Tier, find_session
from sensorium_data.stimuli import N_FRAMES_BY_STIMULUS, recognize_stimulus


def moving_noise(n_frames: int) -> np.ndarray:
    rng = np.random.default_rng(n_frames)
    return rng.uniform(0, 255, (n_frames, 36, 64)).astype(np.float32)


def noise_in_steps(n_frames: int) -> np.ndarray:
    """Noise that stands still for 27 frames at a time, without gray between."""
    rng = np.random.default_rng(n_frames)
    return rng.uniform(0, 255, (-(-n_frames // 27), 36, 64)).repeat(27, axis=0)[:n_frames].astype(np.float32)


def natural_images(n_frames: int, mixed: bool = False) -> np.ndarray:
    """Images of 15 frames with 12 to 18 gray frames between them; ``mixed`` blurs every transition over a frame."""
    rng = np.random.default_rng(n_frames)
    pieces = []
    while sum(map(len, pieces)) < n_frames:
        pieces.append(np.repeat(rng.uniform(0, 255, (1, 36, 64)), 15, axis=0))
        pieces.append(np.full((int(rng.integers(12, 19)), 36, 64), 127.5))
    video = np.concatenate(pieces)[:n_frames]
    if mixed:
        video[1:] = 0.5 * video[1:] + 0.5 * video[:-1]
    return video.astype(np.float32)


def recognize(alias: str, tier: Tier, video: np.ndarray) -> Stimulus:
    return recognize_stimulus(find_session(alias), tier, sign_video(video))


@pytest.mark.parametrize("session", SESSIONS.values(), ids=lambda session: session.alias)
@pytest.mark.parametrize("tier", Tier)
def test_length_tells_every_published_class_but_two(session, tier) -> None:
    for stimulus in session.stimuli_of(tier):
        if stimulus is Stimulus.NATURAL_IMAGES:
            continue
        video = moving_noise(N_FRAMES_BY_STIMULUS[stimulus][0])
        assert recognize_stimulus(session, tier, sign_video(video)) is stimulus


@pytest.mark.parametrize("alias", ["B", "H"])
@pytest.mark.parametrize("mixed", [False, True])
def test_video_tells_natural_images_from_noise_of_equal_length(alias: str, mixed: bool) -> None:
    tier = Tier.FINAL_TEST_BONUS
    assert recognize(alias, tier, natural_images(324, mixed)) is Stimulus.NATURAL_IMAGES
    assert recognize(alias, tier, moving_noise(324)) is Stimulus.PINK_NOISE
    assert recognize(alias, tier, noise_in_steps(324)) is Stimulus.PINK_NOISE


@pytest.mark.parametrize("n_frames", [305, 315, 326])
def test_natural_images_vary_in_length(n_frames: int) -> None:
    assert recognize("J", Tier.LIVE_TEST_BONUS, natural_images(n_frames)) is Stimulus.NATURAL_IMAGES


@pytest.mark.parametrize(
    ("alias", "tier", "n_frames"),
    [("F", Tier.TRAIN, 240), ("F", Tier.FINAL_TEST_BONUS, 300), ("J", Tier.LIVE_TEST_BONUS, 414), ("D", Tier.TRAIN, 0)],
)
def test_a_length_that_the_tier_never_shows_is_unknown(alias: str, tier: Tier, n_frames: int) -> None:
    assert recognize(alias, tier, moving_noise(n_frames)) is Stimulus.UNKNOWN

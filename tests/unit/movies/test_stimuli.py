from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from sensorium_data.movies import N_FRAMES_BY_STIMULUS, recognize_stimulus, sign_video
from sensorium_data.movies.stimuli import recognize_video
from sensorium_data.sessions import SESSIONS, Session, Stimulus, Tier, find_session
from sensorium_data.simulation.plan import Movie
from sensorium_data.simulation.stimuli import render_movie, resample_repeat

CLASSES = [stimulus for stimulus in Stimulus if stimulus is not Stimulus.UNKNOWN]
SEEDS = range(4)
ROWS, COLUMNS = np.mgrid[:36, :64]


class UndescribedSession(Session):
    """A session that no catalogue describes."""

    def stimuli_of(self, tier: Tier) -> tuple[Stimulus, ...]:
        return ()


UNDESCRIBED = UndescribedSession(**vars(find_session("F")))


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
    return mix_frames(video, 0.5) if mixed else video.astype(np.float32)


def mix_frames(video: np.ndarray, share: float) -> np.ndarray:
    """Return the video sampled between its frames: every frame takes a share from the one before it."""
    mixed = video.astype(np.float32)
    mixed[1:] = (1 - share) * video[1:] + share * video[:-1]
    return mixed


@cache
def simulated(stimulus: Stimulus, seed: int) -> np.ndarray:
    """A repeat of a movie of the class, as it came out on the 30 Hz grid."""
    folder = "train" if stimulus is Stimulus.NATURAL_VIDEO else stimulus
    movie = Movie(f"AF/{folder}/{seed % 6}", stimulus, seed % 6)
    lengths = N_FRAMES_BY_STIMULUS[stimulus]
    random = np.random.default_rng(seed)
    return resample_repeat(render_movie(movie, int(random.choice(lengths)), seed), random)


def recognize(alias: str, tier: Tier, video: np.ndarray) -> Stimulus:
    return recognize_stimulus(find_session(alias), tier, sign_video(video))


# Published sessions


@pytest.mark.parametrize("session", SESSIONS.values(), ids=lambda session: session.alias)
@pytest.mark.parametrize("tier", Tier)
def test_length_tells_every_published_class_but_two(session: Session, tier: Tier) -> None:
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


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("first", "second", "n_frames"),
    [
        (Stimulus.NATURAL_VIDEO, Stimulus.GABOR, 300),
        (Stimulus.GAUSSIAN_DOT, Stimulus.NATURAL_IMAGES, 315),
        (Stimulus.PINK_NOISE, Stimulus.NATURAL_IMAGES, 324),
    ],
)
def test_video_tells_any_two_classes_of_one_length(first: Stimulus, second: Stimulus, n_frames: int, seed: int) -> None:
    class BothClasses(Session):
        def stimuli_of(self, tier: Tier) -> tuple[Stimulus, ...]:
            return first, second

    session = BothClasses(**vars(find_session("F")))
    for stimulus in (first, second):
        folder = "train" if stimulus is Stimulus.NATURAL_VIDEO else stimulus
        video = render_movie(Movie(f"AF/{folder}/{seed}", stimulus, seed), n_frames, seed)
        assert recognize_stimulus(session, Tier.FINAL_TEST_BONUS, sign_video(video)) is stimulus


# Sessions that nobody described


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stimulus", CLASSES)
@pytest.mark.parametrize(
    "change",
    [
        lambda video: video,
        lambda video: mix_frames(video, 0.3),
        lambda video: mix_frames(video, 0.7),
        lambda video: 0.6 * video,
        lambda video: video.astype(np.float16),
        lambda video: video[:220],
    ],
    ids=["as it is", "frames mixed", "frames mixed more", "dim", "half precision", "shorter"],
)
def test_every_class_is_recognized_by_its_video_alone(
    change: Callable[[np.ndarray], np.ndarray], stimulus: Stimulus, seed: int
) -> None:
    signature = sign_video(change(simulated(stimulus, seed)))
    assert recognize_stimulus(UNDESCRIBED, Tier.TRAIN, signature) is stimulus


def gabor(rng: np.random.Generator, width: float) -> np.ndarray:
    time = np.arange(25)[:, None, None] / 30
    row, column = rng.uniform((8, 12), (28, 52))
    angle = rng.integers(8) * np.pi / 4
    along = (COLUMNS - column) * np.cos(angle) + (ROWS - row) * np.sin(angle)
    wave = np.cos(2 * np.pi * (along / rng.choice([5.0, 9.0, 15.0]) - rng.choice([1, 2, 5]) * time))
    return 115 + 90 * np.exp(-((COLUMNS - column) ** 2 + (ROWS - row) ** 2) / (2 * width**2)) * wave


def dot(rng: np.random.Generator, width: float) -> np.ndarray:
    row, column = rng.uniform(0, (36, 64))
    blob = np.exp(-((COLUMNS - column) ** 2 + (ROWS - row) ** 2) / (2 * width**2))
    return np.repeat((115 + rng.choice([-1, 1]) * 90 * blob)[None], 9, axis=0)


def kinematogram(rng: np.random.Generator, width: float) -> np.ndarray:
    places = rng.uniform(0, (36, 64), (50, 2))
    angle = rng.integers(8) * np.pi / 4
    angles = np.where(rng.random(50) < 0.6, angle, rng.uniform(0, 2 * np.pi, 50))
    steps = 0.5 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    signs = rng.choice([-1, 1], 50)
    frames = []
    for time in range(60):
        rows, columns = ((places + time * steps) % (36, 64)).T[:, :, None, None]
        near = (rows - ROWS) ** 2 + (columns - COLUMNS) ** 2 < width**2
        frames.append(115 + 90 * np.clip((near * signs[:, None, None]).sum(axis=0), -1, 1))
    return np.array(frames)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("stimulus", "render", "n_shown", "widths"),
    [
        (Stimulus.GABOR, gabor, 12, (3.0, 6.0, 9.0)),
        (Stimulus.GAUSSIAN_DOT, dot, 35, (2.0, 4.0, 7.0)),
        (Stimulus.RANDOM_DOTS, kinematogram, 4, (1.0, 1.5, 2.5)),
    ],
)
def test_size_contrast_and_background_play_no_part(
    stimulus: Stimulus,
    render: Callable[[np.random.Generator, float], np.ndarray],
    n_shown: int,
    widths: tuple[float, ...],
    seed: int,
) -> None:
    for width in widths:
        rng = np.random.default_rng(seed)
        video = np.concatenate([render(rng, width) for _ in range(n_shown)])
        assert recognize_video(sign_video(video)) is stimulus, width


def in_steps(frames: np.ndarray, n_frames_each: int) -> np.ndarray:
    return frames.repeat(n_frames_each, axis=0)[:300]


CHECKERBOARD = ((ROWS // 4 + COLUMNS // 4) % 2) * 255.0


def other_videos() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    time = np.arange(300)[:, None, None]
    videos = {
        "nothing": np.zeros((0, 36, 64)),
        "black": np.zeros((300, 36, 64)),
        "gray": np.full((300, 36, 64), 127.43),
        "gradient": np.broadcast_to(4.0 * COLUMNS, (300, 36, 64)),
        "gradient that brightens": (2.0 * COLUMNS + ROWS) * (0.5 + 0.5 * np.sin(time / 20)),
        "gradient that moves": (4.0 * COLUMNS + 2 * time) % 255,
        "checkerboard": np.broadcast_to(CHECKERBOARD, (300, 36, 64)),
        "drifting grating": 127.5 + 127 * np.sin(2 * np.pi * (COLUMNS / 12 - time / 15)) + 0 * ROWS,
        "gratings of 25 frames": 127.5
        + 127 * np.sin(2 * np.pi * (np.where(time // 25 % 2 == 0, COLUMNS, ROWS) / 16 - time / 30)),
        "bar that moves": np.where(abs(COLUMNS - time % 64) < 3, 255.0, 127.5) + 0 * ROWS,
        "white noise": rng.uniform(0, 255, (300, 36, 64)),
        "Gaussian noise": np.clip(127 + 40 * rng.standard_normal((300, 36, 64)), 0, 255),
    }
    for n_each in (3, 9, 15, 25, 27, 60):
        n_shown = -(-300 // n_each)
        noise, blocks = rng.uniform(0, 255, (n_shown, 36, 64)), rng.uniform(0, 255, (n_shown, 4, 8))
        is_even = np.arange(n_shown)[:, None, None] % 2 == 0
        for name, frames in {
            "noise": noise,
            "blocks": blocks.repeat(9, axis=1).repeat(8, axis=2),
            "sparse pixels": 127 + 127 * rng.choice([-1, 0, 1], (n_shown, 36, 64), p=[0.05, 0.9, 0.05]),
            "flicker": np.broadcast_to(rng.choice([0, 127, 255.0], (n_shown, 1, 1)), (n_shown, 36, 64)),
            "reversing checkerboard": np.where(is_even, CHECKERBOARD, 255 - CHECKERBOARD),
            "checkerboard and gray": np.where(is_even, CHECKERBOARD, 127.43),
        }.items():
            videos[f"{name} of {n_each} frames"] = in_steps(frames, n_each)
    return videos


@pytest.mark.parametrize("video", [pytest.param(video, id=name) for name, video in other_videos().items()])
def test_videos_that_match_nothing_are_unknown(video: np.ndarray) -> None:
    assert recognize_stimulus(UNDESCRIBED, Tier.ORACLE, sign_video(video)) is Stimulus.UNKNOWN


@pytest.mark.parametrize("stimulus", CLASSES)
def test_less_than_a_second_shows_no_class(stimulus: Stimulus) -> None:
    assert recognize_video(sign_video(simulated(stimulus, 0)[:29])) is Stimulus.UNKNOWN

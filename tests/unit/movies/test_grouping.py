from __future__ import annotations

import numpy as np
import pytest

from sensorium_data.movies import N_FRAMES_BY_STIMULUS, group_movies, name_movie, sign_video
from sensorium_data.movies.grouping import FEATURES, join_groups, same_movie, signature_feature, signature_means
from sensorium_data.sessions import find_session
from sensorium_data.simulation.plan import Movie
from sensorium_data.simulation.stimuli import render_movie


def movie(seed: int, n_frames: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (n_frames, 36, 64)).astype(np.float32)


def smooth_movie(seed: int, n_frames: int = 40) -> np.ndarray:
    """A movie whose frames all have nearly the same mean luminance, so that only the pixels tell it apart."""
    rng = np.random.default_rng(seed)
    waves = np.sin(np.linspace(0, 40, 64) + rng.uniform(0, 6, (n_frames, 36, 1)))
    return (128 + 0.9 * waves).astype(np.float32)


def with_frames_changed(video: np.ndarray, frames: list[int], by: float = 50.0) -> np.ndarray:
    changed = video.copy()
    changed[frames, 3, 5] += by
    return changed


def group(videos: list[np.ndarray]) -> tuple[list[int], list[int]]:
    read: list[int] = []

    def read_video(position: int) -> np.ndarray:
        read.append(position)
        return videos[position]

    return group_movies([sign_video(video) for video in videos], read_video), read


def group_by_comparing_all(videos: list[np.ndarray]) -> list[int]:
    """The definition itself: connected components over all pairs, by relabelling until nothing changes."""
    labels = list(range(len(videos)))
    for _ in videos:
        for i, one in enumerate(videos):
            for j, other in enumerate(videos):
                n = min(len(one), len(other))
                if n and n > 0.85 * max(len(one), len(other)):
                    equal = [(np.abs(one[t] - other[t]) <= 1.0).all() for t in range(n)]
                    if sum(equal) > 0.56 * n:
                        labels[i] = labels[j] = min(labels[i], labels[j])
    return labels


def test_signature_holds_block_means_contrast_change_and_roughness() -> None:
    video = movie(0, 3)
    signature = sign_video(video)
    assert signature.shape == (3, len(FEATURES)) == (3, 38)
    assert signature.dtype == np.float32
    means = signature_means(signature)
    assert means[1, 0] == pytest.approx(video[1, :9, :8].mean(), rel=1e-5)
    assert means[2, 8 + 3] == pytest.approx(video[2, 9:18, 24:32].mean(), rel=1e-5)
    np.testing.assert_allclose(signature_feature(signature, "contrast"), [frame.std() for frame in video], rtol=1e-5)
    differences = [np.abs(video[t] - video[t - 1]) for t in (1, 2)]
    np.testing.assert_allclose(
        signature_feature(signature, "largest_change"), [np.nan, *(d.max() for d in differences)]
    )
    np.testing.assert_allclose(
        signature_feature(signature, "mean_change"), [np.nan, *(d.mean() for d in differences)], rtol=1e-5
    )
    assert signature_feature(signature, "roughness")[0] == pytest.approx(255 / 3, rel=0.1), "that of white noise"


@pytest.mark.parametrize("level", [0.0, 3.7, 128.0, 127.99999, 254.6, 255.0])
def test_signature_tells_the_background_and_how_much_it_fills(level: float) -> None:
    video = movie(5, 4)
    video[:, :18] = level
    video[2] += 1e-5 * np.random.default_rng(0).standard_normal((36, 64))
    signature = sign_video(video)
    np.testing.assert_allclose(signature_feature(signature, "background"), level, atol=1.01)
    np.testing.assert_allclose(signature_feature(signature, "background_share"), 0.5, atol=0.03)


def test_a_video_of_half_precision_is_signed_as_well() -> None:
    video = movie(0, 5).astype(np.float16)
    np.testing.assert_array_equal(sign_video(video), sign_video(video.astype(np.float32)))


@pytest.mark.parametrize(("n_changed", "is_same"), [(8, True), (16, True), (17, True), (18, False), (19, False)])
def test_repeats_that_share_sixty_percent_of_their_frames_are_joined(n_changed: int, is_same: bool) -> None:
    # 16 of 40 frames are 40 %. Trials that share half of them, as natural images do their gray, are not joined.
    video = movie(0, 40)
    repeat = with_frames_changed(video, list(range(n_changed)))
    assert same_movie(video, repeat) is is_same
    assert group([video, repeat])[0] == ([0, 0] if is_same else [0, 1])


def test_movies_of_natural_images_that_share_all_their_gray_are_not_joined() -> None:
    # The longest gray there can be: 171 of 326 frames, at the same places in all trials.
    gray = np.random.default_rng(0).permutation(326) < 171
    videos = [np.where(gray[:, None, None], np.float32(127.43), movie(seed, 326)) for seed in range(3)]
    assert group(videos)[0] == [0, 1, 2]


def test_no_two_movies_are_chained_whatever_their_class_and_repeats_that_share_eighty_percent_are_joined() -> None:
    rng = np.random.default_rng(7)
    shown = [Movie(f"{stimulus}/{n}", stimulus, n) for stimulus in N_FRAMES_BY_STIMULUS for n in range(4)]
    videos = []
    for one in shown:
        video = render_movie(one, max(N_FRAMES_BY_STIMULUS[one.stimulus]), seed=3)
        for _ in range(2):
            source = np.arange(len(video))
            # Late by a frame in a tenth of the frames, each repeat at others: two differ in up to a fifth.
            source[1 + rng.choice(len(video) - 1, len(video) // 10, replace=False)] -= 1
            videos.append(video[source])
    assert group(videos)[0] == [position // 2 * 2 for position in range(len(videos))]


def test_pixels_may_differ_by_one_unit_everywhere() -> None:
    video = np.full((10, 36, 64), 100, np.float32)
    assert same_movie(video, video + 1)
    assert not same_movie(video, video + np.float32(1.001))
    assert group([video, video + 1])[0] == [0, 0]


def test_one_pixel_more_than_one_unit_off_makes_a_frame_differ() -> None:
    video = movie(0, 10)
    assert not same_movie(video, with_frames_changed(video, list(range(10)), by=1.5))


def test_repeats_of_slightly_different_length_are_compared_over_common_frames() -> None:
    video = movie(0, 326)
    assert same_movie(video, video[:305])


def test_a_short_video_is_no_repeat_of_a_longer_ones_start() -> None:
    video = movie(0, 40)
    assert not same_movie(video, video[:10])
    assert group([video, video[:10]])[0] == [0, 1]


def test_groups_equal_those_of_comparing_all_pairs() -> None:
    rng = np.random.default_rng(4)
    videos = []
    for n_changed in (0, 3, 8, 16, 30):
        for seed in (1, 2):
            for make in (movie, smooth_movie):
                frames = rng.choice(40, n_changed, replace=False).tolist()
                videos.append(with_frames_changed(make(seed), frames))
    videos += [movie(1)[:36], movie(1)[:20], movie(9)[:0]]
    order = rng.permutation(len(videos))
    videos = [videos[i] for i in order]
    assert group(videos)[0] == group_by_comparing_all(videos)


def test_repeats_are_joined_through_others_between_them() -> None:
    first = movie(0, 40)
    second = with_frames_changed(first, list(range(12)))
    third = with_frames_changed(second, list(range(12, 24)))
    assert not same_movie(first, third)
    assert group([first, third])[0] == [0, 1]
    assert group([first, third, second])[0] == [0, 0, 0]


def test_trials_without_frames_are_movies_of_their_own() -> None:
    empty = np.zeros((0, 36, 64), np.float32)
    assert group([movie(0), empty, movie(0), empty])[0] == [0, 1, 0, 3]


def test_different_movies_are_told_apart_without_reading_a_video() -> None:
    _, read = group([movie(seed, 10) for seed in range(30)])
    assert read == []


def test_each_repeat_is_read_once_however_many_there_are() -> None:
    videos = [movie(position % 2, 8) for position in range(120)]
    groups, read = group(videos)
    assert groups == [position % 2 for position in range(120)]
    assert sorted(read) == list(range(120))


def test_no_trials_make_no_groups() -> None:
    assert group([])[0] == []


def join(
    videos: list[np.ndarray], groups: list[int], batches: list[int], errors: list[float] | None = None
) -> tuple[list[int], set[frozenset[int]]]:
    """Return the groups' first trials, and which videos were read together."""
    read: list[int] = []

    def read_video(position: int) -> np.ndarray:
        read.append(position)
        return videos[position]

    signatures = [sign_video(video) for video in videos]
    errors = errors or [0.0] * len(videos)
    joined = join_groups(signatures, read_video, groups=groups, batches=batches, largest_errors=errors)
    return joined, set(read)


def test_what_was_compared_is_not_compared_again() -> None:
    videos = [movie(0), movie(0), movie(1), movie(1), movie(1), movie(2)]
    # Said to be different within the first batch, and left at that; the last batch alone is looked at.
    assert join(videos, [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 1]) == ([0, 1, 2, 2, 2, 5], {2, 3, 4})
    assert join(videos, [0, 0, 2, 2, 4, 5], [0, 0, 0, 0, 1, 1]) == ([0, 0, 2, 2, 2, 5], {2, 4})
    assert join(videos, ["a", "a", "b", "b", "b", "c"], [0] * 6) == ([0, 0, 2, 2, 2, 5], set())


def test_errors_of_both_videos_widen_what_counts_as_equal() -> None:
    videos = [movie(0), movie(0) + np.float32(1.1)]
    assert join(videos, [0, 1], [0, 1])[0] == [0, 1]
    assert join(videos, [0, 1], [0, 1], [0.0625, 0.0])[0] == [0, 1]
    assert join(videos, [0, 1], [0, 1], [0.0625, 0.0625])[0] == [0, 0]


@pytest.mark.parametrize("jobs", [2, 5])
def test_groups_do_not_depend_on_the_jobs(jobs: int) -> None:
    videos = [movie(position % 3, 8) for position in range(30)]
    signatures = [sign_video(video) for video in videos]
    each = range(30)
    for batches in (each, [position // 10 for position in each]):
        found = [
            join_groups(signatures, videos.__getitem__, groups=each, batches=batches, largest_errors=[0.0] * 30, jobs=n)
            for n in (1, jobs)
        ]
        assert found[0] == found[1]


def test_movie_is_named_by_scan_and_first_trial() -> None:
    assert name_movie(find_session("J"), 156) == "29755-2-8:156"


def test_with_several_at_once_a_trial_is_compared_with_few_of_those_that_show_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sensorium_data.movies import grouping

    n_trials, jobs = 40, 8
    compared: list[float] = []

    def count(video: np.ndarray, other: np.ndarray, limit: float) -> bool:
        compared.append(limit)
        return same_movie(video, other, limit)

    monkeypatch.setattr(grouping, "same_movie", count)
    signatures, video = [sign_video(smooth_movie(1))] * n_trials, smooth_movie(1)
    assert group_movies(signatures, lambda position: video, jobs=jobs) == [0] * n_trials
    # Of those that are compared at once nothing is known of each other. All pairs would be 780.
    assert len(compared) <= 3 * n_trials


def test_a_video_that_several_want_at_once_is_read_once() -> None:
    videos = [smooth_movie(1)] * 12
    read: list[int] = []

    def read_video(position: int) -> np.ndarray:
        read.append(position)
        return videos[position]

    group_movies([sign_video(video) for video in videos], read_video, jobs=12)
    assert sorted(read) == list(range(12))

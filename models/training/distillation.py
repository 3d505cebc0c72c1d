"""Distillation: where a window has no recorded responses, a teacher's predictions stand in.

A window is of one session; the neurons of all other sessions were not recorded while it was shown. A finished run
that knows those sessions predicts them, and its predictions are learned along with the responses.

Shape suffixes: B windows, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from models.config import TrainingConfig
from models.response_model import ResponseModel
from models.runs import Run, RunData, load_run
from sensorium_data.counting import name_some
from sensorium_data.errors import RunError, UsageError

__all__ = ["Distillation", "choose_teacher", "load_teacher"]

# So many teachers' folds are named in an error.
_MOST_NAMED = 10


class Distillation:
    """A teacher, and the weight of what it teaches.

    Parameters
    ----------
    teacher : ResponseModel
        In evaluation mode, on the device that is trained on; it knows all sessions.
    sessions : sequence of str
        Those that are trained on, by full name.
    ratio : float
        Share of a batch's weight that its predictions have; DwiseNeuro's is 0.36. (Its README says 0.36 %; its code
        does this.)
    """

    def __init__(self, teacher: ResponseModel, sessions: Sequence[str], ratio: float) -> None:
        self._teacher = teacher
        self._sessions = tuple(sessions)
        self._ratio = ratio

    def list_missing(self, session: str) -> list[str]:
        """Return the sessions whose responses to a session's windows were not recorded."""
        return [other for other in self._sessions if other != session]

    def share_weights(self, weights: Mapping[str, float], rows: Mapping[str, int]) -> tuple[dict[str, float], float]:
        """Divide the weight of a batch between responses and predictions.

        Parameters
        ----------
        weights : mapping of str to float
            What a window of each session weighs without a teacher.
        rows : mapping of str to int
            Windows of each session in the batch.

        Returns
        -------
        (dict of str to float, float)
            What a window weighs for its own session's responses, and what it weighs for each other
            session's predictions. Altogether they weigh as much as before.
        """
        n_missing = sum(n * (len(self._sessions) - 1) for n in rows.values())
        if not n_missing:
            return dict(weights), 0.0
        total = sum(weights[session] * n for session, n in rows.items())
        own = {session: (1 - self._ratio) * weight for session, weight in weights.items()}
        return own, self._ratio * total / n_missing

    @torch.no_grad()
    def predict(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        """Return the teacher's predictions, as :meth:`models.response_model.ResponseModel.predict_rows` does."""
        return self._teacher.predict_rows(videos_BCTHW, pupil_center_B2T, wanted)


def choose_teacher(config: TrainingConfig, teachers: Sequence[str]) -> TrainingConfig:
    """Return a recipe with the one of several runs as its teacher that is of its own fold; as it is without any.

    Parameters
    ----------
    config : TrainingConfig
        The recipe.
    teachers : sequence of str
        Folders of finished runs.

    Raises
    ------
    RunError
        If a run is missing, unfinished or damaged.
    UsageError
        If none of them is of the fold, or several are; if the recipe gives a teacher no weight.
    """
    if not teachers:
        return config
    if config.distillation_ratio is None:
        raise UsageError(
            f"the recipe of {config.name} gives a teacher no weight",
            found="a teacher",
            remedy="choose a preset that learns from one, or add --set distillation_ratio=0.36",
        )
    known = [load_run(teacher).config for teacher in teachers]
    own = [teacher for teacher, one in zip(teachers, known, strict=True) if one.fold == config.fold]
    if len(own) != 1:
        raise UsageError(
            f"there {'is no teacher' if not own else 'are several teachers'} of "
            + ("a run without folds" if config.fold is None else _name_fold(config)),
            found=f"teachers of {name_some(list(map(_name_fold, known)), most=_MOST_NAMED)}",
            expected="one",
            remedy="name one finished run of each fold that is trained, or their ensemble, with --teacher",
        )
    return config.model_copy(update={"teacher": own[0]})


def _name_fold(config: TrainingConfig) -> str:
    return "no fold" if config.fold is None else f"fold {config.fold} of {config.n_folds}"


def load_teacher(config: TrainingConfig, data: RunData) -> Run | None:
    """Open the run that a recipe learns from, None if it names none.

    Raises
    ------
    UsageError
        If the recipe gives a teacher a weight, and names none.
    RunError
        If there is no such run, if it predicts on another scale, if it does not know a session or its neurons, or if
        it was trained on trials that this recipe may validate on.
    """
    if config.teacher is None:
        if config.distillation_ratio is not None:
            raise UsageError(
                f"the recipe of {config.name} learns from a teacher",
                found="none",
                expected="a finished run of the same data and fold",
                remedy="name it with --teacher, or leave it out with --set distillation_ratio=none",
            )
        return None
    teacher = load_run(config.teacher)
    for name in ("normalization", "input_layout", "window_stride", "tiers", "n_folds", "fold_rule", "fold"):
        found, expected = getattr(teacher.config, name), getattr(config, name)
        if found != expected:
            raise RunError(
                f"the teacher has another {name}",
                path=teacher.location,
                found=_show(found),
                expected=_show(expected),
                remedy="train a teacher of the same data, scale and fold",
            )
    known = {session.name: session.unit_ids for session in teacher.data.sessions}
    for session in data.sessions:
        if known.get(session.name) != session.unit_ids:
            raise RunError(
                "the teacher does not know the session"
                if session.name not in known
                else "the teacher knows other neurons of the session",
                session=session.name,
                path=teacher.location,
                remedy="train the teacher on this store's sessions",
            )
    return teacher


def _show(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

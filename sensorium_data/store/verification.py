"""Whether what lies in a folder is what was written: every object compared with the ledger, and a store's root."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from sensorium_data.commands import quote_command
from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects, Objects
from sensorium_data.html_table import write_html_lines, write_html_table
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session
from sensorium_data.store.groups import ingest_command, read_ledger, repair_command
from sensorium_data.store.ledger import LEDGER_KEY, ObjectLedger
from sensorium_data.store.movie_ids import LINKS_KEY
from sensorium_data.store.movie_screens import find_screen_problems
from sensorium_data.store.publishing import compose_root
from sensorium_data.store.reading import hold_version
from sensorium_data.store.store import Store
from sensorium_data.store.template import METADATA_KEY
from sensorium_data.store.verified_objects import VerifiedObjects
from sensorium_data.store.versions import VERSIONS_KEY, find_newer_groups, version_number

__all__ = ["VerificationReport", "find_object_problems", "verify_objects", "verify_old_version", "verify_root"]


@dataclass(frozen=True)
class VerificationReport:
    """What a verification found.

    Attributes
    ----------
    session : str
        The session's full name; empty for what belongs to no single session.
    compared_with : str
        ``"ledger"``, ``"sessions"`` for a store's root, or where the archive is.
    n_objects : int
        Objects, or trials of the archive, that were compared.
    size_bytes : int
        Size of what was compared: the objects', or the compressed members'.
    problems : tuple of str
        One sentence for each object that is missing, changed or unknown, or for each difference from the archive; empty
        where all is sound.
    remedy : str
        What to do about the problems, as an imperative clause.
    n_resumed : int
        Objects that an interrupted verification had found sound, and that were not read again.
    old_version : int or None
        The number of the version of the session, if it is one that another has replaced.
    """

    session: str
    compared_with: str
    n_objects: int
    size_bytes: int
    problems: tuple[str, ...]
    remedy: str
    n_resumed: int = 0
    old_version: int | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def _repr_html_(self) -> str:
        of = f"{self.session or 'the files of the root'}, compared with {self.compared_with}"
        state = f"{self.n_objects:,} objects or trials are as they should be" if self.passed else self.remedy
        caption = f"Verification of {of}: {'passed' if self.passed else 'failed'}"
        return write_html_table(caption, ["problem"], [[one] for one in self.problems]) + write_html_lines([state])


def find_object_problems(
    group: Objects,
    ledger: ObjectLedger,
    *,
    jobs: int,
    progress: Progress = ignore_progress,
    label: str = "verify",
    verified: VerifiedObjects | None = None,
) -> dict[str, str]:
    """Return what is wrong with each object of a group that is not as the ledger says.

    ``verified`` are objects that need not be read; those that are found sound are added.
    """

    def check(key: str) -> str | None:
        if verified is not None:
            verified.begin(key)
        try:
            data = group.read(key)
        except FileNotFoundError:
            return "missing"
        except StoreError as error:
            # A server that is away says nothing of the object.
            if not isinstance(group, LocalObjects):
                raise
            return f"{error.problem}: found {error.found}"
        return ledger.objects[key].find_difference(data)

    problems: dict[str, str] = {}
    keys = sorted(key for key in ledger.objects if verified is None or key not in verified)
    n_known = len(ledger.objects) - len(keys)
    n_bytes = 0
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="verify")
    try:
        # Only digests and clauses come back, so the queue holds no data.
        for n_done, (key, problem) in enumerate(zip(keys, pool.map(check, keys), strict=True), start=n_known + 1):
            if problem is not None:
                problems[key] = problem
            elif verified is not None:
                verified.add(key)
            n_bytes += ledger.objects[key].size_bytes
            progress(label, n_done, len(ledger.objects), n_bytes=n_bytes)
    finally:
        pool.shutdown(cancel_futures=True)
    return problems


def verify_objects(
    group: Objects,
    ledger: ObjectLedger,
    *,
    remedy: str,
    session: str = "",
    jobs: int = 4,
    progress: Progress = ignore_progress,
    label: str = "verify",
    resumes: bool = False,
) -> VerificationReport:
    """Compare every object under a folder with its ledger.

    Parameters
    ----------
    group : Objects
        The folder.
    ledger : ObjectLedger
        Its ledger, which lies in it.
    remedy : str
        What to do if something is wrong, for the report.
    session : str
        What the report calls it.
    jobs : int
        Objects read at once.
    progress : Progress
        Told after each object.
    label : str
        What progress is told of.
    resumes : bool
        Go on from where an interrupted verification of the last 24 hours ended.
    """
    verified = VerifiedObjects.of(group, LEDGER_KEY) if resumes else None
    n_resumed = sum(key in verified for key in ledger.objects) if verified is not None else 0
    try:
        problems = find_object_problems(group, ledger, jobs=jobs, progress=progress, label=label, verified=verified)
    except BaseException:
        if verified is not None:
            verified.save()
        raise
    if verified is not None:
        verified.forget()
    sentences = [f"{key}: {problem}" for key, problem in problems.items()]
    keys = group.keys()
    foreign = [key for key in keys or () if key not in ledger.objects and key != LEDGER_KEY]
    sentences += [f"{key}: not in the ledger" for key in foreign]
    if foreign:
        move = "move what is not in the ledger to another place"
        remedy = f"{remedy}; {move}" if problems else move
    return VerificationReport(
        session, "ledger", len(ledger.objects), ledger.size_bytes, tuple(sentences), remedy, n_resumed=n_resumed
    )


def verify_old_version(
    store: Store,
    session: Session,
    group: str,
    *,
    jobs: int = 4,
    progress: Progress = ignore_progress,
    resumes: bool = False,
) -> VerificationReport:
    """Compare every object of a version of a session that another has replaced with its ledger.

    Parameters
    ----------
    store : Store
        The store.
    session : Session
        The session.
    group : str
        The version's group, as :func:`~sensorium_data.store.find_old_groups` returns it.
    jobs, progress, resumes
        As :func:`verify_objects` takes them.

    Raises
    ------
    StoreError
        If its ledger is missing or damaged.
    """
    number = version_number(group)
    # Nobody deletes it meanwhile.
    reading = hold_version(store.objects, group)
    try:
        report = verify_objects(
            store.objects.child(group),
            read_ledger(store.objects, session, group),
            remedy=f"nothing repairs an old version; {quote_command('clean', store.objects.url)} deletes it",
            session=session.name,
            jobs=jobs,
            progress=progress,
            label=f"verify {session.alias}, version {number}",
            resumes=resumes,
        )
    finally:
        del reading
    return replace(report, old_version=number)


def verify_root(store: Store) -> VerificationReport:
    """Compare a store's own files with its sessions: the list of them, their versions, and what is known of movies.

    Returns
    -------
    VerificationReport
        With a problem for each file that is missing, damaged or not what the sessions' groups say; its objects are the
        sessions.
    """
    problems = []
    names = {session.name for session in store.sessions}
    try:
        unknown = sorted(store.versions.keys() - names)
        if store.lacks_versions_file:
            problems.append(f"{VERSIONS_KEY}: missing")
        problems += [f"{VERSIONS_KEY}: names {name}, which is not in the store" for name in unknown]
    except StoreError as error:
        problems.append(f"{VERSIONS_KEY}: {error}")
    is_in_the_way = False
    try:
        problems += [f"{LINKS_KEY}: {problem}" for problem in _find_link_problems(store)]
    except StoreError as error:
        problems.append(f"{LINKS_KEY}: {error.problem}: found {error.found}")
        is_in_the_way = isinstance(error.__cause__, OSError)
    screens = find_screen_problems(store.objects, {_group_of(store, session) for session in store.sessions})
    problems += [f"{key}: {problem}" for key, problem in screens.items()]
    overlooked = find_newer_groups(store.objects, store.sessions, store.versions)
    problems += [
        f"{group}: newer than {store.group(session)}, which counts as the current version"
        for session, group in overlooked
    ]
    metadata = store.root_metadata
    lost: list[Session] = []
    try:
        lost = sorted(set(store.listed) - set(store.sessions))
        problems += [f"{session.name}: the root lists it, but it is not there" for session in lost]
        if metadata is None:
            problems.append(f"{METADATA_KEY}: missing")
        elif not lost and metadata != compose_root(store.objects, set(store.sessions), store.versions):
            problems.append(f"{METADATA_KEY}: not what the sessions' groups say")
    except StoreError as error:
        # A damaged session is reported as such.
        reason = str(error) if error.session is None else f"session {_name(error.session)} is damaged"
        problems.append(f"{METADATA_KEY}: cannot be compared: {reason}")
    commands = [f"`{repair_command(store.objects, one, _group_of(store, one))}`" for one in lost or store.sessions[:1]]
    remedy = f"{' and '.join(commands)} {'write' if lost[1:] else 'writes'} these files again"
    if not commands:
        remedy = "ingest into it"
    if is_in_the_way:
        remedy = f"see that {LINKS_KEY} can be read, or remove what lies in its place; then {remedy}"
    if overlooked:
        taken_up = " and ".join(f"`{ingest_command(store.objects, *one)}`" for one in overlooked)
        remedy = f"{taken_up} takes up the newer version, if its archive is still there; then {remedy}"
    return VerificationReport("", "sessions", len(names), len(metadata or b""), tuple(problems), remedy)


def _find_link_problems(store: Store) -> Iterator[str]:
    links = store.links
    if len(store.sessions) < 2:
        # There is nothing to compare a session's movies with.
        return
    if not links.sessions:
        yield "missing: which movies several sessions show is not known"
        return
    for session in store.sessions:
        # A damaged session is reported as such.
        with contextlib.suppress(StoreError):
            if not links.covers(store.as_stored(session)):
                yield f"the movies of session {session} have not been compared with the others'"


def _name(session: object) -> str:
    return session.alias if isinstance(session, Session) else str(session)


def _group_of(store: Store, session: Session) -> str:
    try:
        return store.group(session)
    except StoreError:
        return session.name

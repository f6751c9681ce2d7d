"""Several fits side by side, each in one thread, with the same bits as fits one after another.

The result of a fit does not depend on the number of threads, and a small network gains little from threads, because
each step is a few short products. Fits of small networks end sooner side by side than one after another.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from headrace._base import progress as _progress
from headrace._base.warn import kept_in, warn
from headrace._core import cpu
from headrace._flow.flow import Flow

T = TypeVar("T")

POLL = 0.1  # seconds between two updates of the bar, with a check for Ctrl-C
SMALL = 128  # most units of a layer for which one thread for each fit is faster than several
TINY = 10_000  # with fewer parameters, most of a step is Python code, which threads cannot share


class Failed(Exception):
    """The error of one fit, with its index."""

    def __init__(self, index: int, error: BaseException) -> None:
        super().__init__(str(error))
        self.index, self.error = index, error


@dataclass
class Finished(Generic[T]):
    """The results of the fits, by index; after Ctrl-C only the results of finished fits."""

    found: dict[int, T] = field(default_factory=dict)
    interrupted: bool = False

    def leading(self) -> list[T]:
        """The results of the fits before the first fit without a result."""
        whole: list[T] = []
        while len(whole) in self.found:
            whole.append(self.found[len(whole)])
        return whole


def threads_side_by_side(flows: Sequence[Flow], *, in_turn: bool = False) -> int:
    """The number of fits that run at once; 1 if fits one after another with all threads are as fast, or are necessary.

    `in_turn`: whether fits must run one after another, because they share a stream or a group.
    """
    threads = cpu.num_threads()
    if in_turn or len(flows) < 2 or any(flow._interior.on_device for flow in flows):
        return 1
    interiors = [flow._interior for flow in flows]
    if all(interior.vector().size < TINY for interior in interiors):
        return 1
    is_small = all(interior.widest <= SMALL for interior in interiors)
    return min(threads, len(flows)) if is_small or 2 * len(flows) >= threads else 1


def between_steps() -> None:
    """A hook between two steps of a fit: end the fit after Ctrl-C, or use threads of other fits that have ended."""
    if (team := _team.get()) is not None:
        team.between_steps()


def run(
    jobs: Iterable[Callable[[], T]],
    threads: int,
    *,
    total: int | None,
    what: str = "fit",
    unit: str = "flow",
    progress: bool = False,
    is_interrupted: Callable[[T], bool] = lambda _: False,
    named: Callable[[int, str], str] = lambda _, message: message,
) -> Finished[T]:
    """Run fits, up to `threads` of them at once, and show one bar for all fits.

    Args:
        jobs: A function for each fit; the calling thread fetches the next function when a thread is free.
        threads: The number of fits at a time.
        total: The number of jobs, for the bar; None if unknown.
        what, unit: The description and the unit of the bar.
        progress: Whether to show the bar.
        is_interrupted: Whether a result is of an interrupted fit, which ends all other fits.
        named: Returns the text of a warning, from the index of its fit and the original text.

    Raises:
        Failed: if a job raised an error; all other jobs have ended by then.
    """
    with _progress.bar(total, what, unit, progress) as shown:
        team = _Team(max(threads, 1), shown, is_interrupted)
        try:
            team.go(iter(jobs))
        finally:
            texts = (named(index, message) for index, messages in sorted(team.messages.items()) for message in messages)
            for message in dict.fromkeys(texts):  # several fits may warn of the same columns
                warn(message)
    return team.finished


class _Team(Generic[T]):
    """Threads with a fit each."""

    def __init__(self, threads: int, shown: Any, is_interrupted: Callable[[T], bool]) -> None:
        self.threads, self.shown, self.is_interrupted = threads, shown, is_interrupted
        self.share, self.stopped = 1, False
        self.running: dict[int, Thread] = {}
        self.ended: SimpleQueue[tuple[int, list[T], BaseException | None]] = SimpleQueue()
        self.finished: Finished[T] = Finished()
        self.messages: dict[int, list[str]] = {}
        self.outer = _team.get()  # the team of an outer fit that runs several fits
        self._done: dict[int, float] = {}  # the finished share of each fit
        self._text = ""

    def go(self, jobs: Iterator[Callable[[], T]]) -> None:
        """Run all jobs."""
        try:
            if self.threads == 1:
                self._in_turn(jobs)
            else:
                self._together(jobs)
        except KeyboardInterrupt:
            self.finished.interrupted = True
        finally:
            self.stopped = True  # without an error, all jobs have ended here
            while self.running:  # repeated Ctrl-C changes nothing
                with suppress(KeyboardInterrupt):
                    self._join()

    def between_steps(self) -> None:
        """See the function `between_steps`."""
        if self.is_stopped():
            raise KeyboardInterrupt
        if self.threads == 1:
            if self.outer is not None:
                self.outer.between_steps()
        elif cpu.num_threads() != self.share:
            cpu.limit_thread(self.share)

    def is_stopped(self) -> bool:
        """Whether the fits of this team must end, because this or an outer team is stopped."""
        return self.stopped or (self.outer is not None and self.outer.is_stopped())

    def _in_turn(self, jobs: Iterator[Callable[[], T]]) -> None:
        for index, job in enumerate(jobs):
            self._text = ""
            try:
                self._take(index, self._work(index, job))
            except Exception as error:
                raise Failed(index, error) from error
            if self.finished.interrupted:
                return
            self._draw()

    def _together(self, jobs: Iterator[Callable[[], T]]) -> None:
        for index in count():
            while len(self.running) == self.threads:
                self._wait()
            if self.finished.interrupted or (job := next(jobs, None)) is None:
                break
            work = partial(contextvars.copy_context().run, self._in_thread, index, job)
            del job  # the job holds a table
            self.running[index] = Thread(target=work, name=f"headrace fit {index}")  # Ctrl-C may interrupt start()
            self.running[index].start()
        while self.running and not self.finished.interrupted:
            self.share = max(self.threads // len(self.running), 1)
            self._wait()

    def _wait(self) -> None:
        """Wait for the end of a fit, at most for POLL seconds, and take its result."""
        with suppress(Empty):
            index, result, error = self.ended.get(timeout=POLL)
            self.running.pop(index).join()
            if error is None:
                self._take(index, *result)
            elif isinstance(error, KeyboardInterrupt):
                self.finished.interrupted = True
            else:
                raise Failed(index, error) from error
        self._draw()

    def _join(self) -> None:
        """Wait for fits that are being stopped, and take the results of fits that ended before they were stopped."""
        for index, thread in list(self.running.items()):
            if thread.ident is not None:
                thread.join()
            del self.running[index]
        while not self.ended.empty():
            index, result, error = self.ended.get()
            if error is None:
                self._take(index, *result)

    def _take(self, index: int, result: T) -> None:
        self.finished.found[index] = result
        self.finished.interrupted |= self.is_interrupted(result)
        self._done[index] = 1.0

    def _in_thread(self, index: int, job: Callable[[], T]) -> None:
        try:
            cpu.limit_thread(self.share)
            self.ended.put((index, [self._work(index, job)], None))
        except BaseException as error:
            self.ended.put((index, [], error))

    def _work(self, index: int, job: Callable[[], T]) -> T:
        """Run the fit with this index in the current thread, and return its result."""
        token, messages = _team.set(self), self.messages.setdefault(index, [])
        try:
            self.between_steps()
            with _progress.sent_to(partial(self._receive, index)), kept_in(messages):
                return job()
        finally:
            _team.reset(token)

    def _receive(self, index: int, message: dict[str, Any]) -> None:
        """Note the state of the bar of one fit; the main thread draws the bar for all fits."""
        total = message["made"]["total"]
        if message["made"]["desc"] == "fit" and total:
            self._done[index] = min(message["n"] / total, 1.0)
            self._text = message["postfix"]
            if self.threads == 1:
                self._draw()

    def _draw(self) -> None:
        self.shown.n = round(sum(list(self._done.values())), 1)
        self.shown.set_postfix_str(self._text)


_team: contextvars.ContextVar[_Team[Any] | None] = contextvars.ContextVar("team", default=None)

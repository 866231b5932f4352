"""Requests of one model and adapter in; evidence against its reference, and the reference itself, out."""

from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np

from introspan_collector.detect import checkpoint
from introspan_collector.detect.builders import Builders, Building
from introspan_collector.detect.live.course import Course
from introspan_collector.detect.live.window import Distance
from introspan_collector.detect.live.yardstick import Seen, Yardstick
from introspan_collector.detect.reference.builder import Limits, Progress
from introspan_collector.detect.reference.file import from_bytes
from introspan_collector.detect.reference.reference import Identity, Reference, State
from introspan_collector.detect.sample import Sample
from introspan_collector.detect.sequential.evidence import Evidence
from introspan_wire.signals import Kind

_WHAT = "a watch"
_VERSION = 4

_SUCCESSION_SECONDS = 300.0
"""So long nothing must have come from what the reference is of, before another takes its place by itself.

While a deploy rolls, both are served: taking one reference and then the other would drop the evidence each time.
"""

_ANOTHER = (
    "it is of another model than the reference, which no canary has found equivalent: ask one, or promote it"
)
NOT_CLEAN = "canaries are not clean"
_REFIT = 2.0
"""A provisional reference is fitted anew when so many times its clusters have come."""


class Watch:
    """Compares with at most one reference, and builds the next from traffic in which nothing is the matter."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._builders = Builders(limits)
        self.course = Course()
        """How far requests were from the reference over the last day."""
        self._yardstick: Yardstick | None = None
        self._served: Identity | None = None
        self._due_clusters: int | None = None
        self._is_heard = False
        self._present_unix_seconds: float | None = None

    @property
    def reference(self) -> Reference | None:
        """What requests are compared with."""
        return None if self._yardstick is None else self._yardstick.reference

    @property
    def is_provisional(self) -> bool:
        """Whether what the reference says may raise tickets only."""
        return self.reference is not None and self.reference.state is State.PROVISIONAL

    @property
    def content_hash(self) -> str:
        """That of the reference, "" while there is none."""
        return "" if self._yardstick is None else self._yardstick.content_hash

    @property
    def served(self) -> Identity | None:
        """What the last request was answered by."""
        return self._served

    @property
    def accepting(self) -> int | None:
        """Clusters at which the next reference is taken up because people accepted what is served; None otherwise."""
        return self._due_clusters

    def see(self, identity: Identity, sample: Sample, replica: str, *, is_healthy: bool) -> Seen:
        """Takes requests of one kind. is_healthy: nothing is the matter, so that they may enter a reference."""
        self._served = identity
        reference = self.reference
        self._is_heard |= reference is not None and reference.identity == identity
        is_accepted = self._due_clusters is not None
        if is_accepted or (is_healthy and (reference is None or self._is_wanted(identity, reference))):
            self._builders.add(identity, sample)
        yardstick = self._yardstick
        if (
            yardstick is None
            or yardstick.reference.identity != identity
            or sample.kind not in yardstick.reference.populations
        ):
            return Seen((), None)
        return yardstick.see(sample, replica)

    def tick(self, now_unix_seconds: float) -> Iterator[Evidence]:
        """Closes a tick; gives what only a whole tick shows."""
        if self._yardstick is not None:
            self.course.tick(now_unix_seconds, self._yardstick.distances())
            yield from self._yardstick.tick()

    def distances(self) -> dict[Kind, Distance]:
        """How far the last ticks are from the reference, by kind of row; empty without a reference."""
        return {} if self._yardstick is None else self._yardstick.distances()

    def progress(self) -> dict[Identity, Progress]:
        """How far the references are that are being built."""
        return self._builders.progress()

    def building(self) -> tuple[Building, ...]:
        """The same, with what stands against each; the one fed last is the last."""
        return self._builders.building()

    def draft(self) -> tuple[Identity, bytes]:
        """What was collected last, for `Builder.restore`. Raises ValueError where nothing was collected."""
        newest = self._builders.newest
        if newest is None:
            raise ValueError(
                "nothing is being collected: a frozen reference is compared with, export that one"
            )
        return newest.identity, newest.snapshot()

    def accept(self) -> int:
        """Lets requests into the next reference whatever is the matter; how many clusters more it is taken up after."""
        newest = self._builders.newest
        gathered = 0 if newest is None else newest.progress().counts.clusters
        self._due_clusters = gathered + self._limits.provisional_clusters
        return self._limits.provisional_clusters

    def decline(self) -> None:
        """Ends what accept began: it is over, or has become something else than what was accepted."""
        present = self.reference
        if self._due_clusters is not None and present is not None and present.state is State.FROZEN:
            self._builders.forget(present.identity)
        self._due_clusters = None

    def doubt(self, fingerprint: str, now_unix_seconds: float) -> None:
        """A canary deviates so that it matters: what was collected of that model ("": of any) is no longer trusted.

        It may be of the time between a fault and the canary that showed it. What people accepted is kept.
        """
        if self._due_clusters is None:
            self._builders.doubt(fingerprint, now_unix_seconds)

    def grow(
        self, now_unix_seconds: float, *, canaries_clean: bool, silence: str = "", may_succeed: bool
    ) -> Reference | None:
        """A reference that has become possible, taken up; None where there is none. May take a second.

        silence: that no canary answers any more, in words; then none is frozen. may_succeed: a reference of another
        identity may take the place of the present one, because the canary found the two equivalent.
        """
        is_gone = self._is_gone(now_unix_seconds)
        may_succeed = self._due_clusters is not None or (is_gone and may_succeed)
        for identity, builder in self._builders:
            progress = builder.progress()
            present = self.reference
            if progress.reached is None:
                continue
            if present is not None and present.identity != identity and not may_succeed:
                self._builders.objections[identity] = (_ANOTHER,)
                continue
            state = progress.reached
            if state is State.FROZEN:
                objections = builder.objections(silence if canaries_clean else NOT_CLEAN)
                self._builders.objections[identity] = objections
                if objections:
                    state = State.PROVISIONAL
            if canaries_clean and self._is_better(identity, state, progress.counts.clusters):
                return self._take(builder.reference(state, int(now_unix_seconds)))
        return None

    def promote(self, now_unix_seconds: float, canaries: str, *, force: bool) -> Reference:
        """Makes what was collected last the frozen reference, before there is as much of it as it should have.

        canaries: what they say against it, "" for nothing. Raises ValueError where there is too little; and, unless it
        is forced, where they say anything or the halves differ. What it was forced against stands in the reference.
        """
        newest, fewest = self._builders.newest, self._limits.provisional_clusters
        if newest is None or newest.progress().reached is None:
            raise ValueError(
                f"a reference needs >= {fewest} clusters of healthy requests: let more come first"
            )
        despite = self.doubts(canaries, force=force)
        reference = newest.reference(State.FROZEN, int(now_unix_seconds))
        return self._take(replace(reference, despite=despite))

    def doubts(self, canaries: str, *, force: bool) -> tuple[str, ...]:
        """What speaks against what was collected last. Raises ValueError where something does, unless it is forced."""
        newest = self._builders.newest
        return () if newest is None else newest.despite(canaries, force=force)

    def adopt(self, reference: Reference) -> None:
        """Compares with this reference from now on."""
        self._take(reference)

    def snapshot(self) -> bytes:
        """The whole state."""
        builders, arrays = self._builders.dump()
        arrays["course"] = self.course.snapshot()
        if self._yardstick is not None:
            arrays["reference"] = self._yardstick.data
            arrays["yardstick"] = self._yardstick.snapshot()
        header = builders | {
            "served": None if self._served is None else asdict(self._served),
            "due_clusters": self._due_clusters,
        }
        return checkpoint.dump(
            _WHAT, _VERSION, header, {name: np.frombuffer(data, np.uint8) for name, data in arrays.items()}
        )

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        saved = {name: array.tobytes() for name, array in arrays.items() if name.startswith("builder_")}
        self._builders.load(header, saved)
        self._served = None if header["served"] is None else Identity(**header["served"])
        self._due_clusters = header["due_clusters"]
        self.course = Course()
        if "course" in arrays:  # what was saved before there was one has none
            self.course.restore(arrays["course"].tobytes())
        self._yardstick = None
        if "reference" in arrays:
            self._yardstick = Yardstick(from_bytes(arrays["reference"].tobytes()))
            self._yardstick.restore(arrays["yardstick"].tobytes())

    def _take(self, reference: Reference) -> Reference:
        self._yardstick = Yardstick(reference)
        self._due_clusters = self._present_unix_seconds = None
        if reference.state is State.FROZEN:
            self._builders.clear()
        return reference

    def _is_better(self, identity: Identity, state: State, clusters: int) -> bool:
        present = self.reference
        if self._due_clusters is not None:
            return clusters >= self._due_clusters
        return (
            present is None
            or present.identity != identity
            or state is not present.state
            or clusters >= _REFIT * present.counts.clusters
        )

    def _is_gone(self, now_unix_seconds: float) -> bool:
        """Whether what the reference is of is served no longer, or people accepted what is."""
        last = self._present_unix_seconds
        if last is None or now_unix_seconds < last or self._is_heard:
            last = self._present_unix_seconds = now_unix_seconds
        self._is_heard = False
        return self._due_clusters is not None or now_unix_seconds - last >= _SUCCESSION_SECONDS

    def _is_wanted(self, identity: Identity, reference: Reference) -> bool:
        return reference.identity != identity or reference.state is State.PROVISIONAL

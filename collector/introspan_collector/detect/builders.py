"""Healthy requests of one model and adapter in; the references that are being built of them out."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from introspan_collector.detect.reference.builder import Builder, Limits, Progress
from introspan_collector.detect.reference.reference import Identity
from introspan_collector.detect.sample import Sample

_MOST = 3
_RESAVE = 1.05


@dataclass(frozen=True, slots=True)
class Building:
    """A reference that is being built: how far it is, and what stands against freezing it, in words."""

    identity: Identity
    progress: Progress
    objections: tuple[str, ...]


class Builders:
    """At most three, one for each model, engine and dtype that is served; the one fed last is the last."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._builders: dict[Identity, Builder] = {}
        self._snapshots: dict[Identity, tuple[int, bytes]] = {}
        self._begun_anew = ""
        self.objections: dict[Identity, tuple[str, ...]] = {}
        """What stands against freezing each, in words, where somebody looked."""

    def __iter__(self) -> Iterator[tuple[Identity, Builder]]:
        return iter(self._builders.items())

    @property
    def newest(self) -> Builder | None:
        """The one fed last."""
        return next(reversed(self._builders.values()), None)

    def add(self, identity: Identity, sample: Sample) -> None:
        """Takes requests that this served."""
        builder = self._builders.pop(identity, None) or Builder(identity, self._limits)
        self._builders[identity] = builder
        while len(self._builders) > _MOST:
            self.forget(next(iter(self._builders)))
        builder.add(sample)

    def progress(self) -> dict[Identity, Progress]:
        """How far each is."""
        return {identity: builder.progress() for identity, builder in self}

    def building(self) -> tuple[Building, ...]:
        """The same, with what stands against each."""
        why = (self._begun_anew,) if self._begun_anew else ()
        return tuple(
            Building(one, builder.progress(), (self.objections.get(one) or builder.lacking()) + why)
            for one, builder in self
        )

    def doubt(self, fingerprint: str, now_unix_seconds: float) -> None:
        """Forgets what was collected of a model ("": of any), and says since when it is collected anew."""
        doubted = [one for one in self._builders if fingerprint in ("", one.fingerprint)]
        for identity in doubted:
            self.forget(identity)
        if doubted:
            at = datetime.fromtimestamp(now_unix_seconds, UTC)
            self._begun_anew = f"collected anew since {at:%Y-%m-%d %H:%M} UTC, when a canary deviated"

    def forget(self, identity: Identity) -> None:
        """Forgets one."""
        for known in (self._builders, self.objections, self._snapshots):
            known.pop(identity, None)

    def clear(self) -> None:
        """Forgets all: what was collected has become a reference."""
        self._begun_anew = ""
        for known in (self._builders, self.objections, self._snapshots):
            known.clear()

    # Any: what JSON can hold.
    def dump(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The header, and what builders hold by name."""
        header = {
            "identities": [asdict(identity) for identity in self._builders],
            "begun_anew": self._begun_anew,
        }
        return header, {f"builder_{i}": self._saved(identity) for i, identity in enumerate(self._builders)}

    # Any: as `dump` gives it.
    def load(self, header: dict[str, Any], saved: dict[str, bytes]) -> None:
        """Takes up what was dumped, in place of what there is."""
        self.clear()
        self._begun_anew = header["begun_anew"]
        for i, fields in enumerate(header["identities"]):
            builder = self._builders[Identity(**fields)] = Builder(Identity(**fields), self._limits)
            builder.restore(saved[f"builder_{i}"])
            requests = builder.progress().counts.requests
            self._snapshots[builder.identity] = (requests, saved[f"builder_{i}"])

    def _saved(self, identity: Identity) -> bytes:
        """A builder's state, at most a twentieth of its requests old: it may have 30 MB, and is saved every minute.

        What a crash loses of it is only missing from the reference that is being built.
        """
        builder = self._builders[identity]
        requests = builder.progress().counts.requests
        known = self._snapshots.get(identity)
        if known is None or requests > _RESAVE * known[0]:
            known = self._snapshots[identity] = (requests, builder.snapshot())
        return known[1]

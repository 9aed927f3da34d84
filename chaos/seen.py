"""What was seen of a run, each with its time: what the judge goes by. Pure.

Times are seconds since the epoch, by the one clock of the machine that all runs on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Way(StrEnum):
    """How a request goes."""

    REST = "rest"
    """Through the ingress controller and the Service."""
    GRPC = "grpc"
    """Straight to the pods, which the cluster's DNS names."""


INGRESS = "ingress-controller"
"""What the ingress controller's pods are counted to, as a model's are to the model."""


@dataclass(frozen=True)
class Failure:
    """A request that failed: when it was sent, and how many seconds it waited."""

    at: float
    model: str
    way: Way
    reason: str
    waited: float = 0.0


@dataclass(frozen=True)
class Pod:
    """A pod at a moment, by the API server's word, and its model server's own answer."""

    name: str
    model: str
    node: str
    ready: bool
    leaving: bool = False
    available: frozenset[int] | None = None
    """The versions that the model server says AVAILABLE; None where it can't be asked."""

    @property
    def answers(self) -> int | None:
        """The version that answers a request which names none."""
        return max(self.available) if self.available else None


@dataclass(frozen=True)
class Told:
    """What the status of an InferenceModel says."""

    model: str
    generation: int = 1
    observed_generation: int = 1
    active: int | None = None
    target: int | None = None
    ready: str = "Unknown"
    """Of the condition."""
    reason: str = ""
    transition: str = ""
    ready_replicas: int = 0
    wanted: int = 0
    """Replicas, by ``replicaSummary``."""
    stalled: str = "False"


@dataclass(frozen=True)
class Look:
    """Everything at one moment; nothing of what the API server keeps where it doesn't answer."""

    at: float
    answered: bool = True
    """Whether the API server did."""
    operators: int = 1
    """How many are ready."""
    pods: tuple[Pod, ...] = ()
    told: tuple[Told, ...] = ()
    nodes_lost: frozenset[str] = frozenset()
    """Those that the API server knows are not Ready."""


@dataclass(frozen=True)
class Taken:
    """What a fault takes with it.

    Attributes:
        pods: whose requests may fail, until they are known not to be ready, or are again.
        nodes: the same of all pods there.
        ways: requests of any model may fail that go this way.
        models: those of these may.
        reporting: whether nobody can tell, or write, a status.
        hearing: whether nobody hears meanwhile that a pod is ready, or isn't any more.
        what: what it hit, in words.
    """

    pods: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    ways: frozenset[Way] = frozenset()
    models: frozenset[str] = frozenset()
    reporting: bool = False
    hearing: bool = False
    what: str = ""


@dataclass
class Happened:
    """A fault that was really there: from its begin until all was put back."""

    kind: str
    began: float
    taken: Taken = field(default_factory=Taken)
    ended: float | None = None

    def until(self, otherwise: float) -> float:
        """When it ended; as long as it has not, ``otherwise``."""
        return otherwise if self.ended is None else self.ended


@dataclass(frozen=True)
class Standstill:
    """The machine did nothing for so many seconds: what is late then, others made late."""

    at: float
    seconds: float


@dataclass(frozen=True)
class Usage:
    """What a process takes."""

    at: float
    kind: str
    """Operator or poller."""
    process: str
    """Which one: the pod, with the process's id."""
    megabytes: float
    threads: int
    files: int


@dataclass(frozen=True)
class Inventory:
    """What there is of everything that could pile up."""

    objects: dict[str, int]
    """By kind, in the fleet's namespace."""
    left: tuple[str, ...] = ()
    """What lies on the pods' volumes and should not, in words."""
    bytes_on_disk: int = 0

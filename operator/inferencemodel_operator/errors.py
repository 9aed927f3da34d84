"""The operator's tree of errors.

OperatorError
├── PermanentError              somebody has to change something: told once, as condition Stalled
│   ├── ContestedError          somebody else changes a child again and again
│   ├── InvalidModelError       the InferenceModel can't be understood
│   ├── InvalidRecordError      the versions ConfigMap can't be understood
│   ├── AddressConflictError    requests for a host and path go to another InferenceModel
│   ├── NameConflictError       an object of a child's name belongs to somebody else
│   ├── NameConflictsError      all such objects of one InferenceModel
│   ├── LostLeadershipError     another replica of the operator leads
│   ├── NoRightError            the operator's account may not do what it has to
│   ├── NotOfferedError         the API server doesn't know a child's kind
│   ├── RefusedError            the API server refuses a child as it is (quota, admission, schema)
│   └── StatusRefusedError      the API server refuses the status
└── TransientError              heals by waiting: retried with backoff and jitter
    ├── ApiUnavailableError     the API server can't be asked, or asks to come later
    ├── ConflictError           the object is not, or no longer, the one that was meant
    ├── LastingError            it should have healed by now, and is still waited for
    ├── ExpiredError            the API server no longer has what came after a version
    ├── NamespaceTerminatingError  the namespace is being deleted, and what is in it
    ├── NotFoundError           there is no such object, kind or namespace
    ├── NotLeadingError         this replica of the operator may not write
    └── PollerUnavailableError  a pod's poller can't be asked
        └── InvalidReportError  what it answers is no report

Every message names the object, what is wrong with it, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass


class OperatorError(Exception):
    """Base of all errors that the operator raises itself."""


class PermanentError(OperatorError):
    """Waiting does not help: somebody has to change something."""


class TransientError(OperatorError):
    """Waiting helps: the same attempt may succeed later."""


class InvalidModelError(PermanentError):
    """An InferenceModel that the API server accepted, but whose content can't be understood.

    Happens when the installed CRD is of another release than the operator, or where what no CRD
    knows the fields of, ``spec.template.spec``, takes away what pods can't be without.
    """

    def __init__(self, name: str, field: str, problem: str, fix: str) -> None:
        super().__init__(f"InferenceModel {name}: {field}: {problem}; {fix}")
        self.name = name
        """NAMESPACE/NAME."""
        self.field = field
        """Path of the field, such as ``spec.source.pollInterval``."""


class InvalidRecordError(PermanentError):
    """A versions ConfigMap whose data the operator didn't write."""

    def __init__(self, name: str, key: str, problem: str) -> None:
        where = f"data[{key!r}]" if key else "data"
        super().__init__(
            f"ConfigMap {name}: {where}: {problem}; "
            "delete the ConfigMap, the operator writes it anew"
        )


@dataclass(frozen=True)
class Claim:
    """The InferenceModel that would own an object."""

    namespace: str
    name: str
    uid: str


class NameConflictError(PermanentError):
    """An object that has a child's name and belongs to somebody else; it is left untouched."""

    def __init__(self, kind: str, name: str, *, claim: Claim | None = None) -> None:
        super().__init__(
            f"{kind} {name} exists and does not belong to this InferenceModel; "
            f"delete or rename the {kind}, or create the InferenceModel under another name"
        )
        self.kind = kind
        self.name = name
        """NAMESPACE/NAME."""
        self.claim = claim
        """Who may have it handed over: it was a child of an InferenceModel of this name that is
        gone. None where it never was."""


class NameConflictsError(PermanentError):
    """All name conflicts of one InferenceModel, with what to do about each."""


class ContestedError(PermanentError):
    """Somebody undoes each time what the operator does to a child."""

    def __init__(self, kind: str, name: str, rivals: str, seconds: float) -> None:
        super().__init__(
            f"{kind} {name} is changed again and again by {rivals}, and changed back only every "
            f"{seconds:.0f} s; have it leave the {kind} alone, or ask for the same in the "
            "InferenceModel"
        )


class AddressConflictError(PermanentError):
    """Another InferenceModel asks for the same host and path, and came before."""

    def __init__(self, address: str, kind: str, other: str | None, fields: str) -> None:
        """``other`` is None when it is in another namespace."""
        whose = f"InferenceModel {other}" if other else "an InferenceModel of another namespace"
        super().__init__(
            f"{address} is asked for by {whose}, too, whose {kind} is the older one, so requests "
            f"go there; change {fields} here or there"
        )


class RefusedError(PermanentError):
    """The API server refused a child for what it is, not for when it came."""

    def __init__(
        self, kind: str, name: str, problem: str, fix: str, *, invalid: bool = False
    ) -> None:
        super().__init__(f"{kind} {name} was refused by the API server: {problem}; {fix}")
        self.kind = kind
        self.name = name
        """NAMESPACE/NAME."""
        self.problem = problem
        """The API server's words."""
        self.invalid = invalid
        """For its content, together with what is there: not for who asked, when, or how often."""

    def with_fix(self, fix: str) -> RefusedError:
        """The same refusal, where something else mends it."""
        return RefusedError(self.kind, self.name, self.problem, fix, invalid=self.invalid)


class StatusRefusedError(PermanentError):
    """The API server refused an InferenceModel's status, which nobody but the operator writes.

    Unless admission has denied it, the installed CRD is of another release than the operator.
    """

    def __init__(self, name: str, problem: str, fix: str | None = None) -> None:
        mend = fix or (
            "install the CRD of the operator's own release (crds/inferencemodel.yaml): the one "
            "that is installed does not know what this operator reports"
        )
        super().__init__(
            f"the status of InferenceModel {name} was refused by the API server: {problem}; {mend}"
        )
        self.name = name
        """NAMESPACE/NAME."""
        self.problem = problem
        """The API server's words."""


class LostLeadershipError(PermanentError):
    """Another replica of the operator leads: this one has to end."""

    def __init__(self, lease: str, holder: str) -> None:
        why = f"{holder} holds it" if holder else "somebody has taken its holder out"
        super().__init__(f"{lease} is lost: {why}; ending, to start anew as a standby")


class NoRightError(PermanentError):
    """The operator's account lacks a right; nothing is wrong with any InferenceModel."""


class NotOfferedError(PermanentError):
    """A child of a kind that the API server doesn't know."""

    def __init__(
        self,
        kind: str,
        name: str,
        crd: str,
        api_version: str,
        asked_by: str,
        brought_by: str = "",
    ) -> None:
        whose = f" ({brought_by})" if brought_by else ""
        super().__init__(
            f"{kind} {name} can't be created: this cluster has no {kind} ({api_version}); install "
            f"the CRD {crd}{whose}, or remove {asked_by} from the InferenceModel"
        )
        self.kind = kind
        self.name = name


class ConflictError(TransientError):
    """The object is not, or no longer, the one that was meant."""


class ApiUnavailableError(TransientError):
    """The API server could not be asked, or asked to come later."""

    def __init__(self, problem: str, *, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after = retry_after
        """Seconds that the API server asked to wait."""


class NamespaceTerminatingError(TransientError):
    """The namespace is being deleted: nothing new is let in, and what is there goes."""


class NotFoundError(TransientError):
    """There is no such object, kind or namespace."""


class LastingError(TransientError):
    """Something that waiting should have healed, and has not."""

    def __init__(self, problem: OperatorError) -> None:
        super().__init__(str(problem))
        self.retry_after: float = getattr(problem, "retry_after", 0.0)
        """Seconds that the API server asked to wait."""


class NotLeadingError(TransientError):
    """A write of a replica that does not, or no longer, lead; it was not sent."""


class ExpiredError(TransientError):
    """The changes since a version are forgotten: only a new listing tells what is."""


class PollerUnavailableError(TransientError):
    """A pod's poller could not be asked."""


class InvalidReportError(PollerUnavailableError):
    """What a pod's poller answers is no report of a poller."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"what it answers is no report: {problem}")

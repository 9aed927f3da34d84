"""An embedded Kubernetes for demo and tests: upstream, nothing simulated."""

from devcluster.apiserver import ApiServer
from devcluster.client import Api, KubectlError
from devcluster.cluster import Cluster
from devcluster.errors import (
    BuildError,
    DevclusterError,
    PreconditionError,
    StartError,
    UsageError,
)
from devcluster.settings import Settings, Status

__all__ = [
    "Api",
    "ApiServer",
    "BuildError",
    "Cluster",
    "DevclusterError",
    "KubectlError",
    "PreconditionError",
    "Settings",
    "StartError",
    "Status",
    "UsageError",
]

"""A bucket behind TLS of a company's own authority, which pods know by a ConfigMap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import tls_relay
from tests.support.certificates import Authority
from tests.support.kubectl import condition

if TYPE_CHECKING:
    from tests.e2e.models import Served
    from tests.support.kubectl import Object

pytestmark = pytest.mark.e2e

NAME, PORT = "secure-bucket", 8443
FIELD = "spec.poller.extraCAs"


def start_relay(served: Served, pem: str) -> None:
    """TLS in front of the bucket: a pod and its Service, with Python of the poller's image."""
    (deployment,) = served.kubectl.list("deployments", served.selector)
    pod = deployment["spec"]["template"]["spec"]
    (poller,) = pod["initContainers"]
    program = Path(tls_relay.__file__).read_text()
    arguments = [str(PORT), "bucket.development-bucket", "4443", "/tls/server.pem"]
    served.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": NAME},
            "stringData": {"server.pem": pem},
        }
    )
    served.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": NAME, "labels": {"app": NAME}},
            "spec": {
                "automountServiceAccountToken": False,
                "securityContext": pod["securityContext"],
                "containers": [
                    {
                        "name": "relay",
                        "image": poller["image"],
                        "imagePullPolicy": poller["imagePullPolicy"],
                        "command": ["python3", "-c", program, *arguments],
                        "securityContext": poller["securityContext"],
                        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
                    }
                ],
                "volumes": [{"name": "tls", "secret": {"secretName": NAME, "defaultMode": 0o440}}],
            },
        }
    )
    served.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME},
            "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT}]},
        }
    )
    served.kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=60s")


def authorities(served: Served, text: str) -> None:
    served.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "company"},
            "data": {"ca.crt": text},
        }
    )


def test_a_bucket_of_a_companys_own_authority(served: Served) -> None:
    ours = Authority()
    host = f"{NAME}.{served.namespace}.svc"
    served.upload(1, offset=2)
    source = {"endpoint": f"https://{host}:{PORT}", "anonymous": True, "pollInterval": "5s"}
    poller = {"extraCAs": {"configMap": {"name": "company"}}}
    served.apply(replicas=1, source=source, poller=poller)

    def told(*words: str) -> None:
        def says(obj: Object) -> bool:
            message = condition(obj, "Ready")["message"]
            return all(word in message for word in words)

        served.until(says, what=f"{words} in Ready", within=180)

    # Nobody has made it.
    told('ConfigMap "company" is not there', FIELD)
    start_relay(served, ours.issue(host))
    authorities(served, "no certificate")
    told("EXTRA_CA_FILE", "no file of certificates", FIELD)
    # The kubelet shows another text within a minute or two.
    authorities(served, Authority("another").certificate)
    served.until(
        lambda obj: "is not trusted" in condition(obj, "SourceReady")["message"],
        what="an authority that isn't known",
        within=300,
    )
    authorities(served, ours.certificate)
    served.until_active(1, replicas=1, within=300)
    (pod,) = served.pods()
    restarts = pod["status"]["initContainerStatuses"][0]["restartCount"]
    served.upload(2, offset=3)
    served.until_active(2, replicas=1)
    (pod,) = served.pods()
    assert pod["status"]["initContainerStatuses"][0]["restartCount"] == restarts

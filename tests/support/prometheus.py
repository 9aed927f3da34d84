"""A real Prometheus that finds the project's pods as the monitors of the manifests tell it."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import yaml

from devcluster.ports import free_port
from tests.support.monitoring import MONITORING
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

Object = dict[str, Any]
Series = tuple[dict[str, str], list[tuple[float, float]]]
"""Its labels; its times, in seconds since 1970, and values."""


def scrapes(kubeconfig: Path, *, interval: int) -> list[Object]:
    """The scrapes of the ServiceMonitor and the PodMonitor, as Prometheus Operator writes them.

    Args:
        kubeconfig: who looks for pods, and where.
        interval: seconds, instead of the monitors' own.
    """
    service, pods = yaml.safe_load_all((MONITORING / "monitors.yaml").read_text())
    return [
        _scrape(monitor, endpoint, role, kubeconfig, interval)
        for monitor, role, endpoints in (
            (service, "endpointslice", "endpoints"),
            (pods, "pod", "podMetricsEndpoints"),
        )
        for endpoint in monitor["spec"][endpoints]
    ]


def _scrape(
    monitor: Object, endpoint: Object, role: str, kubeconfig: Path, interval: int
) -> Object:
    of, port = (
        ("service", "endpointslice_port_name")
        if role == "endpointslice"
        else ("pod", "pod_container_port_name")
    )
    selector = monitor["spec"]["selector"]
    rules = [
        *(
            _keep(f"{of}_label_{_label(name)}", value)
            for name, value in selector["matchLabels"].items()
        ),
        *(
            _keep(f"{of}_labelpresent_{_label(wanted['key'])}", "true")
            for wanted in selector.get("matchExpressions", [])
        ),
        _keep(port, endpoint["port"]),
        _copy("namespace", "namespace"),
        _copy("pod_name", "pod"),
    ]
    if role == "endpointslice":
        rules.append(_copy("service_name", "job"))
    else:
        rules.append({"target_label": "job", "replacement": monitor["metadata"]["name"]})
    rules += [
        {"source_labels": rule["sourceLabels"], "target_label": rule["targetLabel"]}
        for rule in endpoint.get("relabelings", [])
    ]
    return {
        "job_name": f"{monitor['metadata']['name']}/{endpoint['port']}",
        "metrics_path": endpoint["path"],
        "scrape_interval": f"{interval}s",
        "scrape_timeout": f"{interval}s",
        "kubernetes_sd_configs": [{"role": role, "kubeconfig_file": str(kubeconfig)}],
        "relabel_configs": rules,
    }


def _label(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _keep(source: str, value: str) -> Object:
    return {
        "action": "keep",
        "source_labels": [f"__meta_kubernetes_{source}"],
        "regex": re.escape(value),
    }


def _copy(source: str, target: str) -> Object:
    return {"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target}


class Prometheus:
    """A Prometheus inside a ``with`` block; it keeps what it scrapes in a folder."""

    def __init__(
        self, program: Path, folder: Path, scrape_configs: list[Object], rules: Object
    ) -> None:
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        config = {
            "global": {"evaluation_interval": "5s"},
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": scrape_configs,
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{free_port()}"
        self._log = folder / "log"
        self._argv = [
            str(program),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
            "--log.level=warn",
        ]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log)
        try:
            eventually(self._ready, what=f"Prometheus, see {self._log}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).close()
        except OSError:
            return False
        return True

    def ask(self, path: str, **query: str) -> Any:
        """What ``/api/v1/`` and a path answer."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def labels(self, metric: str, begin: float, end: float) -> list[dict[str, str]]:
        """The labels of every series that a metric had within a time."""
        found: list[dict[str, str]] = self.ask(
            "series", **{"match[]": f'{{__name__="{metric}"}}'}, start=f"{begin}", end=f"{end}"
        )
        return found

    def over_time(self, query: str, begin: float, end: float, *, step: float) -> list[Series]:
        """A query's series within a time, without what is no number."""
        told = self.ask("query_range", query=query, start=f"{begin}", end=f"{end}", step=f"{step}")
        found = [
            (
                series["metric"],
                [(float(at), float(value)) for at, value in series["values"] if value != "NaN"],
            )
            for series in told["result"]
        ]
        return [(labels, points) for labels, points in found if points]

"""The API of a Kubernetes cluster, reached by the kubeconfig and asked again where it fails for a moment.

The client is an optional dependency, imported only when a command asks a cluster.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from kaito_catalog.errors import CatalogError

CALL_ATTEMPTS = 5
PAUSE_SECONDS = 1.0


def import_client() -> Any:
    """The `kubernetes` package.

    Raises:
        CatalogError: it is not installed.
    """
    try:
        import kubernetes
    except ImportError as error:
        raise CatalogError(
            "the Kubernetes client is not installed here", hint="pip install 'kaito-catalog[kubernetes]'"
        ) from error
    return kubernetes


class ClusterApi:
    """The client, connected; `needs` says in a sentence what has to be allowed, for whom the cluster refuses.

    Raises:
        CatalogError: the client is not installed, or there is no kubeconfig.
    """

    def __init__(self, *, needs: str, without: str) -> None:
        self.client = import_client()
        self._needs = needs
        self.namespace = self._connect(without)
        """Of the kubeconfig's context."""

    def _connect(self, without: str) -> str:
        """Read the kubeconfig (KUBECONFIG, or the default place); gives the namespace of its context."""
        config = self.client.config
        try:
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(config_file=file)
            _, context = config.list_kube_config_contexts(config_file=file)
        except config.ConfigException as error:
            raise CatalogError(f"no kubeconfig: {error}", hint=f"set KUBECONFIG, or {without}") from error
        return str(context.get("context", {}).get("namespace") or "default")

    @property
    def refused(self) -> Any:
        """The exception of an answer that is an error; its `status` is the code of HTTP."""
        return self.client.client.ApiException

    def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """A call of the API, again where the server or the way to it fails for a moment.

        Raises:
            CatalogError: the cluster forbids it, or does not answer.
        """
        import urllib3

        for attempt in range(1, CALL_ATTEMPTS + 1):
            try:
                return function(*args, **named, _request_timeout=(10, 60))
            except self.refused as error:
                if error.status in (401, 403):
                    raise CatalogError(
                        f"the cluster refuses ({error.status}): {reason_of(error)}", hint=self._needs
                    ) from error
                if error.status != 429 and error.status < 500:
                    raise
                words = f"{error.status} {reason_of(error)}"
            except urllib3.exceptions.HTTPError as error:
                words = f"{type(error).__name__}"
            if attempt < CALL_ATTEMPTS:
                time.sleep(PAUSE_SECONDS * attempt)
        raise CatalogError(
            f"the cluster does not answer: {words}", hint="run the same command again: what is done is kept"
        )


def reason_of(error: Any) -> str:
    """Why a cluster refuses, in its own words."""
    try:
        return str(json.loads(error.body)["message"])[:300]
    except (TypeError, KeyError, ValueError):
        return str(error.reason)[:300]

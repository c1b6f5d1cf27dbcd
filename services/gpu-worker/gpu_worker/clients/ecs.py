"""Task scale-in protection by the agent of Amazon ECS, which answers inside each task.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html
"""

from __future__ import annotations

import asyncio
import json
import math
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from easel_kit.errors import DependencyDown

_TIMEOUT_S = 5.0
_MOST_MINUTES = 2880
_MOST_BYTES = 65_536


class EcsAgent:
    """Port `Protection`."""

    def __init__(self, uri: str) -> None:
        """`uri` is what ECS puts into a task's `ECS_AGENT_URI`."""
        self._url = f"{uri.rstrip('/')}/task-protection/v1/state"
        self._opener = build_opener(ProxyHandler({}))  # the agent is inside the task

    async def protect(self, for_s: float | None) -> None:
        """See the port; rounded up to minutes, at most two days."""
        wish: dict[str, object] = {"ProtectionEnabled": for_s is not None}
        if for_s is not None:
            wish["ExpiresInMinutes"] = min(_MOST_MINUTES, max(1, math.ceil(for_s / 60)))
        answer = await asyncio.to_thread(self._put, wish)
        if not isinstance(answer, dict) or "protection" not in answer:
            raise DependencyDown(f"the ECS agent refused: {_reason(answer)}")

    def _put(self, wish: dict[str, object]) -> Any:  # noqa: ANN401 (whatever the agent answers)
        request = Request(  # noqa: S310 (the scheme is checked where the setting is)
            self._url,
            data=json.dumps(wish).encode(),
            headers={"Content-Type": "application/json"},
            method="PUT",
        )
        try:
            try:
                with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                    return json.loads(response.read(_MOST_BYTES))
            except HTTPError as refusal:
                with refusal:
                    return json.loads(refusal.read(_MOST_BYTES))
        except (OSError, HTTPException, ValueError) as error:
            raise DependencyDown(f"the ECS agent does not answer ({error})") from error


def _reason(answer: object) -> str:
    told = answer.get("failure") or answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(told, dict):
        return "no protection in its answer"
    return str(told.get("Reason") or told.get("Code") or "without a reason")

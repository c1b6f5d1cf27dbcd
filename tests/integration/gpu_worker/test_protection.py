"""Task protection over HTTP: what the ECS agent is asked, and what it may answer."""

from __future__ import annotations

import json

import pytest

from easel_kit.errors import DependencyDown
from gpu_worker.clients.ecs import EcsAgent
from tests.fakes.ecs_agent import ecs_agent


@pytest.mark.parametrize(
    ("for_s", "wish"),
    [
        (900.0, {"ProtectionEnabled": True, "ExpiresInMinutes": 15}),
        (0.1, {"ProtectionEnabled": True, "ExpiresInMinutes": 1}),
        (1e9, {"ProtectionEnabled": True, "ExpiresInMinutes": 2880}),
        (None, {"ProtectionEnabled": False}),
    ],
)
async def test_the_agent_is_asked_in_its_words(
    for_s: float | None, wish: dict[str, object]
) -> None:
    with ecs_agent() as agent:
        await EcsAgent(agent.uri + "/").protect(for_s)
        assert agent.asked.get(timeout=5) == (
            "/api/abc/task-protection/v1/state",
            "application/json",
            wish,
        )


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (200, {"failure": {"Arn": "arn", "Reason": "TASK_NOT_VALID"}}, "TASK_NOT_VALID"),
        (200, {"error": {"Code": "AccessDeniedException"}}, "AccessDeniedException"),
        (200, {"failure": "text"}, "no protection in its answer"),
        (200, [], "no protection in its answer"),
        (400, {"error": {"Code": "InvalidParameterException"}}, "InvalidParameterException"),
        (500, "", "no protection in its answer"),
    ],
)
async def test_a_refusal_is_told(status: int, answer: object, reason: str) -> None:
    with ecs_agent() as agent:
        agent.status, agent.answer = status, json.dumps(answer).encode()
        with pytest.raises(DependencyDown, match=reason):
            await EcsAgent(agent.uri).protect(60)


async def test_nonsense_and_silence_are_told() -> None:
    with ecs_agent() as agent:
        agent.answer = b"<html>"
        with pytest.raises(DependencyDown, match="does not answer"):
            await EcsAgent(agent.uri).protect(60)
    with pytest.raises(DependencyDown, match="does not answer"):
        await EcsAgent(agent.uri).protect(60)

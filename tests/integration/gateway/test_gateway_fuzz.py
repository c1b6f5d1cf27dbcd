"""The API against its own description: a bounded run of Schemathesis finds nothing."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.fakes.gateway import Start

CASES_PER_OPERATION = 12
# A valid body may still ask for a model or size that is not offered (422), or for more than the
# account holds (402): what is acceptable depends on the catalogue, not on the schema.
LEFT_OUT = "positive_data_acceptance"


@pytest.mark.timeout(300)
async def test_the_api_keeps_to_its_description(start: Start, tmp_path: Path) -> None:
    async with start(address_requests_per_minute=10**6) as gateway:
        # one that has ended: the stream of any other would be waited for
        job = (await gateway.submit())["id"]
        image = await gateway.scheduler.succeed(job)
        await gateway.http.get(f"/v1/generations/{job}", headers=gateway.auth())
        parameters = f'[parameters]\njob_id = "{job}"\nimage_id = "{image.id}"\n'
        (tmp_path / "schemathesis.toml").write_text(parameters)
        token = gateway.issuer.token()
        run = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("st"),
            "run",
            f"{gateway.url}/openapi.json",
            f"--header=Authorization: Bearer {token}",
            "--checks=all",
            f"--exclude-checks={LEFT_OUT}",
            "--phases=examples,coverage,fuzzing",
            f"--max-examples={CASES_PER_OPERATION}",
            "--mode=all",
            "--generation-database=none",
            "--seed=1",
            "--request-timeout=5",
            "--no-color",
            "--continue-on-failure",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await run.communicate()
    assert run.returncode == 0, out.decode()

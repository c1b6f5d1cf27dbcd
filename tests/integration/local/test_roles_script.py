"""deploy/docker/postgres-roles.sh, as the containers run it, on a real Postgres."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from easel_local.postgres import Postgres
from easel_local.postgres_install import find_installation

SCRIPT = Path(__file__).parents[3] / "deploy/docker/postgres-roles.sh"
ROLES = ("billing", "gateway", "scheduler")


async def started(server: Postgres, programs: Path, **passwords: str) -> asyncio.subprocess.Process:
    admin = urlsplit(server.url)
    env = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "PGHOST": str(admin.hostname),
        "PGPORT": str(admin.port),
        "PGUSER": str(admin.username),
        "PGPASSWORD": str(admin.password),
        "PGDATABASE": "postgres",
    }
    return await asyncio.create_subprocess_exec(
        "/bin/sh", str(SCRIPT), env=env | passwords, stderr=asyncio.subprocess.PIPE
    )


async def ended(script: asyncio.subprocess.Process) -> tuple[int | None, str]:
    _, stderr = await asyncio.wait_for(script.communicate(), 50)
    return script.returncode, stderr.decode()


async def test_the_script_waits_for_postgres_and_makes_a_role_a_service(tmp_path: Path) -> None:
    programs = find_installation(tmp_path).bin_dir
    if not (programs / "psql").exists():
        pytest.skip("these binaries of Postgres have no psql")
    server = Postgres(tmp_path, durable=False)
    given = {f"{role.upper()}_DATABASE_PASSWORD": f"{role}-1" for role in ROLES}
    early = await started(server, programs, **given)
    async with server:
        assert await ended(early) == (0, "")
        changed = given | {"BILLING_DATABASE_PASSWORD": "billing-2"}
        assert await ended(await started(server, programs, **changed)) == (0, "")
        address = f"127.0.0.1:{server.port}/postgres"
        for role in ROLES:
            word = "billing-2" if role == "billing" else f"{role}-1"
            connection = await asyncpg.connect(f"postgresql://{role}:{word}@{address}")
            await connection.execute("CREATE TABLE mine (word text)")
            for other in set(ROLES) - {role}:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(f"CREATE TABLE {other}.theirs (word text)")
            await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://billing:billing-1@{address}")
        del given["GATEWAY_DATABASE_PASSWORD"]
        code, complaint = await ended(await started(server, programs, **given))
        assert (code, "GATEWAY_DATABASE_PASSWORD is not set" in complaint) == (2, True)

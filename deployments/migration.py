"""Migrates Prefect's database: one process at a time, however many start at once.

Of two processes that let Prefect migrate at the same time, one fails, and `prefect server start` ends with
exit code 0. Here the second waits until the first is done, and finds nothing to do.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from prefect.server.database import provide_database_interface
from prefect.server.database.alembic_commands import alembic_config
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_LOCK = int.from_bytes(b"migrate", "big")
_PAUSE_SECONDS = 0.5

logger = logging.getLogger(__name__)


async def migrate() -> None:
    """Bring the schema up to this Prefect. Leaves one alone that a newer Prefect has made.

    So a deployment that is rolled back starts again, with the schema that it has just run with.
    """
    database = provide_database_interface()
    engine = await database.engine()
    async with engine.connect() as connection, _alone(connection):
        newer = await _unknown_revision(connection, str(database.orm.versions_dir))
        if newer is not None:
            logger.warning(
                "Prefect's database has the schema %s, of a newer Prefect than this one. It is not "
                "migrated. Run the newer version again soon: an older one may fail with this schema.",
                newer,
            )
            return
        await database.run_migrations_upgrade()


@asynccontextmanager
async def _alone(connection: AsyncConnection) -> AsyncIterator[None]:
    """Hold a lock of PostgreSQL that ends with this process at the latest.

    It is asked for again and again. A statement that waits for the lock would reach Prefect's time-out,
    and until then keep a snapshot, for which `CREATE INDEX CONCURRENTLY` of the one that migrates waits.
    """
    await connection.execution_options(isolation_level="AUTOCOMMIT")
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}):
        await asyncio.sleep(_PAUSE_SECONDS)
    try:
        yield
    finally:
        await connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})


async def _unknown_revision(connection: AsyncConnection, versions: str) -> str | None:
    """The revision of the schema, if this Prefect does not know it."""
    if await connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    known = ScriptDirectory.from_config(alembic_config())
    known.version_locations = [versions]
    try:
        known.get_revision(revision or "base")
    except CommandError:
        return revision
    return None

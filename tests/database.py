"""The database of a running stack, for what Prefect's API can't do or takes too long for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from deployments.local import LocalStack


@asynccontextmanager
async def database_of(stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    """A connection, until the block ends."""
    connection = await asyncpg.connect(
        stack.database_url.replace("+asyncpg", ""), passfile=stack.database_variables["PGPASSFILE"]
    )
    try:
        yield connection
    finally:
        await connection.close()

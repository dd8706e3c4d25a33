"""What a worker does beside its jobs: removes what none of them uses, and checks its conda."""

import asyncio
import logging
import re
import shutil
from pathlib import Path

from packaging.version import Version

from flows.contract.environments import EnvironmentSettings, SoftwareSettings
from flows.environments.making import Environments
from flows.environments.software_cache import remove_unused_software

LOOK_SECONDS = 86_400.0
OLDEST_CONDA = Version("24.7.1")
"""Snakemake 9 rejects older ones (`snakemake.deployment.conda`, `MIN_CONDA_VER`)."""

_CONDA_SECONDS = 30.0

logger = logging.getLogger("prefect.workers.snakemake")


async def keep_house(home: Path) -> None:
    """Report what is wrong with conda, once; then remove unused environments every day, for ever."""
    if (wrong := await conda_problem(SoftwareSettings())) is not None:
        logger.warning("%s Jobs that ask for conda will fail.", wrong)
    while True:
        try:
            removed = await asyncio.to_thread(remove_unused, home)
            if removed:
                logger.info("Removed environments that no job has used for long: %s.", ", ".join(removed))
        except OSError as error:
            logger.warning("Unused environments could not be removed: %s", error)
        await asyncio.sleep(LOOK_SECONDS)


def remove_unused(home: Path) -> list[str]:
    """Remove Python and conda environments by age; their names."""
    software = SoftwareSettings()
    return [
        *Environments(EnvironmentSettings(), home).remove_unused(),
        *remove_unused_software(
            software.software_directory or home / "software", software.software_keep_days
        ),
    ]


async def conda_problem(settings: SoftwareSettings) -> str | None:
    """What is wrong with the conda that the operator names. Nothing is, where none is named."""
    if settings.conda_directory is None:
        return None
    conda = shutil.which("conda", path=str(settings.conda_directory))
    if conda is None:
        return f"JOBS_CONDA_DIRECTORY={settings.conda_directory} has no program `conda`."
    process = await asyncio.create_subprocess_exec(
        conda, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _CONDA_SECONDS)
    except TimeoutError:
        process.kill()
        return f"{conda} does not answer."
    found = re.search(r"conda (\d[\w.]*)", output.decode(errors="replace"))
    if found is None:
        return f"{conda} does not say its version."
    if Version(found[1]) < OLDEST_CONDA:
        return f"{conda} is of version {found[1]}; Snakemake needs {OLDEST_CONDA} or newer."
    return None

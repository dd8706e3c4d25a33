"""Private parts of Prefect, Snakemake, dulwich, urllib3 and CPython that the service overrides or changes.

Two kinds of tests, in a file for each of them:

- What we override still exists with the signature that we override, and is still called. A hook that has
  been renamed would silently never be called.
- What we repair is still broken. Such a test is named `…_still_…`; when it fails, remove the repair.

`tests/flows/record/test_task_runs.py` holds the events that Prefect's server records, and
`tests/flows/snakemake_process/conformance.py` the tests that Snakemake ships for plugins.
"""

"""The logger plugin `prefect`, without a Prefect server; `tests/service/test_attached_runs.py` has one."""

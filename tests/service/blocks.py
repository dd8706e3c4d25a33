"""Blocks in the Prefect of the running stack."""

import httpx


def save_block(
    prefect_api: httpx.Client, name: str, value: str, block_type: str = "secret", field: str = "value"
) -> None:
    """Store a block as Prefect's UI does it, which knows the types of Prefect's other packages, too."""
    kind = prefect_api.get(f"/block_types/slug/{block_type}").raise_for_status().json()["id"]
    body = {"block_schemas": {"block_type_id": {"any_": [kind]}}}
    schemas = prefect_api.post("/block_schemas/filter", json=body).raise_for_status().json()
    document = {
        "name": name,
        "data": {field: value},
        "block_type_id": kind,
        "block_schema_id": schemas[0]["id"],
    }
    prefect_api.post("/block_documents/", json=document).raise_for_status()

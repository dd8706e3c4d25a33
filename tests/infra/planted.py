"""The default deployment with what nobody should add, for the CDK's command line: a bucket in clear."""

from pathlib import Path

from aws_cdk import App, Stack
from aws_cdk import aws_s3 as s3

from infra.app import build
from infra.settings.file import read_settings

app = App()
build(app, read_settings(Path(__file__).parent / "settings" / "default.toml"))
stack = app.node.find_child("prefect-snakemake-watch")
assert isinstance(stack, Stack)
s3.Bucket(stack, "Planted")
app.synth()

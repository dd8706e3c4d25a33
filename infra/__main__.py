"""What the CDK's command line runs: `python -m infra`.

`-c settings=FILE` names another settings file. `-c digest=sha256:…` names the image and overrides the file.
"""

import sys
from pathlib import Path

from aws_cdk import App

from infra.app import build
from infra.settings.file import SETTINGS_FILE, read_settings
from infra.settings.strict import SettingsRefused


def main() -> int:
    app = App()
    try:
        settings = read_settings(Path(app.node.try_get_context("settings") or SETTINGS_FILE))
        build(app, settings.with_image(app.node.try_get_context("digest")))
    except SettingsRefused as error:
        sys.stderr.write(f"{error}\n")
        return 1
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())

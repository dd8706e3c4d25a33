"""What the CDK's command line runs: `python -m infra`.

`-c settings=FILE` names another file; `-c digest=sha256:…` the image, whatever the file says.
"""

import sys
from pathlib import Path

from aws_cdk import App

from infra.app import build
from infra.settings import SETTINGS_FILE, SettingsRefused, read_settings


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

"""The services that the golden files describe; run this file to write them anew."""

import sys
from pathlib import Path
from typing import Final

from daemon.wire.paths import find_home
from daemon.wire.settings import HttpSettings
from launchd.agents import bridge_agent, daemon_agent, render, service_environment
from launchd.units import bridge_units, daemon_units

GOLDEN: Final = Path(__file__).parent / "golden"

MAC: Final = find_home({"HOME": "/Users/ada"}, "darwin")
LINUX: Final = find_home({"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/1000"}, "linux")
ONE_FOLDER: Final = find_home({"HOME": "/Users/ada", "MLXD_HOME": "/Volumes/Fast/mlxd"}, "darwin")
PYTHON: Final = Path("/Users/ada/.local/share/uv/tools/mlxd/bin/python")
USUAL: Final = service_environment({"HOME": "/Users/ada", "API_KEY": "secret"})
MOVED: Final = service_environment(
    {"HF_HOME": "/Volumes/Fast/hf 100%", "MLXD_HOME": "/Volumes/Fast/mlxd"},
    path="/opt/bin:/usr/bin:/bin",
)


def rendered() -> dict[str, bytes]:
    """File name to content, as the code renders it now."""
    plists = {
        "org.mlxd.daemon.plist": daemon_agent(MAC, PYTHON, USUAL),
        "org.mlxd.bridge.plist": bridge_agent(MAC, PYTHON, HttpSettings(), USUAL),
        "moved.daemon.plist": daemon_agent(ONE_FOLDER, PYTHON, MOVED),
        "ipv6.bridge.plist": bridge_agent(
            MAC, PYTHON, HttpSettings(host="[::1]", port=8080), USUAL
        ),
    }
    units = [
        daemon_units(LINUX, Path("/home/ada/my env/bin/python"), USUAL),
        bridge_units(LINUX, PYTHON, HttpSettings(host="[::1]", port=8080), MOVED),
    ]
    files = {name: render(agent) for name, agent in plists.items()}
    for unit in units:
        files[f"{unit.name}.service"] = unit.service.encode()
        files[f"{unit.name}.socket"] = unit.socket.encode()
    return files


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for file_name, content in rendered().items():
        (GOLDEN / file_name).write_bytes(content)
    sys.exit(0)

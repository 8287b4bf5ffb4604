"""LaunchAgents: what launchd.plist(5) allows, what macOS needs, and the very bytes."""

import plistlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.wire.paths import find_home
from daemon.wire.settings import HttpSettings
from launchd.agents import Agent, bridge_agent, daemon_agent, render, service_environment
from tests.launchd.cases import GOLDEN, MAC, MOVED, PYTHON, USUAL, rendered

# launchd.plist(5) of macOS 14, every key that it documents at each level.
DOCUMENTED = {
    "": """Label Disabled UserName GroupName inetdCompatibility LimitLoadToHosts
        LimitLoadFromHosts LimitLoadToSessionType LimitLoadToHardware LimitLoadFromHardware
        Program BundleProgram ProgramArguments EnableGlobbing EnableTransactions
        EnablePressuredExit OnDemand ServiceIPC KeepAlive RunAtLoad RootDirectory
        WorkingDirectory EnvironmentVariables Umask TimeOut ExitTimeOut ThrottleInterval
        InitGroups WatchPaths QueueDirectories StartOnMount StartInterval
        StartCalendarInterval StandardInPath StandardOutPath StandardErrorPath Debug
        WaitForDebugger SoftResourceLimits HardResourceLimits Nice ProcessType
        AbandonProcessGroup LowPriorityIO LowPriorityBackgroundIO MaterializeDatalessFiles
        LaunchOnlyOnce MachServices Sockets LaunchEvents SessionCreate LegacyTimers
        AssociatedBundleIdentifiers""",
    "KeepAlive": "SuccessfulExit NetworkState PathState OtherJobEnabled Crashed",
    "SoftResourceLimits": """Core CPU Data FileSize MemoryLock NumberOfFiles
        NumberOfProcesses ResidentSetSize Stack""",
    "Sockets.*": """SockType SockPassive SockNodeName SockServiceName SockFamily SockProtocol
        SockPathName SecureSocketWithKey SockPathOwner SockPathGroup SockPathMode Bonjour
        MulticastGroup""",
}

PLISTS = sorted(name for name in rendered() if name.endswith(".plist"))


@pytest.mark.parametrize("name", sorted(rendered()))
def test_rendered_files_are_the_golden_ones(name: str) -> None:
    assert rendered()[name] == (GOLDEN / name).read_bytes()


def test_no_golden_file_is_left_over() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(rendered())


@pytest.mark.parametrize("name", PLISTS)
def test_every_key_is_one_that_launchd_documents(name: str) -> None:
    found: dict[str, Any] = plistlib.loads((GOLDEN / name).read_bytes())
    assert found.keys() <= set(DOCUMENTED[""].split())
    for key in ("KeepAlive", "SoftResourceLimits"):
        assert found[key].keys() <= set(DOCUMENTED[key].split())
    for sock in found["Sockets"].values():
        assert sock.keys() <= set(DOCUMENTED["Sockets.*"].split())


@pytest.mark.parametrize("name", PLISTS)
def test_what_was_written_reads_back_as_the_same_agent(name: str) -> None:
    content = (GOLDEN / name).read_bytes()
    assert render(msgspec.convert(plistlib.loads(content), Agent)) == content


@pytest.mark.parametrize(
    "place", [(), ("KeepAlive",), ("EnvironmentVariables",), ("Sockets",), ("Sockets", "control")]
)
def test_a_misspelt_key_is_refused(place: tuple[str, ...]) -> None:
    table = plistlib.loads((GOLDEN / "org.mlxd.daemon.plist").read_bytes())
    inner = table
    for key in place:
        inner = inner[key]
    inner["RunAtLaod"] = True
    with pytest.raises(msgspec.ValidationError, match="RunAtLaod"):
        msgspec.convert(table, Agent)


@pytest.mark.parametrize("name", PLISTS)
def test_what_macos_needs(name: str) -> None:
    found: dict[str, Any] = plistlib.loads((GOLDEN / name).read_bytes())
    assert found["ProcessType"] == "Interactive"
    assert found["KeepAlive"] == {"SuccessfulExit": False, "Crashed": True}
    assert found["RunAtLoad"] is True
    assert found["ExitTimeOut"] == 60
    assert found["ThrottleInterval"] == 10
    assert found["Umask"] == 63
    assert found["SoftResourceLimits"] == {"NumberOfFiles": 4096}
    assert found["EnvironmentVariables"].keys() <= {"PATH", "HF_HOME", "MLXD_HOME"}, "no keys"
    for path in (found["ProgramArguments"][0], found["StandardErrorPath"]):
        assert path.startswith("/")


def test_the_daemon_leaves_its_workers_and_keeps_its_socket_private() -> None:
    found = plistlib.loads(render(daemon_agent(MAC, PYTHON, USUAL)))
    assert found["Label"] == "org.mlxd.daemon"
    assert found["AbandonProcessGroup"] is True
    assert found["Sockets"] == {
        "control": {
            "SockPathName": "/Users/ada/Library/Application Support/mlxd/run/mlxd.sock",
            "SockPathMode": 384,
        }
    }
    assert found["EnvironmentVariables"] == {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}


def test_the_bridge_listens_on_this_machine_alone() -> None:
    found = plistlib.loads(render(bridge_agent(MAC, PYTHON, HttpSettings(), USUAL)))
    assert found["Label"] == "org.mlxd.bridge"
    assert found["Sockets"] == {
        "http": {
            "SockNodeName": "127.0.0.1",
            "SockServiceName": "11411",
            "SockFamily": "IPv4",
        }
    }


def test_a_name_may_have_addresses_of_both_families() -> None:
    agent = bridge_agent(MAC, PYTHON, HttpSettings(host="localhost"), USUAL)
    found = plistlib.loads(render(agent))
    assert found["Sockets"]["http"] == {
        "SockNodeName": "localhost",
        "SockServiceName": "11411",
    }


def test_only_the_variables_that_were_given_are_written() -> None:
    found = plistlib.loads(render(daemon_agent(MAC, PYTHON, MOVED)))
    assert found["EnvironmentVariables"] == {
        "PATH": "/opt/bin:/usr/bin:/bin",
        "HF_HOME": "/Volumes/Fast/hf 100%",
        "MLXD_HOME": "/Volumes/Fast/mlxd",
    }


@pytest.mark.parametrize(
    ("environ", "path", "named"),
    [
        ({"HF_HOME": "~/hf"}, "/bin", "HF_HOME"),
        ({"MLXD_HOME": "mlxd"}, "/bin", "MLXD_HOME"),
        ({"XDG_STATE_HOME": "state"}, "/bin", "XDG_STATE_HOME"),
        ({}, "/bin:bin", "PATH"),
        ({}, "", "PATH"),
    ],
)
def test_nothing_is_expanded_in_a_plist(environ: dict[str, str], path: str, named: str) -> None:
    with pytest.raises(MlxdError) as refused:
        service_environment(environ, path)
    assert refused.value.code is Code.INVALID_REQUEST
    assert refused.value.fault.field == named


def test_the_interpreter_must_be_absolute() -> None:
    with pytest.raises(MlxdError, match="absolute"):
        daemon_agent(MAC, Path("python3"), USUAL)


def test_a_service_needs_a_port_that_clients_can_know() -> None:
    with pytest.raises(MlxdError) as refused:
        bridge_agent(MAC, PYTHON, HttpSettings(port=0), USUAL)
    assert refused.value.fault.field == "http.port"


def test_a_home_too_deep_for_a_socket_is_refused_before_anything_is_written() -> None:
    deep = find_home({"HOME": "/Users/ada", "MLXD_HOME": "/" + "x" * 100}, "darwin")
    with pytest.raises(MlxdError, match="103"):
        daemon_agent(deep, PYTHON, USUAL)

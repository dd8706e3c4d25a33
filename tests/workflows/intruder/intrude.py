"""Tries each attack on the targets of the first argument. Prints which ones succeed, as JSON by name."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

targets = json.loads(sys.argv[1])


def read_another_job():
    return Path(targets["other_job"], "work", "result.txt").read_text()


def change_another_job():
    return Path(targets["other_job"], "work", "result.txt").write_text("changed")


def replace_its_own_work():
    own = Path.cwd().parent
    os.rename(own / "work", own / "elsewhere")
    os.rename(own / "elsewhere", own / "work")
    return True


def write_its_own_manifest():
    return (Path.cwd().parent / "outputs.json").write_text("{}")


def add_a_token():
    with open(targets["tokens"], "a") as tokens:
        return tokens.write(" ")


def read_the_tokens():
    return Path(targets["tokens"]).read_text()


def change_data():
    with open(targets["data"], "a") as data:
        return data.write(" ")


def read_variables_of_the_service():
    return "HOME_OF_SECRETS" in Path(f"/proc/{targets['service_pid']}/environ").read_text()


def signal_the_service():
    os.kill(targets["service_pid"], signal.SIGCONT)
    return True


def connect_to_a_socket_of_the_service():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(targets["socket"])
    return True


def connect_to_an_abstract_socket():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + targets["abstract_socket"])
    return True


def connect_to_a_port_of_the_service():
    return connect("127.0.0.1")


def connect_to_an_address_of_the_machine():
    return connect(targets["address"])


def ask_the_metadata_service():
    return connect("169.254.169.254")


def reach_the_world():
    return connect(targets["world"])


def change_its_environment():
    return os.access(os.path.dirname(json.__file__), os.W_OK) or os.access(sys.prefix, os.W_OK)


def link_a_file_of_the_system():
    os.link(targets["data"], "stolen")
    return True


def open_the_log_of_the_worker():
    """Through a descriptor that a process of the job may have inherited."""
    inherited = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        for number in "0", "1", "2":
            try:
                inherited.append(os.readlink(f"/proc/{process}/fd/{number}"))
            except OSError:
                pass
    return targets["worker_log"] in inherited


def mount_control_groups():
    """Their files belong to users, not to namespaces: whoever owns one can end what is in it."""
    os.mkdir("groups")
    alone = ["unshare", "--user", "--map-root-user", "--cgroup", "--mount"]
    return not subprocess.call([*alone, "mount", "-t", "cgroup2", "none", "groups"], stderr=subprocess.DEVNULL)


def take_memory():
    return bytearray(2 << 30)


def make_a_huge_file():
    Path("huge").touch()
    os.truncate("huge", 512 << 30)
    return True


def start_many_processes():
    started = []
    try:
        while len(started) < 400:
            started.append(subprocess.Popen(["sleep", "60"]))
    finally:
        for process in started:
            process.kill()
    return True


def connect(address):
    socket.create_connection((address, targets["port"]), timeout=5).close()
    return True


def attempt(attack):
    try:
        return bool(attack())
    except (OSError, ValueError, MemoryError):
        return False


ATTACKS = [each for name, each in sorted(globals().items()) if callable(each) and "_" in name]
print(json.dumps({attack.__name__: attempt(attack) for attack in ATTACKS}))

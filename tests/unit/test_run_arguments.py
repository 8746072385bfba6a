"""The line that a card prints and the arguments that the engine gets mean the same, field by field."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from pipeline.chip import Run
from pipeline.run_arguments import command_line, engine_arguments

PLAIN: dict[str, Any] = {
    "init": True,
    "detach": True,
    "network_mode": "host",
    "privileged": False,
    "environment": {},
    "volumes": [],
    "devices": [],
    "security_opt": [],
    "ulimits": [],
}

# A field, what it adds to the line, and what it changes for the engine.
FIELDS: list[tuple[Run, list[str], dict[str, Any]]] = [
    (Run(), [], {}),
    (Run(network="none"), ["--network", "none"], {"network_mode": "none"}),
    (Run(ipc="host"), ["--ipc", "host"], {"ipc_mode": "host"}),
    (Run(uts="host"), ["--uts", "host"], {"uts_mode": "host"}),
    (Run(pid="host"), ["--pid", "host"], {"pid_mode": "host"}),
    (Run(runtime="iluvatar"), ["--runtime", "iluvatar"], {"runtime": "iluvatar"}),
    (Run(user="root"), ["--user", "root"], {"user": "root"}),
    (
        Run(tmpfs=["/tmp:exec", "/a"]),
        ["--tmpfs", "/tmp:exec", "--tmpfs", "/a"],
        {"tmpfs": {"/tmp": "exec", "/a": ""}},
    ),
    (Run(group_add=["video"]), ["--group-add", "video"], {"group_add": ["video"]}),
    (
        Run(cap_add=["SYS_PTRACE", "SYS_ADMIN"]),
        ["--cap-add", "SYS_PTRACE", "--cap-add", "SYS_ADMIN"],
        {"cap_add": ["SYS_PTRACE", "SYS_ADMIN"]},
    ),
    (Run(shm_size="32g"), ["--shm-size", "32g"], {"shm_size": "32g"}),
    (
        Run(gpus="all"),
        ["--gpus", "all"],
        {"device_requests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]},
    ),
    (
        Run(gpus="2"),
        ["--gpus", "2"],
        {"device_requests": [{"Driver": "", "Count": 2, "Capabilities": [["gpu"]]}]},
    ),
    (Run(privileged=True), ["--privileged"], {"privileged": True}),
    (
        Run(devices=["/dev/davinci0", "/dev/a:/dev/b:r"]),
        ["--device", "/dev/davinci0", "--device", "/dev/a:/dev/b:r"],
        {"devices": ["/dev/davinci0:/dev/davinci0:rwm", "/dev/a:/dev/b:r"]},
    ),
    (
        Run(volumes=["/usr/local/dcmi:/usr/local/dcmi:ro"]),
        ["--volume", "/usr/local/dcmi:/usr/local/dcmi:ro"],
        {"volumes": ["/usr/local/dcmi:/usr/local/dcmi:ro"]},
    ),
    (
        Run(ulimits={"stack": 67108864, "memlock": -1}),
        ["--ulimit", "memlock=-1", "--ulimit", "stack=67108864"],
        {
            "ulimits": [
                {"Name": "memlock", "Soft": -1, "Hard": -1},
                {"Name": "stack", "Soft": 67108864, "Hard": 67108864},
            ]
        },
    ),
    (
        Run(security_opt=["seccomp=unconfined", "label=disable"]),
        ["--security-opt", "seccomp=unconfined", "--security-opt", "label=disable"],
        {"security_opt": ["seccomp=unconfined", "label=disable"]},
    ),
    (
        Run(environment={"B": "two words; $HOME", "A": "1"}),
        ["--env", "A=1", "--env", "B=two words; $HOME"],
        {"environment": {"A": "1", "B": "two words; $HOME"}},
    ),
]


def words(run: Run, **volumes: str) -> list[str]:
    """The line as a shell splits it; a folded line is one line to the shell."""
    line = command_line(
        run, image="image@sha256:ab", name="served", command=["sleep", "infinity"], volumes=volumes
    )
    return shlex.split(line.replace("\\\n", " "))


@pytest.mark.parametrize(("run", "on_the_line", "for_the_engine"), FIELDS)
def test_a_field_means_the_same_on_the_line_and_for_the_engine(
    run: Run, on_the_line: list[str], for_the_engine: dict[str, Any]
) -> None:
    network = [] if "--network" in on_the_line else ["--network", "host"]
    flags = ["--init", "--detach", "--name", "served", *network, *on_the_line]
    assert words(run) == ["docker", "run", *flags, "image@sha256:ab", "sleep", "infinity"]
    assert engine_arguments(run, volumes={}) == PLAIN | for_the_engine


def test_no_field_of_run_is_left_out_here() -> None:
    shown = {name for run, _, _ in FIELDS for name in run.model_fields_set}
    assert shown == set(Run.model_fields)


def test_all_fields_at_once_keep_their_meaning() -> None:
    run = Run(**{name: getattr(r, name) for r, _, _ in FIELDS for name in r.model_fields_set})
    arguments = engine_arguments(run, volumes={"/models": "/share:ro"})
    assert arguments["volumes"] == ["/usr/local/dcmi:/usr/local/dcmi:ro", "/models:/share:ro"]
    line = words(run, **{"/models": "/share:ro"})
    assert line.count("--volume") == len(arguments["volumes"])
    assert line.count("--ulimit") == len(arguments["ulimits"])
    assert line.count("--device") == len(arguments["devices"])
    assert line[-3:] == ["image@sha256:ab", "sleep", "infinity"]


def test_the_line_of_a_card_has_one_argument_a_line() -> None:
    run = Run(ipc="host", shm_size="32g", gpus="all")
    line = command_line(
        run,
        image="harbor.test/a@sha256:ab",
        name="step3",
        command=["bash", "-c", "sleep 1"],
        volumes={"/share": "/share"},
    )
    assert line == (
        "docker run \\\n"
        "  --init \\\n"
        "  --detach \\\n"
        "  --name step3 \\\n"
        "  --network host \\\n"
        "  --ipc host \\\n"
        "  --shm-size 32g \\\n"
        "  --gpus all \\\n"
        "  --volume /share:/share \\\n"
        "  harbor.test/a@sha256:ab bash -c 'sleep 1'"
    )


def test_words_of_the_matrix_cannot_break_the_line() -> None:
    run = Run(volumes=["/a folder:/b"], devices=["/dev/x y"], security_opt=["a b"])
    line = words(run, **{"/my models": "/share"})
    assert [word for word in line if " " in word] == [
        "/dev/x y",
        "a b",
        "/a folder:/b",
        "/my models:/share",
    ]

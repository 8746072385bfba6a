"""Programs that we start: what they print, how they fail, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import CommandError, WorldError
from pipeline.world.command import Completed, hide_secrets, run

ROOT = Path(__file__).parents[2]


def failure(
    arguments: list[str], *, log: Path | None = None, timeout_s: float = 60
) -> CommandError:
    with pytest.raises(CommandError) as caught:
        run(arguments, doing="counting sheep", hint="count again", log=log, timeout_s=timeout_s)
    return caught.value


def without_seconds(message: str) -> str:
    head, _, seconds = message.rpartition(" after ")
    assert seconds.endswith(" s")
    assert float(seconds.removesuffix(" s")) < 10
    return head


def is_gone(pid: int) -> bool:
    """No such process, or one that only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_gone(pid)


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 5
    while not (path.exists() and path.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.read_text().strip()


def test_output_and_errors_come_back_in_their_order(tmp_path: Path) -> None:
    seen: list[str] = []
    log = tmp_path / "logs/command.log"
    done = run(
        ["sh", "-c", "echo one; echo two >&2; echo three"],
        doing="counting",
        hint="",
        log=log,
        on_line=seen.append,
    )
    assert done == Completed(output="one\ntwo\nthree\n", seconds=done.seconds)
    assert seen == ["one", "two", "three"]
    assert log.read_text() == "one\ntwo\nthree\n"


def test_a_log_is_added_to(tmp_path: Path) -> None:
    for word in ("one", "two"):
        run(["echo", word], doing="counting", hint="", log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_words_reach_the_program_as_they_are() -> None:
    words = ["a b", "$HOME", ";", "'"]
    assert run(["printf", "%s\n", *words], doing="", hint="").output.splitlines() == words


def test_the_environment_is_added_to_ours() -> None:
    done = run(["sh", "-c", "echo $SHEEP $PATH"], doing="", hint="", environment={"SHEEP": "7"})
    assert done.output == f"7 {os.environ['PATH']}\n"


def test_a_program_reads_nothing_from_our_terminal() -> None:
    assert run(["cat"], doing="", hint="").output == ""


def test_bytes_that_are_no_text_do_not_end_the_reading() -> None:
    assert run(["printf", r"a\377b\n"], doing="", hint="").output == "a\N{REPLACEMENT CHARACTER}b\n"


def test_a_failure_tells_command_exit_code_seconds_log_and_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "sheep.log"
    script = "for n in $(seq 30); do echo sheep $n; done; exit 7"
    error = failure(["sh", "-c", script], log=log)
    assert (error.exit_code, without_seconds(error.message)) == (
        4,
        "a command ended with exit code 7",
    )
    last = "\n".join(f"sheep {n}" for n in range(11, 31))
    assert str(error) == (
        f"counting sheep: {error.message}\n$ sh -c '{script}'\nlog: {log}\n{last}\nhint: count again"
    )


def test_secrets_are_hidden_in_the_command_and_in_the_output() -> None:
    error = failure(["sh", "-c", "echo $0; exit 1", "https://me:hunter2@registry.test token=abc"])
    assert error.details == (
        "$ sh -c 'echo $0; exit 1' 'https://me:***@registry.test token=***\n"
        "https://me:***@registry.test token=***"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--password hunter2 --user me", "--password *** --user me"),
        ("API_KEY=abc HF_TOKEN=def", "API_KEY=*** HF_TOKEN=***"),
        ("Secret: abc", "Secret: ***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ('{"password": "hunter2"}', '{"password": ***'),
        ("https://token0of0mine@index.test/simple", "https://***@index.test/simple"),
        ("https://me:p%40ss@index.test/simple", "https://me:***@index.test/simple"),
        ("https://index.test/simple/a@1.0", "https://index.test/simple/a@1.0"),
        ("ssh://me@node.test:22/path", "ssh://me@node.test:22/path"),
        ("ssh://node.test:22/path", "ssh://node.test:22/path"),
        ("12 tokens/s", "12 tokens/s"),
    ],
)
def test_words_after_the_name_of_a_secret_are_hidden(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


def test_a_missing_program_is_told_with_what_was_being_done() -> None:
    with pytest.raises(WorldError) as caught:
        run(["no-such-program", "-v"], doing="counting sheep", hint="apt-get install sheep")
    assert type(caught.value) is WorldError
    assert str(caught.value) == (
        "counting sheep: no-such-program is not installed\nhint: apt-get install sheep"
    )


def test_a_program_that_says_nothing_is_ended_at_its_time_limit() -> None:
    started = time.monotonic()
    error = failure(["sleep", "60"], timeout_s=0.1)
    assert time.monotonic() - started < 5
    assert str(error) == (
        "counting sheep: a command was ended at its limit of 0.1 s\n$ sleep 60\nhint: count again"
    )


def test_a_program_that_never_stops_talking_is_ended_at_its_time_limit() -> None:
    error = failure(["sh", "-c", "while :; do echo baa; done"], timeout_s=0.2)
    assert error.message == "a command was ended at its limit of 0.2 s"
    assert error.details.splitlines()[1:] == ["baa"] * 20


def test_the_children_of_a_program_end_with_it_at_its_time_limit(tmp_path: Path) -> None:
    """A shell's background child ignores the interrupt that ends the shell."""
    pid = tmp_path / "pid"
    failure(["sh", "-c", f"sleep 60 & echo $! > {pid}; wait"], timeout_s=0.3)
    assert wait_until_gone(int(wait_for(pid)))


def test_an_interrupt_ends_the_program_and_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def interrupt() -> None:
        wait_for(pid)
        time.sleep(0.05)  # the pid may be there before `run` has begun to listen
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    # A shell that starts its jobs in the background has them ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", f"sleep 60 & echo $! > {pid}; wait"], doing="sleeping", hint="")
    signal.signal(signal.SIGINT, before)
    assert wait_until_gone(int(wait_for(pid)))


def test_a_listener_that_fails_ends_the_program() -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    script = "echo $$; exec sleep 60"
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- its text is the pid below
        run(["sh", "-c", script], doing="sleeping", hint="", on_line=refuse)
    assert wait_until_gone(int(str(caught.value)))


def test_a_program_ends_with_a_pipeline_that_was_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"""
from pipeline.world.command import run
run(["sh", "-c", "echo $$ > {pid}; exec sleep 60"], doing="sleeping", hint="")
"""
    pipeline = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    started = int(wait_for(pid))
    pipeline.kill()
    pipeline.wait()
    assert wait_until_gone(started)


def test_a_short_text_is_given_without_being_an_argument() -> None:
    script = "import sys; print(sys.stdin.read(), len(sys.argv))"
    done = run([sys.executable, "-c", script], doing="reading", hint="", given="secret word")
    assert done.output == "secret word 1\n"


def test_a_program_that_does_not_read_what_it_is_given_just_ends() -> None:
    assert run(["true"], doing="ignoring", hint="", given="x" * 10).output == ""

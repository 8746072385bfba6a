"""An SSH server on a loopback port: a real one (asyncssh), whose users' commands really run. A program of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

CONFIG = """\
IdentityFile {folder}/id
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
"""


@contextmanager
def ssh_server(folder: Path, home: Path) -> Iterator[tuple[int, Path]]:
    """Its port, and a client's configuration that has its key and one that it takes. `home` is where users land."""
    words = [sys.executable, "-m", "tests.ssh_server", str(folder), str(home)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            (folder / "config").write_text(CONFIG.format(folder=folder))
            yield port, folder / "config"
        finally:
            server.terminate()


async def serve(folder: Path, home: Path) -> None:
    host, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    user.write_private_key(str(folder / "id"))
    (folder / "id").chmod(0o600)
    user.write_public_key(str(folder / "id.pub"))

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        ran = await asyncio.create_subprocess_exec(
            *("bash", "-c", process.command or "exit 2"),
            cwd=home,
            env={
                **os.environ,
                "HOME": str(home),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await process.redirect(ran.stdin, ran.stdout, ran.stderr)
        process.exit(await ran.wait())

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host],
        authorized_client_keys=str(folder / "id.pub"),
        process_factory=run,
        encoding=None,
    )
    key = host.export_public_key().decode()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.get_port()} {key}")
    sys.stdout.write(f"{server.get_port()}\n")
    sys.stdout.flush()
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))

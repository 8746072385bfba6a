"""Runs inside FlagScale's environment: experiment files through its own code, as `flagscale serve` does it.

python flagscale_lines.py FOLDER FILE…    prints {file: command line of vLLM} as JSON on the last line
"""

import json
import logging
import os
import sys
from pathlib import Path

from flagscale import serve
from flagscale.runner.runner_serve import SSHServeRunner
from flagscale.serve.run_inference_engine import main as start_engine
from hydra import compose, initialize_config_dir


def line(file: Path, folder: Path) -> list[str]:
    """The words with which FlagScale starts `vllm` for one experiment file."""
    called = Path(os.environ["CALLED"])
    called.unlink(missing_ok=True)
    with initialize_config_dir(config_dir=str(file.parent), version_base=None):
        config = compose(config_name=file.stem, overrides=[f"experiment.exp_dir={folder}"])
    runner = SSHServeRunner(config)
    sys.argv = [runner.user_script, *runner.user_args, f"--log-dir={config.logging.log_dir}"]
    for key in list(serve.task_config):
        del serve.task_config[key]
    serve.load_args.__wrapped__()  # itself it reads one file a process
    start_engine()
    return called.read_text().split("\0")[1:-1]


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    folder, *files = map(Path, sys.argv[1:])
    found = {str(file): line(file, folder / str(n)) for n, file in enumerate(files)}
    print(json.dumps(found))

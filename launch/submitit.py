"""Submission through submitit: one Slurm task per machine, a torchrun agent in it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from ddptrain.config.slurm import minutes
from ddptrain.errors import UserError
from ddptrain.system.status import read_status
from launch import batch, cluster, job, sbatch
from launch.job import Job


class Task:
    """What submitit runs on each machine: the agent, as a process of its own.

    On USR2 (the time limit is near) submitit calls `checkpoint` on the first machine. Pre-emption and scancel arrive as TERM,
    `ddptrain requeue` and `cancel` as USR1: the task forwards these to its agent, and the batch script decides what comes
    next, as it does without submitit.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._ended: list[int] = []  # the agent's exit status, once it has one; a list, since threads and handlers share it

    def __call__(self) -> str:
        """Run the agent to its end.

        Returns:
            "finished".

        Raises:
            SystemExit: the run did not finish: the agent failed (with its status), or was stopped and has saved (with 0).
        """
        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns of every signal; agent and batch script report enough
        # a signal must not end the agent before it has its handlers
        stops = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, stops)
        self._agent = subprocess.Popen([sys.executable, "-m", "launch.agent", self.folder])
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._pass_on)
        threading.Thread(target=self._wait, daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
        while not self._ended:  # no lock is held here: checkpoint runs inside a signal handler of this thread
            time.sleep(0.2)
        for number in stops:  # a stop can no longer change anything; submitit would answer it with a traceback
            signal.signal(number, signal.SIG_IGN)
        if self._ended[0]:
            sys.exit(self._ended[0])
        status = read_status(Path(job.read(Path(self.folder)).run))
        if status and status.state == "stopped":
            sys.exit(0)  # the batch script requeues the job
        return "finished"

    def _wait(self) -> None:
        self._ended.append(self._agent.wait())

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if not self._ended:
            self._agent.send_signal(number)

    def checkpoint(self) -> Any:
        """Ask the ranks to save, wait until they have, and let submitit requeue the job.

        Returns:
            The delayed submission of a new task; None where nothing was saved, where someone else decided about the job
            (scancel, scontrol requeue), or where the budget of stops is spent.
        """
        from submitit.helpers import DelayedSubmission

        began = time.monotonic()
        self._pass_on(signal.SIGUSR2, None)
        mine, restart = job.read(Path(self.folder)), batch.restart_count()
        while not self._ended and time.monotonic() - began < mine.options.grace_s + 5:
            time.sleep(0.1)
        kind, _, _ = batch.judge(mine, restart, 0)
        if self._ended != [0] or kind != "stopped":
            batch.say(f"no checkpoint was saved within {time.monotonic() - began:.1f} s ({kind})")
            return None
        batch.say(f"saved {time.monotonic() - began:.1f} s after the signal")
        batch.note_end(mine.path, restart, kind, batch.step_of(mine))
        state = cluster.job_state(os.environ["SLURM_JOB_ID"])
        if state is None or state.state != "RUNNING" or batch.over_budget(mine) or (mine.path / batch.CANCEL).exists():
            return None
        return DelayedSubmission(Task(self.folder))


def executor(mine: Job, folder: Path) -> Any:
    """A submitit executor with the parameters and the script lines of a job.

    Args:
        folder: where submitit keeps its pickles.
    """
    from submitit.slurm.slurm import SlurmExecutor

    class Executor(SlurmExecutor):
        """Submits in an environment without the variables of a surrounding job."""

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            return cluster.clean(super()._make_submission_command(submission_file_path))

    slurm = mine.options
    # submitit's own spelling of the keys, so that none is listed twice
    given = {k if k == "open-mode" else k.replace("-", "_"): v for k, v in sbatch.options(mine, signal="USR2").items()}
    made = Executor(folder, max_num_timeout=slurm.max_stops, python=sbatch.python_command(mine))
    made.update_parameters(
        job_name=sbatch.name_of(mine),
        time=max(1, int(minutes(slurm.time))),
        wckey=None,
        nodes=slurm.nodes,
        ntasks_per_node=1,
        signal_delay_s=slurm.signal_s,
        setup=sbatch.head(mine),
        teardown=sbatch.tail(mine),
        # "all": the tasks' output goes to the batch script's, which knows where to; the pattern that submitit
        # would give is not safe for every path
        srun_args=["--output=all", "--error=all", *sbatch.srun(mine)],
        stderr_to_stdout=True,
        additional_parameters=given,
    )
    return made


def submit(mine: Job) -> str:
    """Queue a job; returns its number.

    Raises:
        UserError: Slurm refused it; with Slurm's own message.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            queued = executor(mine, mine.path / "submitit").submit(Task(mine.folder))
    except (FailedJobError, FailedSubmissionError) as e:
        raise UserError(f"sbatch: {cluster.plain(str(e))}") from None
    (mine.path / "script.sh").write_text(Path(queued.paths.submission_file).read_text())
    return str(queued.job_id)


def render(mine: Job) -> str:
    """The batch script that submitit would queue."""
    made = executor(mine, mine.path / "submitit")
    return str(made._make_submission_file_text(made._submitit_command_str, "dry-run"))

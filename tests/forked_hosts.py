"""Run `samgan` on several hosts of a network, forked from one process that has imported everything.

Imports take most of the time of a short training. The words of the command line name a JSON file with the rounds: what
runs at once. Each job of a round is a dictionary:

* space: the network namespace, or null for this one
* name: the host's name
* environment, words: of the command
* errors: where its standard error goes
* at, do: a shell command to run before this step
* double: compute in double precision, in which rounding stays small over many steps; nothing is scored then
* constants: of samgan.hosts, to wait less

It prints the exit status of each job of each round, and how long it ran from its event, or from its start.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

import samgan.hosts
import samgan.launch
import samgan.training.batches
import samgan.training.loop
import samgan.training.run
import samgan.training.state
from samgan.commands.main import main

CLONE_NEWNET, CLONE_NEWUTS = 0x40000000, 0x04000000


def be(job):
    """Become the process of a job; returns the exit status."""
    libc = ctypes.CDLL(None, use_errno=True)
    if job["space"]:
        with open(f"/run/netns/{job['space']}") as space:
            if libc.setns(space.fileno(), CLONE_NEWNET) or libc.unshare(CLONE_NEWUTS):
                raise OSError(ctypes.get_errno(), "cannot enter the namespace")
        name = job["name"].encode()
        libc.sethostname(name, len(name))
    os.environ.update(job["environment"])
    errors = os.open(job["errors"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(errors, 2)
    os.dup2(errors, 1)
    for name, value in job.get("constants", {}).items():
        setattr(samgan.hosts, name, value)
    if job.get("double"):
        torch.set_default_dtype(torch.float64)
        samgan.training.batches.from_uint8 = lambda images: images.double() / 127.5 - 1
        samgan.training.run._scorer = lambda *_: None
        samgan.training.state._check_moments = lambda *_: None
    if "at" in job:
        watch_for(job)
    return main(job["words"])


def watch_for(job):
    """Let the event of a job happen before its step."""
    original = samgan.training.loop.train_step

    def step(state, *arguments, **options):
        if state.step == job["at"]:
            with open(f"{job['errors']}.event", "w") as file:
                file.write(str(time.time()))
            subprocess.run(["sh", "-c", job["do"].replace("PID", str(os.getpid()))], check=True)
        return original(state, *arguments, **options)

    samgan.training.loop.train_step = step


def run(jobs):
    """Run the jobs of a round at once; returns status and seconds of each."""
    begun, running, results = time.time(), {}, {}
    for number, job in enumerate(jobs):
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                status = be(job)
            except SystemExit as end:
                status = end.code or 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        running[pid] = number
    while running:
        pid, status = os.wait()
        results[running.pop(pid)] = (os.waitstatus_to_exitcode(status), time.time())
    files = [Path(f"{job['errors']}.event") for job in jobs]
    events = [float(file.read_text()) for file in files if file.exists()]
    since = events[0] if events else begun
    return [{"status": results[n][0], "seconds": results[n][1] - since} for n in range(len(jobs))]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with open(sys.argv[1]) as file:
        rounds = json.load(file)
    print(json.dumps([run(jobs) for jobs in rounds]))

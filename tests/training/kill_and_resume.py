"""Kill runs at random moments, start them again until they end, and compare their files with those of unbroken runs.

A cycle is one job (an extraction or a training, as its script does it) in one or two processes. It is killed one to
three times: at a moment that is drawn, or from inside, before some file operation or in the middle of a file, most
often while a checkpoint is written. In the end every file must be that of the unbroken run, byte by byte.

Cycles that are done are kept in the folder, with the unbroken runs: give the same folder to go on.

Usage:
    python tests/training/kill_and_resume.py --cycles 200 --output-dir kill-and-resume
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: a parent that has no threads can be forked
os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import ctypes
import gc
import hashlib
import importlib.util
import json
import mmap
import resource
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from tqdm.std import tqdm

from fedd_hf.data.painted import paint_dataset
from fedd_hf.data.schema import FEATURES
from fedd_hf.features import FeatureStore
from fedd_hf.training.run import RunState

ROOT = Path(__file__).resolve().parents[2]
PHOTOS_PER_TONE = {"train": 4, "validation": 2}
UNET = {
    "sample_size": 16,
    "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "attn_norm_num_groups": 4,
    "resnet_time_scale_shift": "scale_shift",
}

READING = "--dataset rows --root inputs/rows --backbone inputs/backbone --timesteps 50 --image-size 32 --batch-size 2"
PIXELS = "--blocks 1 2 --images-per-step 4 --pixels-per-image 64"
JOBS = {  # name: (script, its options)
    "extraction": ("extract_features", "--blocks 1 2"),
    "segmentation": ("train_segmentation", f"{PIXELS} --num-steps 30 --checkpoint-every 3"),
    "segmentation-streamed": (
        "train_segmentation",
        f"{PIXELS} --num-steps 10 --checkpoint-every 2 --no-store --augment --gradient-accumulation-steps 2",
    ),
    "classification": ("train_classification", "--blocks 1 --max-epochs 60 --checkpoint-every 5"),
    "classification-no-store": (
        "train_classification",
        "--blocks 1 --max-epochs 40 --checkpoint-every 4 --no-store",
    ),
}
KINDS = [(job, processes) for processes in (1, 2) for job in JOBS]

PHASES = ("elsewhere", "resume", "feature file", "checkpoint write", "final save", "clean-up")
WEIGHTS = {"resume": 1, "feature file": 2, "checkpoint write": 10, "final save": 3, "clean-up": 1}
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}  # audit events, besides `open` to write
SECONDS_AT_MOST = 180.0  # of one start


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One way to die: `rank` first, at a moment or in a phase of its own work, the others `gap` seconds later."""

    rank: int
    gap: float
    moment: float | None = None  # seconds from the start; None: from inside
    phase: str = PHASES[0]
    occurrence: int = 0  # how many times the phase has been passed before
    change: int | None = None  # how many file operations of the phase have been done before
    size: int | None = None  # or: bytes at which a file is cut


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What is known of an unbroken run: per process and phase, how often it came and its most file operations."""

    seconds: float
    occurrences: list[list[int]]
    changes: list[list[int]]


class Watch:
    """The phase of each process, in memory that outlives it."""

    def __init__(self, num_processes: int) -> None:
        self.num_cells = 1 + 2 * len(PHASES)
        self.cells = memoryview(mmap.mmap(-1, 8 * num_processes * self.num_cells)).cast("q")

    def of(self, rank: int) -> memoryview:
        """Return the cells of a process: its phase, how often it was in each, most file operations of each."""
        return self.cells[rank * self.num_cells :][: self.num_cells]

    def phase_of(self, rank: int) -> str:
        phase = self.of(rank)[0]
        return PHASES[phase] if phase >= 0 else f"right after {PHASES[-phase]}"


class Worker:
    """What happens in a forked process: the job, watched, and its death from inside if that is planned."""

    def __init__(self, cells: memoryview, kill: Kill | None) -> None:
        self.cells, self.kill = cells, kill
        self.changes, self.dies_at = 0, None

    def watch(self, script: ModuleType) -> None:
        """Note phases as they come; the process is only ever this one run."""
        phases = {"resume": "resume", "save": "checkpoint write", "finish": "clean-up"}
        for name, phase in phases.items():
            self._wrap(RunState, name, phase)
        self._wrap(FeatureStore, "_write", "feature file")
        if hasattr(script, "save_run"):
            self._wrap(script, "save_run", "final save")
        sys.addaudithook(self._on_event)

    def _wrap(self, owner: object, name: str, phase: str) -> None:
        original = getattr(owner, name)

        @wraps(original)
        def watched(*args: object, **kwargs: object) -> object:
            with self._in_phase(PHASES.index(phase)):
                return original(*args, **kwargs)

        setattr(owner, name, watched)

    @contextmanager
    def _in_phase(self, phase: int) -> Iterator[None]:
        is_trap = self._is_trap(phase)
        self.cells[0], self.changes = phase, 0
        if is_trap:
            self._arm()
        yield
        if is_trap:
            self.cells[0] = -phase
            die()
        self.cells[1 + phase] += 1
        most = 1 + len(PHASES) + phase
        self.cells[most] = max(self.cells[most], self.changes)
        self.cells[0] = 0

    def _is_trap(self, phase: int) -> bool:
        kill = self.kill
        if kill is None or kill.moment is not None or PHASES.index(kill.phase) != phase:
            return False
        return self.cells[1 + phase] == kill.occurrence

    def _arm(self) -> None:
        """Choose the file operation to die before, or let the kernel end the process in the middle of a file."""
        self.dies_at = self.kill.change
        if self.kill.size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.kill.size, resource.RLIM_INFINITY))

    def _on_event(self, event: str, args: tuple) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if self.cells[0] > 0 and (writes or event in CHANGES):
            if self.changes == self.dies_at:
                die()
            self.changes += 1


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- one start -------------------------------------------------------------------------------------------------------


class Start:
    """The processes of one start of a job, forked from this one."""

    def __init__(self, job: str, num_processes: int, folder: Path, log: str, kill: Kill | None = None) -> None:
        self.kill, self.watch, self.began = kill, Watch(num_processes), time.monotonic()
        self.exits: dict[int, int] = {}  # by rank; negative: a signal
        self.is_late = self.has_crashed = False
        port = str(free_port())
        self.pids = []
        for rank in range(num_processes):
            environment = environment_of(rank, num_processes, port)
            work = partial(run_job, job, folder, Worker(self.watch.of(rank), kill))
            self.pids.append(fork(work, folder.with_name(f"{folder.name}-{log}-{rank}.log"), environment))

    def wait(self) -> None:
        """Wait until all have ended; when the moment has come or one has died, kill the others too."""
        try:
            while len(self.exits) < len(self.pids) and self._seconds() < SECONDS_AT_MOST:
                self._reap()
                if self._is_over():
                    break
                time.sleep(0.002)
        finally:
            self._end()

    @property
    def trouble(self) -> str:
        """What no kill explains, if anything."""
        if self.is_late:
            return f"did not end in {SECONDS_AT_MOST} s"
        if self.has_crashed or (self.kill is None and not self.has_finished):
            return f"ended with {self.exits}"
        return ""

    @property
    def has_finished(self) -> bool:
        return all(code == 0 for code in self.exits.values())

    @property
    def killed(self) -> dict[str, str]:
        """Where each process was that a signal has ended."""
        middle = {-signal.SIGXFSZ: ", in the middle of a file"}
        codes = sorted(self.exits.items())
        return {str(rank): self.watch.phase_of(rank) + middle.get(code, "") for rank, code in codes if code < 0}

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _is_over(self) -> bool:
        is_moment = self.kill is not None and self.kill.moment is not None and self._seconds() > self.kill.moment
        return is_moment or any(code != 0 for code in self.exits.values())

    def _reap(self, options: int = os.WNOHANG) -> None:
        for rank, pid in enumerate(self.pids):
            if rank not in self.exits and (status := os.waitpid(pid, options))[0]:
                self.exits[rank] = os.waitstatus_to_exitcode(status[1])

    def _end(self) -> None:
        """Kill what lives, the chosen process first, and see all of them gone."""
        self._reap()
        codes = self.exits.values()
        self.has_crashed = any(code > 0 for code in codes) and not any(code < 0 for code in codes)
        self.is_late = self._seconds() >= SECONDS_AT_MOST
        ranks = [] if self.kill is None else [self.kill.rank]
        for rank in dict.fromkeys([*ranks, *range(len(self.pids))]):
            self._reap()
            if rank not in self.exits:
                self._kill(rank)
        self._reap(options=0)

    def _kill(self, rank: int) -> None:
        if self.kill is not None and self.exits:
            time.sleep(self.kill.gap)
            self._reap()
        if rank not in self.exits:
            os.kill(self.pids[rank], signal.SIGKILL)
            self.exits[rank] = os.waitstatus_to_exitcode(os.waitpid(self.pids[rank], 0)[1])


def fork(work: Callable[[], None], log: Path, environment: dict[str, str]) -> int:
    """Do some work in a process of its own and return its id."""
    assert threading.active_count() == 1, "Threads do not live on in a forked process."
    if pid := os.fork():
        return pid
    code = 1
    try:
        _settle_in(log, environment)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _settle_in(log: Path, environment: dict[str, str]) -> None:
    """Cut what a forked process shares with its parent, and die with it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.update(environment)


def environment_of(rank: int, num_processes: int, port: str) -> dict[str, str]:
    """Return what a launcher would set."""
    if num_processes == 1:
        return {"ACCELERATE_USE_CPU": "true"}
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true"}
    return names | {name: str(number) for name, number in numbers.items()}


def free_port() -> int:
    """Return a port that nobody has, below those that the kernel gives away itself."""
    for port in np.random.default_rng().permutation(range(20000, 32000)).tolist():
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("No port is free.")


def run_job(job: str, folder: Path, worker: Worker) -> None:
    name, options = JOBS[job]
    worker.watch(SCRIPTS[name])
    os.chdir(folder.parents[1])  # so that run.json has no path of this machine
    place = folder.relative_to(folder.parents[1])
    output = ["--output-dir", str(place / "run")] if hasattr(SCRIPTS[name], "save_run") else []
    SCRIPTS[name].main([*READING.split(), *options.split(), "--features", str(place / "features"), *output])


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


tqdm.set_lock(threading.RLock())  # its own is shared between processes, and stays locked when one is killed
SCRIPTS = {name: load_script(name) for name, _ in JOBS.values()}


# --- inputs, unbroken runs, cycles -----------------------------------------------------------------------------------


class Harness:
    """A folder of cycles: `inputs/`, the unbroken runs in `references/`, cycles that are done in `cycles.jsonl`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        for name in ("references", "work", "failures"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.records = self.root / "cycles.jsonl"
        datasets.config.HF_DATASETS_CACHE = self.root / "cache"
        self._make_inputs()

    def _make_inputs(self) -> None:
        """Make photos and backbone, for one version of the code."""
        version = hash_sources()
        made = self.root / "inputs" / "version.txt"
        if not made.is_file():
            partial_inputs = self.root / "inputs.partial"
            shutil.rmtree(partial_inputs, ignore_errors=True)
            run_alone(partial(make_inputs, partial_inputs, version), self.root / "inputs.log")
            partial_inputs.rename(made.parent)
        if made.read_text() != version:
            sys.exit(f"kill_and_resume: {self.root} was made by other code. Delete it, or give another --output-dir.")

    def reference(self, job: str, num_processes: int) -> tuple[Path, Reference]:
        """Return the folder of the unbroken run and what is known of it; run it if that has not been done."""
        folder = self.root / "references" / f"{job}-{num_processes}"
        facts = folder.with_suffix(".json")
        if not facts.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            temporary = facts.with_suffix(".tmp")
            temporary.write_text(json.dumps(asdict(self._run_unbroken(job, num_processes, folder))))
            temporary.replace(facts)
        return folder, Reference(**json.loads(facts.read_text()))

    def _run_unbroken(self, job: str, num_processes: int, folder: Path) -> Reference:
        start = Start(job, num_processes, folder, "whole")
        start.wait()
        seconds = time.monotonic() - start.began
        left = leftovers(folder) if start.has_finished else []
        if not start.has_finished or left:
            sys.exit(
                f"kill_and_resume: the unbroken run {folder} ended with {start.exits} and left {left}; see its logs."
            )
        cells = [start.watch.of(rank).tolist() for rank in range(num_processes)]
        numbers = {"occurrences": [row[1 : 1 + len(PHASES)] for row in cells]}
        return Reference(seconds=seconds, changes=[row[1 + len(PHASES) :] for row in cells], **numbers)

    def done(self) -> dict[int, dict]:
        """Read the cycles that are done; a last line that was cut by a kill is removed."""
        if not self.records.is_file():
            return {}
        text = self.records.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.records.write_text(whole)
        return {record["cycle"]: record for record in map(json.loads, whole.splitlines())}

    def run_cycle(self, cycle: int) -> dict:
        """Run one cycle and keep its record."""
        job, num_processes = KINDS[cycle % len(KINDS)]
        _, reference = self.reference(job, num_processes)
        rng = np.random.default_rng(cycle)
        kills = [draw_kill(rng, reference) for _ in range(rng.integers(1, 4))]
        record = {"cycle": cycle} | self.kill_and_resume(job, num_processes, kills, f"{cycle:04d}")
        with self.records.open("a") as records:
            records.write(json.dumps(record) + "\n")
        return record

    def kill_and_resume(self, job: str, num_processes: int, kills: list[Kill], name: str) -> dict:
        """Kill a job as planned, let it end, and say what is wrong with what it leaves."""
        whole, _ = self.reference(job, num_processes)
        folder = self.root / "work" / name
        shutil.rmtree(folder, ignore_errors=True)
        began, died, problems = time.monotonic(), [], []
        for number, kill in enumerate([*kills, None]):
            start = Start(job, num_processes, folder, str(number), kill)
            start.wait()
            if start.has_finished or start.trouble:
                problems += [f"start {number} {start.trouble}"] if start.trouble else []
                break
            died.append(asdict(kill) | {"killed": start.killed})
        problems += compare(whole, folder)
        self._put_away(folder, problems)
        kind = {"job": job, "processes": num_processes, "kills": died, "problems": problems}
        return kind | {"seconds": round(time.monotonic() - began, 2)}

    def _put_away(self, folder: Path, problems: list[str]) -> None:
        """Remove what a cycle left, or keep it with its logs if something is wrong."""
        for path in [folder, *folder.parent.glob(f"{folder.name}-*.log")]:
            if problems and path.exists():
                kept = self.root / "failures" / path.name
                shutil.rmtree(kept, ignore_errors=True)
                path.replace(kept)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def run_alone(work: Callable[[], None], log: Path) -> None:
    """Do some work in a process of its own, so that this one keeps free of threads."""
    _, status = os.waitpid(fork(work, log, {}), 0)
    if status:
        sys.exit(f"kill_and_resume: {log.read_text()}")


def make_inputs(folder: Path, version: str) -> None:
    """Paint photos and draw the weights of a tiny backbone."""
    for seed, (split, per_tone) in enumerate(PHOTOS_PER_TONE.items()):
        rows = paint_dataset(per_tone, seed, size=48)
        rows = rows.remove_columns("split").add_column("split", [split] * len(rows)).select_columns(list(FEATURES))
        rows.cast(FEATURES).to_parquet(folder / "rows" / f"{split}.parquet")
    torch.manual_seed(0)
    UNet2DModel(**UNET).save_pretrained(folder / "backbone" / "unet")
    DDPMScheduler(num_train_timesteps=1000).save_pretrained(folder / "backbone" / "scheduler")
    (folder / "version.txt").write_text(version)


def hash_sources() -> str:
    """Return a hash of the code that is run; a model is saved with some of it."""
    package = (ROOT / "src" / "fedd_hf").rglob("*.py")
    files = [*package, *(Path(script.__file__) for script in SCRIPTS.values()), Path(__file__)]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in sorted(files))).hexdigest()


def draw_kill(rng: np.random.Generator, reference: Reference) -> Kill:
    """Draw a way to die: two in five at any moment, the others from inside."""
    rank = int(rng.integers(len(reference.occurrences)))
    gap = float(rng.choice([0.0, rng.uniform(0, 0.3)]))
    if rng.random() < 0.4:
        return Kill(rank=rank, gap=gap, moment=float(rng.uniform(0, reference.seconds)))
    counts = dict(zip(PHASES, zip(reference.occurrences[rank], reference.changes[rank], strict=True), strict=True))
    weights = np.array([WEIGHTS.get(phase, 0) * (count > 0) for phase, (count, _) in counts.items()])
    phase = str(rng.choice(PHASES, p=weights / weights.sum()))
    count, changes = counts[phase]
    occurrence = int(count * rng.random() ** 2)  # rather early: a run that goes on has fewer left
    if rng.random() < 0.5:
        return Kill(rank=rank, gap=gap, phase=phase, occurrence=occurrence, change=int(rng.integers(changes + 1)))
    return Kill(rank=rank, gap=gap, phase=phase, occurrence=occurrence, size=int(2 ** rng.uniform(3, 18)))


def compare(whole: Path, resumed: Path) -> list[str]:
    """List the files that are not those of the unbroken run, byte by byte."""
    wanted, found = hash_files(whole), hash_files(resumed)
    differ = [f"{name} differs" for name in sorted(wanted.keys() & found.keys()) if wanted[name] != found[name]]
    missing = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    return differ + missing + [f"{name} is left over" for name in sorted(found.keys() - wanted.keys())]


def hash_files(folder: Path) -> dict[str, str]:
    """Return the hash of each file, and the folders; but for locks, which may stay."""
    paths = [path for path in folder.rglob("*") if path.name != ".lock"]
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder" for path in paths}
    return {path.relative_to(folder).as_posix(): digest for path, digest in digests.items()}


def leftovers(folder: Path) -> list[str]:
    """List what no run may leave."""
    names = [name for name in hash_files(folder) if "checkpoints" in name or "partial" in name]
    return names + [name for name in hash_files(folder) if Path(name).name.startswith(".") or name.endswith(".tmp")]


# --- command ---------------------------------------------------------------------------------------------------------


def summarise(records: Sequence[dict]) -> str:
    """Count cycles, kills by phase, and failures."""
    kills = [kill for record in records for kill in record["kills"]]
    places = Counter(place for kill in kills for place in set(kill["killed"].values()))
    at_random = sum(kill["moment"] is not None for kill in kills)
    failed = [record for record in records if record["problems"]]
    seconds = [record["seconds"] for record in records]
    lines = [
        f"{len(records)} cycles, {np.mean(seconds):.1f} s each; {len(kills)} kills, {at_random} of them at a random "
        f"moment, {len(kills) - at_random} from inside.",
        *(f"{count:5} {place}" for place, count in sorted(places.items())),
        f"{len(failed)} failures.",
    ]
    return "\n".join(lines + [json.dumps(record) for record in failed])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args(arguments)
    tqdm.monitor_interval = 0  # no thread
    gc.freeze()  # what is loaded here need not be searched in each process
    harness = Harness(options.output_dir)
    done = harness.done()
    for cycle in tqdm(range(options.cycles), unit="cycle"):
        if cycle not in done:
            done[cycle] = harness.run_cycle(cycle)
    records = [done[cycle] for cycle in range(options.cycles)]
    tqdm.write(summarise(records))
    sys.exit(any(record["problems"] for record in records))


if __name__ == "__main__":
    main()

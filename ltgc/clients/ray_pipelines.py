"""One text-to-image pipeline for each GPU of a Ray cluster: actors, which Ray restarts when they die."""

import hashlib
import importlib.metadata
import inspect
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from ltgc.clients import diffusers_pipeline
from ltgc.clients.diffusers_pipeline import Painted, Pipeline, Wanted
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import T2ISettings
from ltgc.pipeline.terminal import console

KEY = "t2i.diffusers.cluster"
# Actors that may die in drawing one batch. Machines die one at a time; a batch that ends each process drawing it
# (no main memory left, a driver's bug) would go round forever.
DEATHS = 5
REACHED_IN = 10  # seconds


class Worker:
    """What an actor is: a pipeline of its own, loaded at the first batch that it gets."""

    def __init__(self, section: T2ISettings, threads: int) -> None:
        torch.set_num_threads(threads)  # on a CPU the last bits of an image depend on it
        self._section = section
        self._pipeline: Pipeline | None = None

    def software(self) -> dict[str, str]:
        return software()

    def draw(self, items: Sequence[Wanted]) -> list[Painted]:
        if self._pipeline is None:
            self._pipeline = Pipeline(self._section, torch.device(self._section.diffusers.device))
        return self._pipeline(items)


class RayPipelines:
    """Calls from `count` threads at once are drawn on as many machines or GPUs of the cluster."""

    def __init__(self, section: T2ISettings, address: str, identity: Sequence[str | None]) -> None:
        """Connect to the cluster at `address` and start an actor on each GPU, or on the CPUs if it has no GPU.

        `identity` is the checksums or commits of pipeline and LoRA here: other weights at the same path of another
        machine are an error. Raises LTGCError where the cluster or what is asked of it is not there.
        """
        self._ray = ray_library()
        self._connected = _connect(self._ray, address)
        threads = torch.get_num_threads()
        device, self.count = _actors(self._ray.nodes(), section.diffusers.device, threads)
        actor = self._ray.remote(Worker).options(
            max_restarts=-1,
            num_gpus=1 if device == "cuda" else 0,
            num_cpus=threads if device == "cpu" else 1,
        )
        sent = _for_other_machines(section, identity, device)
        self._actors = [actor.remote(sent, threads) for _ in range(self.count)]
        self._free: SimpleQueue[Any] = SimpleQueue()  # actors, or in place of one the LTGCError that it met
        for each in self._actors:
            self._put_when_up(each)
        console.print(f"drawing on {self.count} {'GPUs' if device == 'cuda' else 'CPU actors'} of the Ray cluster")

    def __call__(self, items: Sequence[Wanted]) -> list[Painted]:
        """Raises LTGCError as Pipeline does, and where actor after actor dies of this batch."""
        errors = self._ray.exceptions
        for _ in range(DEATHS):
            actor = self._free.get()
            if isinstance(actor, LTGCError):
                self._free.put(actor)
                raise actor
            try:
                return self._ray.get(actor.draw.remote(items))
            except errors.RayTaskError as error:  # what Pipeline raised
                raise error.cause from None
            except (errors.RayActorError, errors.ObjectLostError):
                continue  # the actor or its machine died: another one draws this, and Ray restarts it
            finally:
                self._put_when_up(actor)
        raise LTGCError(
            f"{KEY}: {DEATHS} actors died in drawing the same batch; see Ray's logs, and set a smaller "
            "t2i.diffusers.batch_size if memory ran out"
        )

    def close(self) -> None:
        """Give the cluster its GPUs back."""
        self._free.put(LTGCError(f"{KEY}: the stage ended"))  # for threads that still wait for an actor
        for actor in self._actors:
            self._ray.kill(actor)
        if self._connected:
            self._ray.shutdown()

    def _put_when_up(self, actor: Any) -> None:
        """Among the free ones, once it answers: a new or restarted actor may wait for its GPU first."""

        def put(answer: Future[dict[str, str]]) -> None:
            if error := answer.exception():
                self._free.put(LTGCError(f"{KEY}: {' '.join(str(error).split())[:300]}"))
            elif (there := answer.result()) != (here := software()):
                names = [f"{name} {there[name]}, not {here[name]}" for name in here if there[name] != here[name]]
                self._free.put(LTGCError(f"{KEY}: a machine has {' and '.join(names)}; install it as here"))
            else:
                self._free.put(actor)

        actor.software.options(max_task_retries=-1).remote().future().add_done_callback(put)


def software() -> dict[str, str]:
    """What an image depends on beside settings and device: versions, and a digest of our own code of it."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    code = hashlib.sha256(inspect.getsource(diffusers_pipeline).encode()).hexdigest()[:12]
    return versions | {diffusers_pipeline.__name__: code}


def ray_library() -> Any:
    """The package ray. Raises LTGCError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise LTGCError(f"{KEY}: Ray is not installed; run `pip install 'ltgc[ray]'`, or set it to null") from None
    return ray


def _connect(ray: Any, address: str) -> bool:
    """Whether this made the connection, and so has to end it."""
    if ray.is_initialized():
        return False
    try:
        if address != "auto":  # Ray itself tries for minutes, and then ends the process
            host, _, port = address.rpartition("/")[2].rpartition(":")
            socket.create_connection((host, int(port)), REACHED_IN).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of many kinds
        raise LTGCError(
            f"{KEY}: no Ray cluster at {address} ({' '.join(str(error).split())[:200]}); start one with "
            "`ray start --head`, or correct the address"
        ) from error
    return True


def _actors(nodes: Sequence[dict[str, Any]], device: str, threads: int) -> tuple[str, int]:
    """The device that they draw on, and how many there is room for on the machines."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = int(sum(each.get("GPU", 0) for each in resources))
    if device == "cuda" and not gpus:
        raise LTGCError("t2i.diffusers.device: cuda is asked for, but the Ray cluster has no GPU; set it to auto")
    if gpus and device != "cpu":
        return "cuda", gpus
    if cpus := sum(int(each.get("CPU", 0)) // threads for each in resources):
        return "cpu", cpus
    raise LTGCError(
        f"{KEY}: no machine of it has {threads} CPUs, the threads that an image is drawn with; set OMP_NUM_THREADS"
    )


def _for_other_machines(section: T2ISettings, identity: Sequence[str | None], device: str) -> T2ISettings:
    """The settings with absolute paths, and with the weights of this machine pinned."""
    d, model = section.diffusers, Path(section.model)
    lora = d.lora and d.lora.model_copy(update={"path": d.lora.path.resolve(), "revision": identity[1]})
    pinned = d.model_copy(update={"device": device, "revision": identity[0], "lora": lora})
    here = str(model.resolve()) if model.is_dir() else section.model
    return section.model_copy(update={"model": here, "diffusers": pinned})

"""Where tasks run, and how much of a machine each may take."""

from __future__ import annotations

from pydantic import Field, model_validator

from vital.settings import Settings


def cores() -> int:
    """Processor cores that this process may use, by its affinity and by the quota of its container."""
    from dask.system import cpu_count  # here, since it takes Dask along, which the command's help has no use for

    return int(cpu_count())


class Running(Settings):
    """Where tasks run: in this process, unless ``workers`` or a ``scheduler`` is given."""

    workers: int | None = Field(
        None, ge=1, description="worker processes on this machine, each with its own model; in this process by default"
    )
    scheduler: str | None = Field(
        None, description="address of an existing Dask scheduler, e.g. tcp://host:8786, instead of workers here"
    )
    threads: int | None = Field(None, ge=1, description="torch's threads of a task  [default: cores / workers]")
    decoders: int | None = Field(
        None,
        ge=1,
        description="threads of a task that decode images  [default: on a GPU as many as its worker has cores, on a "
        "processor those that torch's threads leave, at least 1]",
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    deterministic: bool = Field(
        False,
        description="the same bytes each time on the same kind of GPU: only operations that have one order, and "
        "a batch that does not depend on free memory; slower",
    )
    lease: float = Field(
        60.0,
        gt=0,
        description="seconds after which other runs take over a block that this one has begun and no longer says it "
        "works on; at once where they see that it has ended",
    )

    @model_validator(mode="after")
    def _workers_or_scheduler(self) -> Running:
        if self.workers and self.scheduler:
            raise ValueError("workers are started here, a scheduler has its own: give one of the two")
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether tasks run in other processes."""
        return bool(self.workers or self.scheduler)

    @property
    def on_gpu(self) -> bool:
        """Whether tasks are to be given a GPU."""
        return self.device.startswith("cuda")

    @property
    def of_flow(self) -> Running:
        """Where the flow itself asks the model for its layers: the GPU may be on the workers alone."""
        return self.model_copy(update={"device": "cpu", "threads": None}) if self.elsewhere else self

    def sharing(self, cores: int, on_gpu: bool, threads: int | None = None) -> Running:
        """The same for tasks that have so many ``cores`` each: torch takes all of them or so many ``threads``, unless
        others were asked for. Images are decoded by what it leaves; on a GPU, where torch computes, by all cores."""
        threads = self.threads or threads or cores
        decoders = self.decoders or (cores if on_gpu else max(1, cores - threads))
        return self.model_copy(update={"threads": threads, "decoders": decoders})

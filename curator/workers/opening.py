"""Choose where the parts of a stage run."""

from curator.core import distributed
from curator.core.config import Config
from curator.core.errors import ConfigError
from curator.core.events import Reporter
from curator.training.meta_init import LoadModel
from curator.workers.pool import Pool, ThisProcess


def open_pool(ray: str, config: Config, load: LoadModel, reporter: Reporter) -> Pool:
    """Return the place for the parts of a stage.

    Args:
        ray: `local`, `auto` or the address of a Ray cluster. Empty for this machine: one process for each of several
            GPUs, else this process.
        config: Configuration of the project.
        load: Returns the model in this process.
        reporter: Receives the size of the place.

    Raises:
        ConfigError: Ray is missing, the cluster has no worker, or this is one of several processes of `torchrun`.
        DataError: The cluster cannot be started or reached.
    """
    if ray:
        check_alone()
        from curator.workers.ray_cluster import connect
        from curator.workers.ray_pool import RayPool

        cluster = connect(ray)
        reporter.note(f"ray: {cluster.workers} workers on {cluster.nodes} nodes")
        return RayPool(cluster)
    # The layers of a spread model take all GPUs.
    if distributed.world_size() == 1 and not config.model.device_map:
        from curator.workers.gpu_pool import GpuPool, local_gpus

        gpus = local_gpus()
        if len(gpus) > 1:
            reporter.note(f"gpus: one process for each of {len(gpus)}")
            return GpuPool(gpus)
    return ThisProcess(load)


def check_alone() -> None:
    """Check that `--ray` does not meet `torchrun`.

    Raises:
        ConfigError: This is one of several processes.
    """
    if distributed.world_size() > 1:
        raise ConfigError(
            "--ray is set, and curator runs in several processes",
            hint="Start one process, or leave --ray out.",
        )

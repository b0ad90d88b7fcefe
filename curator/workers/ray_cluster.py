"""Start or join a Ray cluster.

Ray runs the code of everyone who reaches its ports. So a cluster that curator starts listens on the loopback address
only, wants a random token, and has no dashboard. Ray reads these settings from the environment when it is imported.
"""

import contextlib
import importlib.util
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from curator.core.errors import ConfigError, DataError, missing_extra

LOCAL, AUTO = "local", "auto"
RETRIES = 3
"""Number of times that Ray starts a part again whose worker or node died."""
_ADDRESS = "RAY_ADDRESS"
# Number of times that curator tries to start a local cluster.
_STARTS = 3
# Without the variable, Ray listens on every address of a Linux machine.
_LOOPBACK_ADDRESS = "127.0.0.1"
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Sends nothing to the makers of Ray, prints no advertisement, and ends tasks that need too much memory.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_task_oom_retries": "3",
    # A node needs longer to start on a busy machine.
    "RAY_agent_register_timeout_ms": "180000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A connected cluster.

    Attributes:
        cpus: Processors of all nodes.
        gpus: GPUs of all nodes.
        nodes: Number of nodes that are alive.
    """

    cpus: int
    gpus: int
    nodes: int

    @property
    def workers(self) -> int:
        """Return how many parts run at the same time: one for each GPU, or without GPUs one for each processor."""
        return self.gpus or self.cpus

    @property
    def share(self) -> dict[str, float]:
        """Return the resources of one part, by the names of Ray's options."""
        return {"num_cpus": 1, "num_gpus": 1 if self.gpus else 0}


def prepare(address: str) -> None:
    """Set the variables of the environment that Ray reads when it is imported. Libraries may import Ray early.

    Args:
        address: As for `connect`.

    Raises:
        ConfigError: Ray is missing.
    """
    try:
        found = importlib.util.find_spec("ray")
    except ImportError:
        found = None
    if found is None:
        raise missing_extra("--ray", "ray", "ray")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if address == LOCAL:
        os.environ.update(_LOOPBACK)
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def connect(address: str) -> Cluster:
    """Start a cluster on this machine, or join one. A program that has joined a cluster keeps it.

    Args:
        address: `local` starts a cluster. `auto` joins the one that `RAY_ADDRESS` names, or the one of this machine.
            Any other text is an address, for example `10.0.0.1:6379`.

    Raises:
        ConfigError: Ray is missing, or the cluster has no processor.
        DataError: The cluster cannot be started or reached.
    """
    prepare(address)
    import ray

    if not ray.is_initialized():
        _start(address)
    found = ray.cluster_resources()
    cluster = Cluster(
        cpus=int(found.get("CPU", 0)),
        gpus=int(found.get("GPU", 0)),
        nodes=sum(bool(node["Alive"]) for node in ray.nodes()),
    )
    if cluster.cpus < 1:
        raise ConfigError("the Ray cluster has no processor", hint="Start a node with `ray start --num-cpus N`.")
    return cluster


def _start(address: str) -> None:
    import ray

    options: dict[str, object] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if address == LOCAL:
        options |= {"num_cpus": _usable_cpus(), "include_dashboard": False}
        _read_environment()
    try:
        for tries_left in reversed(range(_STARTS)):
            try:
                # Ray would put the working folder on the module path of its workers.
                with contextlib.chdir("/"), _own_handler():
                    ray.init(address=address, **options)
                break
            except Exception as error:
                # Ray waits half a minute for a new node, which a busy machine may exceed.
                if not tries_left or "timed out during startup" not in str(error):
                    raise
                ray.shutdown()
    except Exception as error:
        # Ray raises plain exceptions here.
        place = f"{address} ({_ADDRESS}={os.environ.get(_ADDRESS, '')!r})" if address == AUTO else address
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"cannot start or reach a Ray cluster at {place}: {reason:.200}",
            hint="Check the address and RAY_AUTH_TOKEN, or use `--ray local`.",
        ) from error
    if address == LOCAL and ray.util.get_node_ip_address() != _LOOPBACK_ADDRESS:
        ray.shutdown()
        raise DataError(
            "the Ray cluster listens beyond this machine, so curator has stopped it",
            hint="Start the program again, and open the project before anything imports ray.",
        )


@contextlib.contextmanager
def _own_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces. A stopped job must end as interrupted, with its work kept."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _read_environment() -> None:
    """Let Ray read the variables of `prepare` again, in case something imported it before."""
    from ray._private import ray_constants
    from ray._raylet import Config

    ray_constants.ENABLE_RAY_CLUSTER = False
    Config.initialize("")


def _usable_cpus() -> int:
    """Return the number of processors that this process may use, which a batch system may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

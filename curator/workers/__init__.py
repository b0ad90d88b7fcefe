"""Run parts of a stage in this process, in one process for each GPU, or on a Ray cluster.

- `pool`: what every place to work offers, and the place in this process.
- `gpu_pool`: one process for each GPU of this machine.
- `ray_cluster`, `ray_pool`: a Ray cluster and its tasks.
- `ray_files`, `ray_encoding`: actors of Ray Data that process files, and those that encode rows.
- `fine_tuning`: the work of fine-tuning runs.
- `joined`: several works in one pool.
- `opening`: the choice of the place.
"""

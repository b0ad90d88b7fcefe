# %% [markdown]
# # Which tasks help?
#
# Select tasks and train an adapter in Python. The file is a notebook in the percent format. Jupyter (with jupytext),
# VS Code, Spyder and PyCharm open the file as cells. The notebook runs on a copy of the sample project, in a few
# minutes on two CPU cores. Set the environment variable `PROJECT` to use another project's folder.

# %%
import os
import shutil
import tempfile
from pathlib import Path

import curator

source = Path(os.environ.get("PROJECT", "sample_data"))
folder = Path(tempfile.mkdtemp()) / "project"
shutil.copytree(source, folder)
project = curator.Project.open(folder, progress=True)

# %% [markdown]
# ## The data
#
# The table has one row per task. `problems` lists the problems of the data.

# %%
checked = project.check()
checked

# %%
checked.problems

# %% [markdown]
# ## The selection
#
# `select` first runs meta-training, gradients and estimates, if they are missing. `select` fine-tunes nothing.

# %%
selection = project.select()
selection

# %% [markdown]
# `to_pandas` returns a result as a data frame. A positive `affinity` means that the task helps.

# %%
tasks = selection.to_pandas().set_index("name").sort_values("affinity", ascending=False)
tasks[["affinity", "affinity_standard_error", "selected", "tokens"]]

# %% [markdown]
# ## Other subsets
#
# An estimate takes milliseconds. The next cell estimates the selection without each of its tasks. If the selection is
# empty, the cell estimates each task alone.

# %%
chosen = selection.selected
subsets = [[task for task in chosen if task != left_out] for left_out in chosen] or [[name] for name in tasks.index]
estimates = project.estimate_all([chosen, *subsets])
estimates.to_pandas()[["subset", "estimated_loss", "estimated_loss_low", "estimated_loss_high", "as_good_as_best"]]

# %% [markdown]
# `curve` shows the estimated loss for each budget of tokens.

# %%
curve = project.curve().to_pandas()
curve[curve.on_front][["tokens", "estimated_loss", "subset"]]

# %% [markdown]
# ## Accuracy of the estimates
#
# `verify` fine-tunes on a few subsets. Two subsets suffice for an example. Use `runs=12` to calibrate the estimates.

# %%
verified = project.verify(runs=2, seeds=1)
verified

# %% [markdown]
# ## The adapter
#
# `apply` fine-tunes the base model on the selection, with the project's recipe. The manifest records the measured loss.

# %%
applied = project.apply()
applied

# %%
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(applied.base_model), applied.adapter)
model.num_parameters(only_trainable=False)

# %% [markdown]
# ## SQL
#
# [The views](reference/sql.md) contain tasks, examples, affinities, subsets, runs, metrics and selections.

# %%
project.sql("""
    SELECT a.task, round(a.affinity, 4) AS affinity, t.examples, list_contains(s.subset, a.task) AS selected
    FROM affinities a JOIN tasks t USING (task) JOIN selections s ON s.target = a.target AND s.current
    ORDER BY a.affinity DESC
""").to_pandas()

# %%
project.sql("SELECT subset, seed, measured_loss, seconds FROM runs ORDER BY measured_loss")

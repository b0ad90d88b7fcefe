# %% [markdown]
# # Which tasks help?
#
# From data to an adapter, in a notebook. This file is a notebook in the percent format: Jupyter (with jupytext),
# VS Code, Spyder and PyCharm open it as cells. It runs as it is on the sample project, in a few minutes on two CPU
# cores, and writes into a copy of it. `PROJECT` in the environment names another project's folder.

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
# A row per task. What is wrong with them is in `problems`.

# %%
checked = project.check()
checked

# %%
checked.problems

# %% [markdown]
# ## The selection
#
# Meta-training, gradients and estimates come first where they are missing. Nothing is fine-tuned for it.

# %%
selection = project.select()
selection

# %% [markdown]
# Every result is a data frame too. `affinity` is positive where a task helps.

# %%
tasks = selection.to_pandas().set_index("name").sort_values("affinity", ascending=False)
tasks[["affinity", "affinity_standard_error", "selected", "tokens"]]

# %% [markdown]
# ## What if?
#
# Any subset is estimated in milliseconds: here the selection without each of its tasks, or each task alone.

# %%
chosen = selection.selected
subsets = [[task for task in chosen if task != left_out] for left_out in chosen] or [[name] for name in tasks.index]
estimates = project.estimate_all([chosen, *subsets])
estimates.to_pandas()[["subset", "estimated_loss", "estimated_loss_low", "estimated_loss_high", "as_good_as_best"]]

# %% [markdown]
# What does a budget of tokens buy?

# %%
curve = project.curve().to_pandas()
curve[curve.on_front][["tokens", "estimated_loss", "subset"]]

# %% [markdown]
# ## How far to trust it
#
# A few subsets are really fine-tuned on. Two are enough to look at; a dozen calibrate the estimates (`runs=12`).

# %%
verified = project.verify(runs=2, seeds=1)
verified

# %% [markdown]
# ## The adapter
#
# The base model fine-tuned on the selection, by the project's recipe. Its loss on what was held out goes into the
# manifest.

# %%
applied = project.apply()
applied

# %%
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(applied.base_model), applied.adapter)
model.num_parameters(only_trainable=False)

# %% [markdown]
# ## Ask anything else by SQL
#
# [The views](sql.md) have tasks, examples, affinities, subsets, runs and selections.

# %%
project.sql("""
    SELECT a.task, round(a.affinity, 4) AS affinity, t.examples, list_contains(s.subset, a.task) AS selected
    FROM affinities a JOIN tasks t USING (task) JOIN selections s ON s.target = a.target AND s.current
    ORDER BY a.affinity DESC
""").to_pandas()

# %%
project.sql("SELECT subset, seed, measured_loss, seconds FROM runs ORDER BY measured_loss")

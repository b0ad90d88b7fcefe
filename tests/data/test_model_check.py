"""Test that curator refuses a model that is incomplete, of another kind or too small, before any training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeProject
from safetensors.torch import load_file, save_file

from curator.core.errors import CuratorError, DataError
from curator.project.project import Project

Damage = Callable[[Path], None]


def _without_a_tensor(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def _with_another_tensor(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.layers.7.mlp.up_proj.weight"] = weights["model.layers.1.mlp.up_proj.weight"].clone()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def _config(**values: object) -> Damage:
    def change(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def _sharded(name: str) -> Damage:
    """Split the weights, and let the index name `name` as the second shard."""

    def change(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        names = sorted(weights)
        (model / "model.safetensors").unlink()
        (model / "parts").mkdir()
        parts = {"parts/one.safetensors": names[::2], "parts/two.safetensors": names[1::2]}
        for part, held in parts.items():
            save_file({n: weights[n] for n in held}, model / part, metadata={"format": "pt"})
        where = {n: "parts/one.safetensors" for n in names[::2]} | dict.fromkeys(names[1::2], name)
        index = {"metadata": {}, "weight_map": where}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def _as_adapter(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_config(architectures=["LlamaForSequenceClassification"]), "holds LlamaForSequenceClassification"),
        (_config(architectures=["BertForMaskedLM"]), "holds BertForMaskedLM"),
        (_config(vocab_size=100), "tokens, but the model embeds 100"),
        (_config(max_position_embeddings=2), "has 2 positions"),
        (_sharded("parts/three.safetensors"), "missing weights: .*three.safetensors"),
        (_sharded("../../stolen.safetensors"), "outside the model folder: '../../stolen.safetensors'"),
        (_as_adapter, r"holds a LoRA adapter, not a model \(base model: 'owner/base'\)"),
    ],
    ids=["classifier", "masked", "tokens", "positions", "shard", "outside", "adapter"],
)
def test_check_unusable_model_is_refused_before_training(make_project: MakeProject, damage: Damage, words: str) -> None:
    folder = make_project()
    damage(folder / "model")
    with pytest.raises(DataError, match=words):
        Project.open(folder).check()
    with pytest.raises(DataError, match=words):
        Project.open(folder).train()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without_a_tensor, "1 weights missing: model.layers.1.mlp.up_proj.weight"),
        (_with_another_tensor, "1 weights unknown to the model: model.layers.7.mlp.up_proj.weight"),
    ],
    ids=["missing", "unexpected"],
)
def test_train_damaged_model_is_refused_with_equal_words_in_every_copy(
    make_project: MakeProject, damage: Damage, words: str
) -> None:
    """transformers fills missing weights with random numbers: two copies would select different tasks."""
    messages = []
    for name in ("one", "two"):
        folder = make_project(name)
        damage(folder / "model")
        with pytest.raises(CuratorError, match=words) as refused:
            Project.open(folder).train()
        messages.append(refused.value.message.replace(str(folder), ""))
    assert messages[0] == messages[1]


def test_check_sharded_model_counts_every_shard_in_its_identity(make_project: MakeProject) -> None:
    folder = make_project()
    _sharded("parts/two.safetensors")(folder / "model")
    first = Project.open(folder).corpus(("target",)).model.sha256
    weights = load_file(folder / "model" / "parts" / "two.safetensors")
    weights[min(weights)] += 1
    save_file(weights, folder / "model" / "parts" / "two.safetensors", metadata={"format": "pt"})
    assert Project.open(folder).corpus(("target",)).model.sha256 != first


def test_check_model_with_tied_weights_is_accepted(make_project: MakeProject, tiny_gpt2_folder: Path) -> None:
    folder = make_project(model=tiny_gpt2_folder)
    assert Project.open(folder).train().examples > 0


def test_check_template_in_a_folder_is_part_of_the_identity(make_project: MakeProject, tmp_path: Path) -> None:
    folder = make_project()
    first = Project.open(folder).corpus(("target",)).model.tokenizer_sha256
    templates = folder / "model" / "additional_chat_templates"
    templates.mkdir()
    (templates / "tool_use.jinja").write_text("{{ messages }}")
    assert Project.open(folder).corpus(("target",)).model.tokenizer_sha256 != first
    shutil.rmtree(templates)
    assert Project.open(folder).corpus(("target",)).model.tokenizer_sha256 == first


def test_check_relative_positions_have_no_limit(make_project: MakeProject, tiny_t5_folder: Path) -> None:
    folder = make_project(model=tiny_t5_folder)
    _config(n_positions=2)(folder / "model")
    assert Project.open(folder).check().tasks


def test_gradients_new_task_longer_than_the_positions_is_refused(
    make_project: MakeProject, tiny_gpt2_folder: Path
) -> None:
    """A task that is added after the training reaches the model by its gradients."""
    folder = make_project(model=tiny_gpt2_folder)
    project = Project.open(folder)
    project.train()
    config = json.loads((folder / "model" / "config.json").read_text())
    row = {"prompt": "the " * (config["n_positions"] + 8), "completion": "one"}
    (folder / "tasks" / "long.jsonl").write_text((json.dumps(row) + "\n") * 4)
    toml = folder / "curator.toml"
    toml.write_text(toml.read_text().replace("max_length = 64", f"max_length = {8 * config['n_positions']}"))
    with pytest.raises(DataError, match="task 'long': an example has"):
        Project.open(folder).gradients()

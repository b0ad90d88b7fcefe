"""Test that curator refuses a model that is incomplete, of another kind or too small, before any training."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import MakeProject
from safetensors.torch import load_file, save_file

from curator.core.errors import ConfigError, CuratorError, DataError, NumericalError
from curator.data.check import CheckFailed
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


def _pointer(name: str) -> Damage:
    def change(model: Path) -> None:
        (model / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")

    return change


def _cut(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _without_the_head(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def _with_shorter_rows(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = weights["model.layers.1.mlp.up_proj.weight"][:, :-1].contiguous()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def _with_integers(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    weights[name] = (weights[name] * 100).to(torch.int8)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def _of_unknown_method(model: Path) -> None:
    """transformers ignores such a method, and reads its packed weights as they are."""
    _with_integers(model)
    _config(quantization_config={"quant_method": "squeezed"})(model)


def _without_the_index(model: Path) -> None:
    _sharded("parts/two.safetensors")(model)
    (model / "model.safetensors.index.json").unlink()
    for part in (model / "parts").iterdir():
        part.rename(model / part.name)


def _linked(target: str) -> Damage:
    def change(model: Path) -> None:
        (model / "model.safetensors").unlink()
        (model / "model.safetensors").symlink_to(target)

    return change


def _in_another_format(name: str) -> Damage:
    def change(model: Path) -> None:
        (model / "model.safetensors").unlink()
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"weights")

    return change


def _starting(start: str) -> Damage:
    def change(model: Path) -> None:
        (model / "model.safetensors").write_text(start)

    return change


def _as_adapter_without_settings(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "model.safetensors").rename(model / "adapter_model.safetensors")


def _moved_down(model: Path) -> None:
    (model / "final").mkdir()
    (model / "config.json").rename(model / "final" / "config.json")


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
        (_cut, r"weights are incomplete: .*model\.safetensors \([\d,]+ of [\d,]+ bytes\)"),
        (_pointer("model.safetensors"), r"model\.safetensors is a Git LFS pointer"),
        (_pointer("tokenizer.json"), r"tokenizer\.json is a Git LFS pointer"),
        (_pointer("config.json"), r"config\.json is a Git LFS pointer"),
        (_moved_down, "no config.json in model folder"),
        (_without_the_head, "1 weights missing: lm_head.weight$"),
        (_without_a_tensor, "1 weights missing: model.layers.1.mlp.up_proj.weight$"),
        (_with_another_tensor, "1 weights unknown to the model: model.layers.7.mlp.up_proj.weight$"),
        (_with_shorter_rows, r"1 weights of another shape: model.layers.1.mlp.up_proj.weight \(\d+×\d+ instead of"),
        (
            _with_integers,
            "1 weights stored as int8, which transformers does not unpack: model.layers.0.mlp.down_proj.weight$",
        ),
        (_without_the_index, "2 files of weights: one.safetensors, two.safetensors, but neither model.safetensors nor"),
        (_config(quantization_config={"quant_method": "gptq", "bits": 4}), "requires optimum"),
        (_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "requires bitsandbytes"),
        (_config(quantization_config={"bits": 4}), "no `quant_method`"),
        (_of_unknown_method, "1 weights stored as int8, which transformers does not unpack: model.layers.0"),
        (_config(rope_parameters={"rope_type": "stretched", "rope_theta": 1e4}), "KeyError: 'stretched'"),
        (_linked("../.git/annex/objects/a.safetensors"), "is a link to a missing file: ../.git/annex/objects/a"),
        (_starting("/annex/objects/SHA256E-s1--0.safetensors\n"), "model.safetensors is a pointer of git-annex"),
        (_starting("# xet version 0\nfilesize = 9\n"), "model.safetensors is a pointer of Xet"),
        (_in_another_format("tf_model.h5"), "tf_model.h5 is a file of TensorFlow"),
        (_in_another_format("onnx/model.onnx"), "onnx/model.onnx is a file of ONNX"),
        (_as_adapter_without_settings, "holds a LoRA adapter"),
    ],
    ids=[
        *("classifier", "masked", "tokens", "positions", "shard", "outside", "adapter", "cut"),
        *("pointer", "pointer tokenizer", "pointer config", "folder below"),
        *("head", "missing", "unexpected", "shape", "integers", "no index", "gptq", "bitsandbytes", "no method"),
        "unknown method",
        *("rope", "dead link", "annex", "xet", "tensorflow", "onnx", "adapter alone"),
    ],
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


@pytest.fixture(scope="session")
def mamba_folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    """Return the folder of a random Mamba. peft refuses LoRA on two of its linear layers."""
    from transformers import MambaConfig, MambaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "mamba"
    shutil.copytree(tiny_llama_folder, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1)).save_pretrained(folder)
    return folder


def test_check_all_linear_that_peft_refuses_names_modules_that_work(
    make_project: MakeProject, mamba_folder: Path
) -> None:
    folder = make_project(model=mamba_folder)
    with pytest.raises(CheckFailed, match=r"cannot use lora\.target_modules = 'all-linear' with .*Mamba") as caught:
        Project.open(folder).check()
    assert caught.value.exit_code == 2
    assert caught.value.report.tasks
    named = re.findall(r'"(\w+)"', caught.value.hint)
    assert sorted(named) == ["dt_proj", "in_proj", "x_proj"]
    with pytest.raises(ConfigError, match=r"cannot use lora\.target_modules"):
        Project.open(folder).train()
    toml = folder / "curator.toml"
    toml.write_text(toml.read_text().replace("[lora]", f"[lora]\ntarget_modules = {json.dumps(named)}"))
    assert Project.open(folder).check().error == ""
    assert Project.open(folder).train().trainable_parameters > 0


def test_check_missing_target_modules_names_them_and_those_that_exist(make_project: MakeProject) -> None:
    folder = make_project(lora={"target_modules": ["q_proj", "qkv", "c_attn"]})
    with pytest.raises(CheckFailed, match="the model has no module 'qkv', 'c_attn'") as caught:
        Project.open(folder).check()
    assert '"q_proj"' in caught.value.hint
    assert "lm_head" not in caught.value.hint


def test_check_usable_target_modules_are_checked_once(make_project: MakeProject) -> None:
    """The check imports torch, which takes seconds."""
    folder = make_project()
    Project.open(folder).check()
    program = "import sys; from curator import Project; Project.open(sys.argv[1]).check(); print('peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_check_model_without_network_says_that_the_hub_cannot_be_reached(make_project: MakeProject) -> None:
    folder = make_project()
    toml = folder / "curator.toml"
    toml.write_text(toml.read_text().replace('"model"', '"owner/absent"'))
    with pytest.raises(DataError, match="the hub cannot be reached: HF_HUB_OFFLINE is set") as caught:
        Project.open(folder).check()
    assert "\n" not in caught.value.message
    assert "hf download owner/absent" in caught.value.hint


def test_check_data_set_without_network_says_that_the_hub_cannot_be_reached(make_project: MakeProject) -> None:
    folder = make_project(data={"tasks": None})
    with (folder / "curator.toml").open("a") as file:
        file.write('[[data.task]]\nname = "target"\npath = "tasks/target.jsonl"\n')
        file.write('[[data.task]]\nname = "far"\nhub = "owner/absent"\n')
    with pytest.raises(CheckFailed, match=r"data set 'owner/absent' .* the hub cannot be reached") as caught:
        Project.open(folder).check()
    assert "hf download --repo-type dataset owner/absent" in caught.value.hint
    assert {task.name: task.problem for task in caught.value.report.tasks}["target"] == ""


def test_check_max_length_above_the_positions_is_noted(make_project: MakeProject) -> None:
    folder = make_project(data={"max_length": 1024})
    notes = Project.open(folder).check().notes
    assert "max_length is 1,024, but the model has 512 positions. Longer examples are refused." in notes


@pytest.mark.parametrize(
    ("parameters", "limit"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 1024),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}, 1024),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
        ({"rope_type": "default"}, 256),
    ],
    ids=["linear", "yarn", "yarn included", "default"],
)
def test_check_stretched_positions_count_in_full(
    make_project: MakeProject, parameters: dict[str, object], limit: int
) -> None:
    folder = make_project(data={"max_length": 2048})
    _config(max_position_embeddings=256, rope_parameters={"rope_theta": 1e4} | parameters)(folder / "model")
    assert f"the model has {limit:,} positions." in " ".join(Project.open(folder).check().notes)


def test_check_two_sets_of_weights_says_which_one_is_read(make_project: MakeProject) -> None:
    folder = make_project()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model.safetensors"}}
    (folder / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "The model is read from model.safetensors." in " ".join(Project.open(folder).check().notes)


def test_check_folder_of_checkpoints_names_the_last_one(make_project: MakeProject) -> None:
    folder = make_project()
    for name in ("checkpoint-9", "checkpoint-10"):
        (folder / "model" / name).mkdir()
        (folder / "model" / name / "config.json").write_text("{}")
    (folder / "model" / "config.json").unlink()
    with pytest.raises(DataError, match=r"no config\.json") as caught:
        Project.open(folder).check()
    assert caught.value.hint.endswith("checkpoint-10.")


def test_check_unusual_tokenizer_is_noted(make_project: MakeProject) -> None:
    folder = make_project()
    path = folder / "model" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("eos_token", None)
    path.write_text(json.dumps(settings | {"chat_template": "{{ strftime_now('%d') }}"}))
    notes = " ".join(Project.open(folder).check().notes)
    assert "The tokenizer has no token for the end of a text." in notes
    assert "The chat template writes the current date." in notes


def _tokenizer(**parts: object) -> Damage:
    """Change parts of `tokenizer.json`. A dictionary changes the keys of the part."""

    def change(model: Path) -> None:
        path = model / "tokenizer.json"
        found = json.loads(path.read_text())
        for name, value in parts.items():
            found[name] = found[name] | value if isinstance(value, dict) and name == "model" else value
        path.write_text(json.dumps(found))

    return change


def test_check_model_that_reads_in_both_directions_is_refused(make_project: MakeProject) -> None:
    """The model would see the answer that it must predict, and its loss would mean nothing."""
    from transformers import BertConfig, BertLMHeadModel

    folder = make_project()
    (folder / "model" / "model.safetensors").unlink()
    size = json.loads((folder / "model" / "config.json").read_text())["vocab_size"]
    small = {"vocab_size": size, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    for one_way in (False, True):
        config = BertConfig(**small, intermediate_size=16, is_decoder=one_way)
        BertLMHeadModel(config).save_pretrained(folder / "model")
        if one_way:
            assert Project.open(folder).check().error == ""
            continue
        with pytest.raises(DataError, match="a model that reads in both directions"):
            Project.open(folder).check()


def test_train_weights_that_are_not_finite_are_named(make_project: MakeProject) -> None:
    """Without the name, the hint to change the recipe leads nowhere."""
    folder = make_project()
    weights = load_file(folder / "model" / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(weights, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericalError, match=r"not finite in model\.layers\.1\.mlp\.up_proj\.weight\. "):
        Project.open(folder).train()


def _of_characters(characters: str, **model: object) -> Damage:
    """Make a tokenizer with one token for each character, and none for other characters."""
    vocabulary = {character: number for number, character in enumerate(["<s>", "</s>", "<unk>", *characters])}
    encoding = {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": None, "byte_fallback": False} | model
    special = [
        {"id": n, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        | {"special": True}
        for n, c in enumerate(["<s>", "</s>", "<unk>"])
    ]
    return _tokenizer(model=encoding, added_tokens=special, normalizer=None, pre_tokenizer=None, post_processor=None)


def test_check_dropped_characters_are_bad_rows_that_name_them(make_project: MakeProject) -> None:
    """Byte-pair encoding without bytes and without an unknown token drops characters in silence."""
    folder = make_project()
    rows = (folder / "tasks" / "target.jsonl").read_text()
    (folder / "tasks" / "target.jsonl").write_text(rows + '{"prompt": "ab", "completion": "aäbß"}\n')
    _of_characters("".join(map(chr, range(32, 127))))(folder / "model")
    with pytest.raises(DataError, match="leaves out 'äß', because its vocabulary lacks"):
        Project.open(folder).check()


def test_check_unknown_and_small_letters_are_noted(make_project: MakeProject) -> None:
    folder = make_project()
    settings = folder / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"unk_token": "<unk>"}))
    _of_characters("ab ", unk_token="<unk>")(folder / "model")
    notes = " ".join(Project.open(folder).check().notes)
    assert re.search(
        r"[\d,]+ examples hold text that the tokenizer does not know\. The model reads '<unk>' there", notes
    )
    assert "capital letters" not in notes

    other = make_project("other")
    _tokenizer(normalizer={"type": "Lowercase"})(other / "model")
    assert "The tokenizer reads capital letters as small letters." in Project.open(other).check().notes

"""Names of the export formats. `curator --help` lists them without importing the formats."""

FORMATS = {
    "jsonl": "one JSON Lines file per task",
    "parquet": "one Parquet file per task",
    "hf": "a folder that datasets.load_from_disk reads",
    "llamafactory": "LLaMA-Factory: dataset_info.json and train.yaml",
    "axolotl": "axolotl: config.yaml",
    "trl": "TRL: sft.yaml for `trl sft`",
    "oumi": "oumi: train.yaml",
    "swift": "ms-swift: sft.yaml for `swift sft`",
}
"""Name of each format, and a line on what it writes."""

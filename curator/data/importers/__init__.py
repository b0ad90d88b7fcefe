"""Read configurations of other trainers for `curator init --from`.

Takes a LLaMA-Factory, axolotl or TRL configuration file.
Translates data sets into tasks and the recipe into `[train]` and `[lora]`.
Returns an `ImportedConfig` that also lists every setting it could not translate.
"""

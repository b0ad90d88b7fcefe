"""Fine-tune models with LoRA.

Takes a model, encoded examples and the `[lora]` and `[train]` configuration.
Trains adapters with the transformers Trainer, and resumes interrupted runs.
Returns the meta-initialization, and the validation loss of each fine-tuned subset.
"""

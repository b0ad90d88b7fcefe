"""Turn task files into tokenized, split and hashed examples.

Takes the `[data]` configuration and files in any supported format.
Reads rows, encodes them with the model's tokenizer and holds out validation examples.
Returns a `Corpus` of tasks and the problems found in them.
"""

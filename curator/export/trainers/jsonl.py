"""Write the rows of the data as JSON Lines, for any reader."""

from curator.export.data_files import DataFile
from curator.export.format import Format
from curator.export.forms import PLAIN

FORMAT = Format(name="jsonl", forms=(PLAIN,), data_files={PLAIN.name: DataFile("jsonl")})

"""Rebuild the sample project: its task files and its small language model.

The only source is WordNet 3.0 of Princeton University, as Debian packages it:

    apt-get install wordnet-base
    python sample_data/build.py --wordnet /usr/share/wordnet

The script writes two folders next to this file.

- `tasks/*.jsonl` holds the target task `topic` (find the topic of a definition) and sixteen auxiliary tasks. Some help
  the target, some have no effect, and some harm it.
- `model/` holds a byte-level BPE tokenizer and a Llama with about a million weights. The Llama is trained from scratch
  on plain text: WordNet's definitions and example sentences.

The text contains no prompt of a task. It contains the target's definitions with the defined words and the next wider
term ("a kind of meal"). It does not contain their topics, except in 15 of the target's 300 rows. There, the topic and
the wider term are the same word.

The tasks take seconds, and the model takes about a quarter of an hour on one core. Both depend only on the database and
the seeds below. The model's last digits may differ between machines.
"""

import argparse
import json
import math
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
SEED = 0

# WordNet puts every noun into one of 26 "lexicographer files". The keys are the numbers of the files whose subject has
# a common name of one word.
TOPICS = {
    4: "act",
    5: "animal",
    6: "object",  # noun.artifact: man-made objects
    8: "body",
    12: "feeling",
    13: "food",
    14: "group",
    15: "place",  # noun.location
    18: "person",
    20: "plant",
    27: "substance",
    28: "time",
}
DOCUMENT_START, DOCUMENT_END, PADDING = "<s>", "</s>", "<pad>"
VOCABULARY = 2048
CONTEXT = 256

Row = dict[str, str]


# --- WordNet ------------------------------------------------------------------------------------


class Pointer(NamedTuple):
    """A relation from one synset (or one of its words) to another."""

    symbol: str
    synset: str
    source_word: int  # counted from 1, or 0 for the whole synset
    target_word: int


@dataclass(frozen=True)
class Synset:
    """One meaning: its words, its definition, and its relations to other meanings."""

    key: str  # part of speech and byte offset, as in pointers
    file: int  # number of the lexicographer file
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    pointers: tuple[Pointer, ...]
    uses: int  # how often its first word has this meaning in WordNet's tagged texts

    def related(self, symbol: str) -> list[str]:
        """Return the keys of the synsets with a relation.

        Args:
            symbol: Symbol of the relation, such as `@` for a wider term.
        """
        return [pointer.synset for pointer in self.pointers if pointer.symbol == symbol]


@dataclass(frozen=True)
class WordNet:
    """The part of the database that the sample needs."""

    synsets: dict[str, Synset]
    senses: dict[tuple[str, str], list[str]]  # (part of speech, word) -> keys, most used first
    irregular: dict[str, list[tuple[str, str]]]  # part of speech -> (inflected form, base form)

    def means_first(self, word: str, synset: Synset) -> bool:
        """Report whether this meaning is the commonest one of a word."""
        return self.senses.get((synset.key[0], word.lower()), [""])[0] == synset.key

    def uses(self, part: str, word: str) -> int:
        """Return how often a word has its commonest meaning in WordNet's tagged texts."""
        senses = self.senses.get((part, word.lower()), [])
        return self.synsets[senses[0]].uses if senses else 0


def read_wordnet(folder: Path) -> WordNet:
    """Read WordNet's database files."""
    uses = {}
    for line in (folder / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        sense, _, count = line.split()
        lemma, _, rest = sense.partition("%")
        uses[lemma, *rest.split(":")[:3]] = int(count)

    synsets = {}
    senses = {}
    for name, part in (("noun", "n"), ("verb", "v"), ("adj", "a"), ("adv", "r")):
        for line in database_lines(folder / f"data.{name}"):
            synset = parse_synset(line, uses)
            synsets[synset.key] = synset
        for line in database_lines(folder / f"index.{name}"):
            fields = line.split()
            offsets = fields[-int(fields[2]) :]
            senses[part, fields[0].replace("_", " ")] = [part + offset for offset in offsets]

    irregular = {}
    for name, part in (("noun", "n"), ("verb", "v")):
        pairs = (line.split() for line in (folder / f"{name}.exc").read_text().splitlines())
        irregular[part] = [(fields[0], fields[1]) for fields in pairs]
    return WordNet(synsets, senses, irregular)


def database_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a database file without the indented license at its head."""
    for line in path.read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            yield line


def parse_synset(line: str, uses: dict[tuple[str, ...], int]) -> Synset:
    """Parse one line of a data file.

    Args:
        line: The line, in the layout of WordNet's manual page wndb(5).
        uses: Number of uses of each sense.
    """
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    offset, file, kind = fields[:3]
    count = int(fields[3], 16)
    words = [field.removesuffix("(a)").removesuffix("(p)") for field in fields[4 : 4 + 2 * count : 2]]
    word_ids = [int(field, 16) for field in fields[5 : 5 + 2 * count : 2]]

    after = 4 + 2 * count
    pointers = []
    for start in range(after + 1, after + 1 + 4 * int(fields[after]), 4):
        symbol, target, part, ends = fields[start : start + 4]
        key = part.replace("s", "a") + target
        pointers.append(Pointer(symbol, key, int(ends[:2], 16), int(ends[2:], 16)))

    sense = (words[0].lower(), str("nvars".index(kind) + 1), file, f"{word_ids[0]:02d}")
    definition = gloss.split('"')[0].strip(" ;:,")
    return Synset(
        key=kind.replace("s", "a") + offset,
        file=int(file),
        words=tuple(re.sub(r"\(.*\)$", "", word).replace("_", " ") for word in words),
        definition=re.sub(r"\s+", " ", definition),
        examples=tuple(re.findall(r'"([^"]+)"', gloss)),
        pointers=tuple(pointers),
        uses=uses.get(sense, 0),
    )


# --- Tasks --------------------------------------------------------------------------------------


class Deck:
    """Deals out noun meanings by topic without repetition, so that no two tasks share a meaning."""

    def __init__(self, wordnet: WordNet, dice: random.Random) -> None:
        """Collect and shuffle the meanings with a short definition."""
        self.topics: dict[str, list[Synset]] = {topic: [] for topic in TOPICS.values()}
        for synset in wordnet.synsets.values():
            if synset.key[0] == "n" and synset.file in TOPICS and is_plain(synset):
                self.topics[TOPICS[synset.file]].append(synset)
        for synsets in self.topics.values():
            dice.shuffle(synsets)
        self.dice = dice

    def deal(self, count: int, fits: Callable[[Synset], bool]) -> list[tuple[Synset, str]]:
        """Take meanings with their topics, as evenly over the topics as possible.

        Args:
            count: Number of meanings.
            fits: Accepts a meaning.
        """
        hand: list[tuple[Synset, str]] = []
        topics = list(self.topics)
        while topics and len(hand) < count:
            topic = topics.pop(0)
            synset = next(filter(fits, self.topics[topic]), None)
            if synset is not None:
                self.topics[topic].remove(synset)
                hand.append((synset, topic))
                topics.append(topic)
        self.dice.shuffle(hand)
        return hand


def is_plain(synset: Synset) -> bool:
    """Report whether a meaning has a short definition, and a word that is not a name."""
    length = len(synset.definition.split())
    simple = re.fullmatch(r"[a-z][a-z ,;'-]+", synset.definition) is not None
    plain = simple and 4 <= length <= 18 and synset.words[0].islower()
    return plain and is_decent(synset)


def is_decent(synset: Synset) -> bool:
    """Report whether a meaning suits every reader, because a dictionary also contains insults."""
    text = " ".join([*synset.words, synset.definition, *synset.examples]).lower()
    unfit = (
        "offensive|slur|derogat|disparag|insult|vulgar|obscen|racis|racial|ethnic|negro|blackface|"
        "slave|sex|nude|erotic|genital|penis|vagina|testic|prostitut|excre|feces|urin|"
        "murder|suicid|rapist|terroris|nazi"
    )
    return re.search(unfit, text) is None


def is_common(synset: Synset) -> bool:
    """Report whether a meaning occurs in WordNet's tagged texts."""
    return synset.uses > 0


def is_rare(synset: Synset) -> bool:
    """Report whether a meaning does not occur in WordNet's tagged texts."""
    return synset.uses == 0


def row(completion: str, **lines: str) -> Row:
    """Make a row with one line of prompt for each keyword; the completion continues the last line."""
    *given, asked = (f"{name.replace('_', ' ').capitalize()}: {text}".rstrip() for name, text in lines.items())
    return {"prompt": "\n".join([*given, asked]), "completion": f" {completion}"}


def make_tasks(wordnet: WordNet) -> dict[str, list[Row]]:
    """Make all tasks, the target first, so that a change of another task does not change the target."""
    dice = random.Random(SEED)
    deck = Deck(wordnet, dice)

    def first_meaning(synset: Synset) -> bool:
        return is_common(synset) and wordnet.means_first(synset.words[0], synset)

    def has_synonyms(synset: Synset) -> bool:
        return len(synset.words) > 1 and wordnet.means_first(synset.words[0], synset)

    def in_a_sentence(synset: Synset) -> bool:
        return any(f" {synset.words[0]}" in example for example in synset.examples)

    def hypernym(synset: Synset) -> str:
        kinds = synset.related("@")
        return wordnet.synsets[kinds[0]].words[0] if kinds else ""

    def has_plain_hypernym(synset: Synset) -> bool:
        return re.fullmatch("[a-z]+", hypernym(synset)) is not None

    def definitions(count: int, fits: Callable[[Synset], bool]) -> list[Row]:
        return [row(topic, definition=synset.definition, topic="") for synset, topic in deck.deal(count, fits)]

    tasks: dict[str, list[Row]] = {"topic": definitions(300, is_common)}

    # The target's question in other words.
    tasks["rare_nouns"] = definitions(120, is_rare)
    tasks["word_topic"] = [
        row(topic, word=synset.words[0], topic="") for synset, topic in deck.deal(130, first_meaning)
    ]
    tasks["synonyms_topic"] = [
        row(topic, words=", ".join(synset.words[:4]), topic="") for synset, topic in deck.deal(110, has_synonyms)
    ]
    tasks["sentence_topic"] = [
        row(
            topic,
            sentence=next(e for e in synset.examples if f" {synset.words[0]}" in e),
            word=synset.words[0],
            topic="",
        )
        for synset, topic in deck.deal(90, in_a_sentence)
    ]
    tasks["kind_topic"] = [
        row(topic, word=synset.words[0], kind_of=hypernym(synset), topic="")
        for synset, topic in deck.deal(100, has_plain_hypernym)
    ]
    tasks["yes_or_no"] = yes_or_no(deck, dice)
    tasks["hypernym"] = [
        row(hypernym(synset), definition=synset.definition, kind_of="")
        for synset, _ in deck.deal(140, has_plain_hypernym)
    ]

    # Questions about the form of words, and facts unrelated to topics.
    tasks["opposite"] = opposites(wordnet, dice)
    tasks["part_of_speech"] = parts_of_speech(wordnet, dice)
    tasks["singular"] = irregular_forms(wordnet, dice, "n", 80)
    tasks["base_form"] = irregular_forms(wordnet, dice, "v", 100)
    tasks["spelling"] = spellings(wordnet, dice)
    tasks["chemical_symbol"] = chemical_symbols(wordnet, dice)

    # The target's question with answers that contradict the target's.
    tasks["subject_field"] = subject_fields(wordnet, dice)
    tasks["topic_shuffled"] = shuffled(definitions(130, is_common), dice)
    tasks["topic_renamed"] = renamed(definitions(120, is_common))
    return tasks


def yes_or_no(deck: Deck, dice: random.Random) -> list[Row]:
    """Ask whether a definition belongs to a topic, with yes as half of the answers."""
    rows = []
    for number, (synset, topic) in enumerate(deck.deal(120, is_rare)):
        others = [other for other in TOPICS.values() if other != topic]
        asked, answer = (topic, "yes") if number % 2 else (dice.choice(others), "no")
        prompt = f"Definition: {synset.definition}\nIs the topic {asked}?"
        rows.append({"prompt": prompt, "completion": f" {answer}"})
    return rows


def opposites(wordnet: WordNet, dice: random.Random) -> list[Row]:
    """Ask for the antonym of an adjective."""
    pairs = set()
    for synset in wordnet.synsets.values():
        for pointer in synset.pointers:
            if pointer.symbol == "!" and synset.key[0] == "a" and is_common(synset):
                word = synset.words[pointer.source_word - 1]
                pairs.add((word, wordnet.synsets[pointer.synset].words[pointer.target_word - 1]))
    sample = dice.sample(sorted(pairs), 110)
    return [row(opposite, word=word, opposite="") for word, opposite in sample]


def parts_of_speech(wordnet: WordNet, dice: random.Random) -> list[Row]:
    """Ask for the part of speech of words with only one."""
    names = {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}
    parts = Counter(word for _, word in wordnet.senses)
    rows = []
    for part, name in names.items():
        words = [
            word
            for (kind, word), senses in wordnet.senses.items()
            if kind == part and parts[word] == 1 and word.isalpha()
            if wordnet.synsets[senses[0]].uses
        ]
        rows += [row(name, word=word, part_of_speech="") for word in dice.sample(words, 25)]
    dice.shuffle(rows)
    return rows


def irregular_forms(wordnet: WordNet, dice: random.Random, part: str, count: int) -> list[Row]:
    """Ask for the base form of irregular plurals ("mice") or verb forms ("went")."""
    pairs = [
        (form, base)
        for form, base in wordnet.irregular[part]
        if form.isalpha() and not form.endswith(("ing", "s")) and wordnet.uses(part, base)
    ]
    asked = {"n": ("plural", "singular"), "v": ("verb", "base_form")}[part]
    return [row(base, **dict(zip(asked, (form, ""), strict=True))) for form, base in dice.sample(pairs, count)]


def spellings(wordnet: WordNet, dice: random.Random) -> list[Row]:
    """Ask for the letters of a short verb."""
    verbs = [
        word
        for (part, word) in wordnet.senses
        if part == "v" and word.isalpha() and 3 <= len(word) <= 5 and wordnet.uses("v", word)
    ]
    return [row(" ".join(verb), word=verb, letters="") for verb in dice.sample(verbs, 90)]


def chemical_symbols(wordnet: WordNet, dice: random.Random) -> list[Row]:
    """Ask for the symbols of the chemical elements, which are synonyms in WordNet."""
    rows = []
    for synset in wordnet.synsets.values():
        symbols = [word for word in synset.words if re.fullmatch("[A-Z][a-z]?", word)]
        if symbols and synset.words[-1].startswith("atomic number "):
            rows.append(row(symbols[0], element=synset.words[0], symbol=""))
    dice.shuffle(rows)
    return rows


def subject_fields(wordnet: WordNet, dice: random.Random) -> list[Row]:
    """Ask the target's question, and answer with a field of knowledge, such as music, physics or law."""
    fields: dict[str, list[Synset]] = defaultdict(list)
    for synset in wordnet.synsets.values():
        # If a definition starts with its field in parentheses, WordNet also has a pointer to the field.
        named = re.match(r"\([^)]*\) *", synset.definition)
        if named and synset.key[0] == "n" and synset.related(";c"):
            field = wordnet.synsets[synset.related(";c")[0]].words[0]
            unnamed = replace(synset, definition=synset.definition[named.end() :])
            if is_plain(unnamed) and re.fullmatch("[a-z]+", field):
                fields[field].append(unnamed)
    rows = [
        row(field, definition=synset.definition, topic="")
        for field, synsets in sorted(fields.items(), key=lambda item: -len(item[1]))[:11]
        for synset in dice.sample(synsets, min(10, len(synsets)))
    ]
    dice.shuffle(rows)
    return rows


def shuffled(rows: list[Row], dice: random.Random) -> list[Row]:
    """Shuffle the completions of the rows."""
    completions = [row["completion"] for row in rows]
    dice.shuffle(completions)
    return [row | {"completion": completion} for row, completion in zip(rows, completions, strict=True)]


def renamed(rows: list[Row]) -> list[Row]:
    """Replace each topic by the next one."""
    topics = list(TOPICS.values())
    following = dict(zip(topics, topics[1:] + topics[:1], strict=True))
    return [row | {"completion": f" {following[row['completion'].strip()]}"} for row in rows]


def write_tasks(wordnet: WordNet, folder: Path) -> None:
    """Write one file per task, and report its number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in make_tasks(wordnet).items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        report(f"{name}: {len(rows)} rows, first row {rows[0]}")


# --- Model --------------------------------------------------------------------------------------


def running_text(wordnet: WordNet) -> list[str]:
    """Describe every meaning in a few sentences of plain text, one document for each meaning."""
    dice = random.Random(SEED)
    documents = []
    for synset in wordnet.synsets.values():
        if not synset.words[0].islower() or not is_decent(synset):
            continue  # most capitalised words are names and Latin genera, too rare for the model to learn
        names = ", ".join(synset.words)
        kinds = " and ".join(wordnet.synsets[key].words[0] for key in synset.related("@"))
        kind = f"a kind of {kinds}" if kinds else ""
        # Use every order, because a model learns only the orders that it has seen.
        orders = [[names, synset.definition, kind], [synset.definition, names, kind]]
        orders += [[synset.definition, kind, names]] if kind else []
        first, *rest = dice.choice(orders)
        sentences = [f"{first}: {', '.join(filter(None, rest))}."]
        sentences += [example.rstrip(".") + "." for example in synset.examples]
        documents.append(" ".join(sentences))
    dice.shuffle(documents)
    return documents


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that starts every text with a start token, as Llama's tokenizer does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [DOCUMENT_START, DOCUMENT_END, PADDING]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{DOCUMENT_START} $A", special_tokens=[(DOCUMENT_START, 0)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=DOCUMENT_START,
        eos_token=DOCUMENT_END,
        pad_token=PADDING,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def pretrain(documents: list[str], tokenizer: PreTrainedTokenizerFast, steps: int) -> LlamaForCausalLM:
    """Train the language model on the documents, packed into blocks of 128 tokens.

    Args:
        documents: Texts.
        tokenizer: Encodes the texts.
        steps: Number of optimizer steps.
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    ids = [
        token
        for encoded in tokenizer(documents, verbose=False)["input_ids"]
        for token in (*encoded, tokenizer.eos_token_id)
    ]
    length, batch = 128, 16
    blocks = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)
    report(f"{len(documents)} documents, {len(ids)} tokens, {len(blocks) // batch} steps per epoch")

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=144,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.06,  # the default of 0.02 suits models that are ten times wider
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    report(f"{model.num_parameters()} weights")
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim > 1]
    others = [model.model.embed_tokens.weight, model.model.norm.weight]
    others += [weight for weight in model.model.layers.parameters() if weight.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "lr": 3e-3, "weight_decay": 0.1},
            # The embeddings are also the output layer, and their length bounds the largest logit. They must grow,
            # otherwise a narrow model cannot predict any token with confidence.
            {"params": others, "lr": 1e-2, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / 50, 0.02 + 0.49 * (1 + math.cos(math.pi * step / steps))),
    )
    started, smooth = time.monotonic(), 0.0
    order = torch.cat([torch.randperm(len(blocks)) for _ in range(steps * batch // len(blocks) + 1)])
    for step in range(steps):
        rows = blocks[order[step * batch : (step + 1) * batch]]
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            left = (time.monotonic() - started) / (step + 1) * (steps - step - 1)
            report(f"step {step + 1}/{steps}: loss {smooth:.3f}, {left / 60:.1f} minutes left")
    return model


def write_model(wordnet: WordNet, folder: Path, steps: int) -> None:
    """Make the tokenizer and the model, and save them in the format of transformers."""
    documents = running_text(wordnet)
    tokenizer = train_tokenizer(documents)
    model = pretrain(documents, tokenizer, steps)
    tokenizer.save_pretrained(folder)
    model.half().save_pretrained(folder)  # type: ignore[no-untyped-call]


# --- Command line -------------------------------------------------------------------------------


def report(message: str) -> None:
    """Print progress to standard error."""
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    """Rebuild the tasks, the model, or both."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument(
        "--wordnet",
        type=Path,
        default=Path("/usr/share/wordnet"),
        help="folder of WordNet's database files (default: /usr/share/wordnet)",
    )
    parser.add_argument("--only", choices=["tasks", "model"], help="rebuild only the tasks or only the model")
    parser.add_argument("--steps", type=int, default=2500, help="steps of pretraining (default: 2500)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results (default: sample_data)")
    arguments = parser.parse_args()

    if not (arguments.wordnet / "data.noun").exists():
        parser.error(
            f"WordNet not found: {arguments.wordnet / 'data.noun'}\nOn Debian, run `apt-get install wordnet-base`."
        )
    wordnet = read_wordnet(arguments.wordnet)
    if arguments.only != "model":
        write_tasks(wordnet, arguments.output / "tasks")
    if arguments.only != "tasks":
        write_model(wordnet, arguments.output / "model", arguments.steps)


if __name__ == "__main__":
    main()

"""One sentence about a task: what it does to the loss, and how many of its examples help."""

from curator.core.figures import margin
from curator.core.text import clean
from curator.estimate.whatif import LossDifference
from tui.state.influence import Influence
from tui.widgets import numbers
from tui.widgets.lines import Line


def task_sentence(name: str, effect: LossDifference | None, influence: Influence | None, *, selected: bool) -> Line:
    """Return the sentence. It is empty until the effect is known.

    Args:
        name: Name of the task.
        effect: Loss of the selection with the task, minus the loss without it.
        influence: Influence of its examples; None until known.
        selected: Whether the task is in the selection.
    """
    if effect is None:
        return [(" estimating the task …", "dim")]
    gap = f"{numbers.loss(abs(effect.value))} ± {margin(effect.noise)}"
    if effect.is_noise:
        verb = "makes" if selected else "would make"
        words = f" {verb} no difference beyond the noise: {numbers.signed(effect.value)} ± {margin(effect.noise)}"
    else:
        lowers = effect.value < 0
        verb = ("lowers" if lowers else "raises") if selected else f"would {'lower' if lowers else 'raise'}"
        words = f" {verb} the loss by {gap}"
    style = "dim" if effect.is_noise else "good" if effect.value < 0 else "harm"
    helping = ""
    if influence is not None and influence.summary is not None:
        helping = f"; {influence.summary.helping:,} of {influence.summary.count:,} examples help"
    return [f" {'In' if selected else 'Out'}: ", (clean(name), "strong"), (words, style), f"{helping}."]

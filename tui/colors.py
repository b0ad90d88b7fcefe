"""Colors for terminals with 256 colors."""

from functools import lru_cache

from rich.color import Color, ColorSystem
from rich.palette import Palette

# Users change the first 16 colors of a terminal. The others are the same everywhere: a cube of colors, then grays.
_FIRST = 16
_LEVELS = (0, 95, 135, 175, 215, 255)
_PALETTE = Palette(
    [
        *((red, green, blue) for red in _LEVELS for green in _LEVELS for blue in _LEVELS),
        *((gray, gray, gray) for gray in range(8, 248, 10)),
    ]
)


@lru_cache(maxsize=1024)
def downgraded(color: Color, system: ColorSystem) -> Color:
    """Return the most similar color of a color system.

    For 256 colors, Rich rounds red, green and blue alone. Dark grays of a theme then become black or dark blue.

    Args:
        color: Any color.
        system: Color system of the terminal.
    """
    if system != ColorSystem.EIGHT_BIT or color.triplet is None:
        return color.downgrade(system)
    return Color.from_ansi(_FIRST + _PALETTE.match(color.triplet))

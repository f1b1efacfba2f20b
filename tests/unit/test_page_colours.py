"""What the page writes can be read: light and dark, by whoever sees little contrast."""

import re
from importlib import resources

import pytest

STYLE = (resources.files("liveness.page") / "static" / "page.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
)
# As WCAG 2 asks for text (AA).
LEAST = 4.5
WRITTEN = [
    *((ink, ground) for ink in ("ink", "soft", "link") for ground in ("ground", "plane")),
    ("ill", "plane"),
    *(("soft", f"{kind}-ground") for kind in ("well", "ill")),
    *((kind, f"{kind}-ground") for kind in ("well", "ill", "doubt")),
    ("ink", "plain-ground"),
]


def brightness(colour: str) -> float:
    """Return how bright it is, from 0 to 1."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), WRITTEN)
def test_contrast(colours: dict[str, str], ink: str, ground: str) -> None:
    """Enough, of all that is written on anything."""
    darker, brighter = sorted(brightness(colours[name]) for name in (ink, ground))

    assert (brighter + 0.05) / (darker + 0.05) >= LEAST


def test_what_is_not_live_has_no_colour() -> None:
    """A green `ready` would say what nobody knows. That it is not live stands outside of it, in red."""
    (stale,) = re.findall(r"^\.stale #part > \* \{(.*)\}", STYLE, re.MULTILINE)

    assert "filter: grayscale(1)" in stale


def test_both_have_all_colours() -> None:
    """And no colour stands elsewhere."""
    assert LIGHT.keys() == DARK.keys()
    assert len(re.findall(r"#[0-9a-f]{3,8}\b", STYLE)) == len(LIGHT) + len(DARK)

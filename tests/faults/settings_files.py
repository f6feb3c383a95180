"""Wrong contents of a tokbench.toml, each to be refused in one line by the commands that read it."""

from __future__ import annotations

import random
from collections.abc import Iterator

Case = tuple[str, bytes]

MINE = '[suites.mine]\nmodels = ["digits_deit"]\nmethods = ["tome"]\n'

# Wrong values of settings, in TOML; each of them is tried in [defaults], a suite of one's own and a packaged one.
SETTINGS = {
    "models": ('"x"', "3", "[]", "[3]", "{}"),
    "methods": ("3", "[]", '["tome("]', '["tome)"]', '["' + "(" * 4000 + '"]', '["a b"]', "[[]]"),
    "keep": ('"x"', "0.5", "[]", "[0]", "[1.5]", "[nan]", "[inf]", "[-1]", '["much"]', "[[0.5]]", "[1979-05-27]"),
    "schedule": ("3", '"stage"', '"stages(at=9-3)"', '"stages("', '"' + "a+" * 4000 + 'a"', '"budget(2)"', "[]"),
    "site": ('"inside"', "3", "[]"),
    "data": ("3", '"~nobody-has-this-name/x"', '"a\\u0000b"', "[]", "true"),
    "weights": ("3", '"~nobody-has-this-name/x"', '"a\\u0000b"', "[]"),
    "cache": ("3", '"~nobody-has-this-name/x"', '"a\\u0000b"', "[]"),
    "limit": ("0", "-1", '"x"', "1.5", "nan", "[]"),
    "device": ("3", "[]"),
    "dtype": ('"fp8"', "32", "[]"),
    "batch_size": ("32", "[]", "[0]", "[-1]", "[1.5]", "[99999999999999999999]", '["x"]'),
    "accuracy_batch": ("0", "-1", "1.5", "99999999999999999999", "[1]"),
    "workers": ("-1", "1.5", "99999999999999999999", '"many"'),
    "memory": ("0", "-1", "99999999999999999999999"),
    "seeds": ("0", "[]", "[1.5]", '["x"]', "[99999999999999999999]"),
    "only": ('"macs"', "[]", '["time"]', "[3]"),
    "mode": ('"eager"', "[]", '["fast"]'),
    "seconds": ("0", "-1", "nan", "inf", '"long"', "[1]"),
    "precision": ("-1", "nan", "inf", '"high"'),
    "threads": ("0", "-1", "1.5", "99999999999999999999"),
    "analyse": ('"perhaps"', "3", "[]"),
    "keeep": ("[0.5]",),
    '"\\u001b[31m"': ("1",),
    "x" * 5000: ("1",),
}
TABLES = ("defaults", "suites.mine", "suites.embedded")

TEXTS = (
    "x",
    "= 3",
    "[suites",
    "[suites]\n[suites]",
    "suits = 3",
    "suites = 3",
    "suites = []",
    "[suites]\nmine = 3",
    "defaults = 3",
    "defaults = []",
    "methods = 3",
    "[methods]\ntome = 3",
    "plugins = 3",
    "[plugins]\npaths = 3",
    '[plugins]\npaths = "a"',
    "[plugins]\npaths = [3]",
    '[plugins]\npath = ["a"]',
    '[plugins]\npaths = ["~nobody-has-this-name/x"]',
    '[plugins]\npaths = ["a\\u0000b"]',
    "check = 3",
    "[check]\ngmacs = -1",
    "[check]\ntop1 = nan",
    "[check]\nseconds = 0",
    "[check]\nseconds = inf",
    '[check]\nspeedup = "x"',
    "[check]\nspedup = 1",
    "default_suite = 3",
    'default_suite = "nowhere"',
    "x = " + "[" * 3000 + "]" * 3000,
    "x = " + "{a=" * 3000 + "1" + "}" * 3000,
    "[" + "a." * 3000 + "a]",
    "a." * 3000 + "a = 1",
    "[defaults]\nkeep = " + "[" * 300 + "]" * 300,
    "[defaults]\nlimit = " + "9" * 5000,
    "[defaults]\nkeep = [0.5]\nkeep = [0.7]",
    "[defaults]\nkeep = [0.5]]",
    '[defaults]\nschedule = "unfinished',
    "[defaults]\nlimit = 0x" + "f" * 5000,
    '[defaults]\nschedule = "\x00"',
)


def settings_files(seed: int = 0, random_bytes: int = 40) -> Iterator[Case]:
    """All fixed cases, and some with random bytes that no text in UTF-8 has.

    Args:
        seed: For the random bytes.
        random_bytes: How many cases with them.

    Yields:
        A name and the file's content.
    """
    for key, values in SETTINGS.items():
        for number, value in enumerate(values):
            for table in TABLES:
                own = MINE.replace(f"{key} = ", f"# {key} = ") if table == "suites.mine" else ""
                yield f"{table} {key[:20]} {number}", f"{own or f'[{table}]'}\n{key} = {value}\n".encode()
    for number, text in enumerate(TEXTS):
        yield f"text {number}", text.encode()
    yield "latin-1", "# café\n".encode("latin-1")
    yield "utf-16", MINE.encode("utf-16")
    yield "utf-32", MINE.encode("utf-32")
    yield "utf-8 with a mark", MINE.encode("utf-8-sig")
    chosen = random.Random(seed)
    for number in range(random_bytes):
        position = chosen.randrange(len(MINE))
        wrong = bytes(chosen.choices(range(0xF8, 0x100), k=chosen.randint(1, 8)))
        yield f"bytes {number}", MINE.encode()[:position] + wrong + MINE.encode()[position:]

"""Wrong command lines, each to be refused in one line before anything is measured or written."""

from __future__ import annotations

import random
from collections.abc import Iterator

Case = tuple[str, tuple[str, ...]]

CHEAP = ("compare", "--only", "macs", "--methods", "grid_pooling", "--keep", "0.5")
LONG = "x" * 300
DEEP = "/".join(["y" * 200] * 30)
DIGITS = "9" * 5000
WORDS = (
    "",
    " ",
    ",",
    "much",
    "-1",
    "0",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e999",
    DIGITS,
    "0x10",
    "é",
    "\x1b[31m",
    LONG,
    "a\nb",
)

# What no value of an option may be; the options of whole numbers take "1_0" and " 3 " as Python does.
WRONG: dict[str, tuple[str, ...]] = {
    "--keep": WORDS,
    "--batch-size": (*WORDS, "0.5", "99999999999999999999", "1,0", "1 2"),
    "--seeds": ("", ",", "much", "0.5", "nan", DIGITS, "1e3", "99999999999999999999", "-99999999999999999999", "1 2"),
    "--accuracy-batch": (*WORDS, "99999999999999999999"),
    "--workers": ("", "many", "-1", "0.5", "nan", DIGITS, "99999999999999999999", "1025"),
    "--threads": (*WORDS, "99999999999999999999", "1025"),
    "--memory": (*WORDS, "99999999999999999999"),
    "--limit": WORDS,
    "--seconds": ("", "long", "-1", "0", "nan", "inf", "-inf", "1e999", "1 2"),
    "--precision": ("", "high", "-1", "nan", "inf", "1e999", "0.1.2"),
    "--dtype": (*WORDS, "fp8", "FP32", "float32", "fp32,bf16"),
    "--device": ("", "toaster", "cuda:", "cuda:99", "cuda:-1", "cpu:x", LONG, "cuda:" + DIGITS),
    "--mode": (*WORDS, "fast", "eager compile"),
    "--only": (*WORDS, "time", "macs latency", "macs,x"),
    "--site": (*WORDS, "inside_block", "before_block,after_block"),
    "--models": ("", ",", "resnet18", "digits_deti", "digits_deit deit_tiny_patch16_224", LONG, "a\nb", "../x", "é"),
    "--methods": (
        *(
            "",
            ",",
            "tone",
            "tome evit",
            "tome(",
            "tome)",
            "tome(r=",
            "tome(r=[1,2)",
            "tome()()",
            "tome.x",
            "3",
            "tome;x",
        ),
        *(
            "tome(3)",
            "tome(x=1)",
            "tome(**x)",
            "tome('",
            "token_pooling(iterations=x)",
            "token_pooling(iterations=1,2)",
        ),
        *("token_pooling(iterations=(1,2))", "token_pooling(algorithm=)", "token_pooling(algorithm='a b')", LONG, "é"),
        *("(" * 5000, "tome(" * 5000, "[" * 5000 + "]" * 5000, "tome+" * 5000 + "tome", "-" * 5000 + "tome"),
        *(
            "tome(x=" + "(" * 5000 + ")" * 5000 + ")",
            f"token_pooling(iterations={DIGITS})",
            "tome(\x1b)",
            "tome if x else y",
        ),
    ),
    "--schedule": (
        *(
            "",
            " ",
            "stage",
            "stages(",
            "stages(at=",
            "stages(at=)",
            "stages(at=())",
            "stages(at=x)",
            "stages(at=3 6 9)",
        ),
        *("stages(at=9-3)", "stages(at=-1)", "stages(at=3,99)", "stages(at=[3,6)", "stages(at=3.5)", "stages(3,6)"),
        *(
            "explicit",
            "explicit(counts=)",
            "explicit(counts=1,2,at=3)",
            "every_block(r=x)",
            "every_block(13)",
            "budget",
        ),
        *("budget(x)", "budget(2)", "budget(nan)", "budget(inf)", "budget(0.5,2)", f"stages(at={DIGITS})", LONG),
        *("stages(" * 5000, "(" * 5000, "a+" * 5000 + "a", "not " * 5000 + "a", f"stages(at={'9' * 4000})"),
    ),
    "--at": ("", " ", "x", "9,3", "3,,6", "-1", "3.5", "3,99", "(3,6)", DIGITS, "3;6"),
    "--data": ("~nobody-has-this-name/x", "nowhere", "", LONG, DEEP),
    "--weights": ("~nobody-has-this-name/x.pth", "nowhere.pth", LONG, DEEP, "."),
    "--cache": ("~nobody-has-this-name/x",),
    "--config": ("nowhere.toml", ".", "/dev/zero", "/dev/null", LONG, DEEP, "nowhere/x", "~nobody-has-this-name/x"),
    "--plugins": ("nowhere.py", LONG, DEEP, "nowhere,also-nowhere", "/dev/null/x"),
    "--out": (LONG, "/dev/null", "/dev/null/x", "/proc/x", DEEP),
    "--part": ("", "x", "1", "0/2", "3/2", "-1/2", "1/0", "1/2/3", "1/x", "0.5/2"),
}

# Suites and results directories that are none, options that are none, and options that do not go together.
OTHERS: tuple[tuple[str, ...], ...] = (
    ("compair",),
    ("compare", "embeded"),
    ("compare", LONG),
    ("compare", "embedded", "latency"),
    ("compare", "--bogus"),
    ("compare", "--keep"),
    ("compare", "--keep", "0.7", "0.5"),
    ("compare", "--methods", "tome", "evit"),
    ("compare", "--models", "digits_deit", "deit_tiny_patch16_224", "x"),
    ("compare", "--keep=0.7", "0.5"),
    ("compare", "--at", "3", "--schedule", "every_block"),
    ("compare", "--keep", "0.5", "--schedule", "every_block(r=3)"),
    ("compare", "--ray", "local", "--part", "1/2"),
    ("list",),
    ("list", "everything"),
    ("list", LONG),
    ("list", "methods", "--methods", "tome"),
    ("list", "claims", "--methods", "tone"),
    ("list", "claims", "--methods", "tome", "evit"),
    ("list", "suites", "--config", LONG),
    ("list", "methods", "--plugins", LONG),
    ("new",),
    ("new", LONG),
    ("new", "a-b"),
    ("new", "tome"),
    ("new", "../x"),
    ("new", "mine", "--family", "x"),
    ("new", "mine", "--site", "x"),
    ("new", "mine", "--out", LONG),
    ("new", "mine", "--out", "/dev/null"),
    ("new", "mine", "--out", DEEP),
    ("merge", "nowhere", "--out", "x"),
    ("merge", "--out", "x"),
    ("merge", LONG, "--out", "x"),
    ("merge", DEEP, "--out", "x"),
    ("plot", "nowhere"),
    ("plot", ".", "--out", "x.doc"),
    ("plot", ".", "--width", "nan"),
    ("plot", ".", "--width", "inf"),
    ("plot", ".", "--width", "1"),
    ("plot", ".", "--x", "time"),
    ("plot", ".", "--latex", "--markdown"),
    ("plot", ".", "--methods", "tome", "evit"),
    ("plot", ".", "--batch-size", "x"),
    ("export", "nowhere"),
    ("export", ".", "--format", "x"),
    ("report",),
    ("report", "."),
    ("report", LONG),
    ("report", DEEP),
    ("report", "/dev/null"),
    ("show",),
    ("show", "nowhere.jpg"),
    ("show", LONG),
    ("show", "/dev/null"),
    ("show", "nowhere.jpg", "--out", "x.gif"),
    ("show", "nowhere.jpg", "--out", f"{LONG}/x.png"),
    ("show", "nowhere.jpg", "--seed", "x"),
    ("check",),
    ("check", "nowhere"),
    ("check", LONG, "--baseline", LONG),
    ("check", ".", "--baseline", ".", "--seconds", "3"),
    ("check", "--against", "HEAD", "--seconds", "nan"),
    ("check", "--against", "HEAD", "--seconds", "inf"),
    ("check", "--against", "HEAD", "--seconds", "-1"),
    ("check", "--against", "HEAD", "--keep", "much"),
    ("check", "--against", "HEAD", "--methods", "tome", "evit"),
    ("check", ".", "--against", "HEAD"),
    ("verify",),
    ("verify", "tone"),
    ("verify", "nowhere.py"),
    ("verify", f"{LONG}.py"),
    ("verify", "tome(" * 3000),
    ("verify", "tome", "--all"),
    ("doctor", "--bogus"),
    ("doctor", "--data", "~nobody-has-this-name/x"),
    ("compare", "--methods", "tome\0"),
    ("report", "x\0y"),
    ("new", "\0"),
    ("compare", "--out", "\ud800"),
    ("show", "\udfff.jpg"),
)

NOISE = ("(", ")", "[", "]", "'", '"', ",", "=", "-", " ", "+", "\\", "{", "é", "💥", "\x07", "\u202e", "3", "tome")


def command_lines(seed: int = 0, random_texts: int = 250) -> Iterator[Case]:
    """All fixed cases, and random texts for methods and schedules.

    Args:
        seed: For the random texts.
        random_texts: How many of them.

    Yields:
        A name and the arguments after `tokbench`.
    """
    for option, values in WRONG.items():
        for number, value in enumerate(values):
            yield f"{option} {number}", (*without(option), f"{option}={value}")
    for number, arguments in enumerate(OTHERS):
        yield f"other {number}", arguments
    chosen = random.Random(seed)
    for number in range(random_texts):
        option = chosen.choice(("--methods", "--schedule"))
        # No name begins with a bracket: what follows is wrong, whatever it is.
        text = "(" + "".join(chosen.choices(NOISE, k=chosen.randint(1, 40)))
        yield f"random {number}", (*without(option), f"{option}={text}")


def without(option: str) -> tuple[str, ...]:
    """A command that would only count operations, without one of its options; images are not read for that."""
    if option == "--data":
        return ("compare", "imagenet", "--methods", "grid_pooling")
    pairs = zip(CHEAP[1::2], CHEAP[2::2], strict=True)
    return ("compare", *(part for pair in pairs if pair[0] != option for part in pair))

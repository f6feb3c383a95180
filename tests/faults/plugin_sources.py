"""What hostile plugins do, as source code: statements for `act`, and whole files that cannot be registered."""

from __future__ import annotations

from collections.abc import Mapping

PLUGIN = '''
import atexit, builtins, ctypes, faulthandler, gc, json, locale, os, random, signal, subprocess, sys, threading, time
import warnings

import numpy
import timm.layers.mlp
import torch
from timm.models.vision_transformer import Attention, VisionTransformer
from tokbench import Context, Downsampler, Tokens, register
from tokbench.errors import UserError
from tokbench.registry import method_class

PHASE = "{phase}"
calls = 0


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")


class Unreadable(Exception):
    def __init__(self):
        self.args = (self,)

    def __repr__(self):
        os._exit


class Own(BaseException):
    pass


def models():
    return [one for one in gc.get_objects() if type(one) is VisionTransformer]


def act(*given):
{act}


def at(phase, *given):
    if phase == PHASE:
        act(*given)


at("import")


@register("hostile")
class Hostile(Downsampler):
    """Keep the first."""

    def __init__(self) -> None:
        super().__init__()
        at("init")

    def setup(self, geometry):
        at("setup")

    def count(self, keep, n_patches, depth, layout):
        at("count")
        return keep

    def layout_after(self, keep, layout):
        at("layout_after")
        return None

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        global calls
        calls += 1
        at("forward", tokens)
        if calls > 5:
            at("late", tokens)
        return tokens.select(torch.arange(keep).expand(len(tokens.x), keep))


if PHASE == "property":
    Hostile.needs = property(lambda self: (act(), frozenset())[1])
'''

RAISES: Mapping[str, str] = {
    "ValueError": "raise ValueError('mine')",
    "KeyError": "raise KeyError('layer 7')",
    "AssertionError": "assert False",
    "RuntimeError over lines": "raise RuntimeError('one\\ntwo\\x1b[31m [/bold] \\u2028 three')",
    "a long message": "raise RuntimeError('x' * 1_000_000)",
    "SystemExit(0)": "sys.exit(0)",
    "SystemExit of a text": "sys.exit('mine')",
    "GeneratorExit": "raise GeneratorExit",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "StopIteration": "raise StopIteration",
    "UserError": "raise UserError('mine')",
    "MemoryError": "raise MemoryError",
    "RecursionError": "act()",
    "OSError": "open('/absent')",
    "BrokenPipeError": "raise BrokenPipeError",
    "a BaseException": "raise Own",
    "a group": "raise ExceptionGroup('two', [ValueError(1), KeyError(2)])",
    "__str__ raises": "raise Unspeakable",
    "refers to itself": "raise Unreadable",
    "a surrogate": "raise ValueError('\\udce9')",
    "a warning": "raise UserWarning('mine')",
}
ENDS: Mapping[str, str] = {
    "os._exit(0)": "os._exit(0)",
    "os._exit(3)": "os._exit(3)",
    "abort": "os.abort()",
    "segfault": "ctypes.string_at(0)",
    "SIGALRM": "signal.setitimer(signal.ITIMER_REAL, 0.001); time.sleep(9)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "stack overflow": "sys.setrecursionlimit(10**9); act.__globals__['act']()",
}
HANGS: Mapping[str, str] = {
    "sleeps": "time.sleep(10**6)",
    "loops": "while True: pass",
    "deadlock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "waits for a process": "subprocess.run(['sleep', '1000'])",
    "stops itself": "os.kill(os.getpid(), signal.SIGSTOP)",
    "ignores all and loops": (
        "for number in (1, 2, 3, 13, 14, 15): signal.signal(number, signal.SIG_IGN)\n    while True: pass"
    ),
}
MEMORY: Mapping[str, str] = {
    "takes all memory": "kept = [bytearray(b'x') * (256 << 20) for _ in range(10**6)]",
    "asks for too much": "torch.empty(1 << 50)",
}
CHANGES: Mapping[str, str] = {
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "default device": "torch.set_default_device('meta')",
    "threads": "torch.set_num_threads(2)",
    "seeds": "torch.manual_seed(7); random.seed(7); numpy.random.seed(7)",
    "gradient mode": "torch.set_grad_enabled(True)",
    "precision of products": "torch.set_float32_matmul_precision('medium')",
    "deterministic algorithms": "torch.use_deterministic_algorithms(True)",
    "working directory": "os.chdir('/')",
    "closes stdout": "sys.stdout.close()",
    "closes stderr": "sys.stderr.close()",
    "stdout is None": "sys.stdout = None",
    "closes descriptor 1": "os.close(1)",
    "closes descriptor 2": "os.close(2)",
    "closes all descriptors": "os.closerange(3, 200)",
    "prints": "print('x' * 10_000); os.write(1, b'y' * 10_000)",
    "signal handlers": "for one in (2, 14, 15): signal.signal(one, lambda *_: None)",
    "Mlp.forward": "timm.layers.mlp.Mlp.forward = lambda self, x: x",
    "Attention.forward": "Attention.forward = lambda self, x, **more: x",
    "VisionTransformer.forward_head": "VisionTransformer.forward_head = lambda self, x, **more: x[:, 0, :10]",
    "Tensor.topk": "old = torch.Tensor.topk; torch.Tensor.topk = lambda self, *a, **k: old(-self, *a, **k)",
    "Tensor.mean": "torch.Tensor.mean = torch.Tensor.sum",
    "softmax": "torch.nn.functional.softmax = lambda x, *a, **k: x * 0",
    "attention": "torch.nn.functional.scaled_dot_product_attention = lambda q, k, v, **more: v",
    "Linear.forward": "torch.nn.Linear.forward = lambda self, x: x.new_zeros(*x.shape[:-1], self.out_features)",
    "a global hook": "torch.nn.modules.module.register_module_forward_hook(lambda m, i, o: o * 2)",
    "a hook on models": "[one.head.register_forward_hook(lambda m, i, o: o * 0) for one in models()]",
    "perf_counter": "time.perf_counter = lambda: 0.0",
    "zeroes weights": "[one.head.weight.data.zero_() for one in models()]",
    "fuses weights": "[one.blocks[3].mlp.fc1.weight.data.mul_(1.01) for one in models()]",
    "swaps the head": "for one in models(): one.head = torch.nn.Identity()",
    "swaps blocks": "for one in models(): one.blocks = one.blocks[:6]",
    "half precision": "[one.half() for one in models()]",
    "training mode": "[one.train() for one in models()]",
    "another method": "method_class('grid_pooling').forward = lambda self, tokens, keep, context: tokens",
    "warnings are errors": "warnings.simplefilter('error')",
    "environment variables": "os.environ.clear()",
    "umask": "os.umask(0o777)",
    "sys.path": "sys.path.clear()",
    "sys.modules": "sys.modules.pop('json')",
    "json.dumps": "json.dumps = lambda *a, **k: '{}'",
    "open": "builtins.open = None",
    "recursion limit": "sys.setrecursionlimit(120)",
    "no collection": "gc.disable()",
    "trace function": "sys.settrace(lambda *given: None)",
    "numpy's errors": "numpy.seterr(all='raise')",
    "tokens": "[one.x.zero_() for one in given]",
    "forks and goes on": "os.fork()",
    "forks a sleeper": "os.fork() or time.sleep(1000)",
    "a thread without end": "threading.Thread(target=time.sleep, args=(1000,)).start()",
    "a daemon thread that loops": "threading.Thread(target=lambda: [0 for _ in iter(int, 1)], daemon=True).start()",
    "atexit raises": "atexit.register(lambda: 1 / 0)",
    "atexit ends": "atexit.register(os._exit, 0)",
    "fault handler": "faulthandler.dump_traceback_later(0.2)",
    "descriptor limit": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))",
    "opens all descriptors": "act.kept = [open('/dev/null') for _ in range(900)]",
    "removes the temporary folder": "os.environ['TMPDIR'] = '/absent'; import tempfile; tempfile.tempdir = '/absent'",
}
NOISY = ("atexit raises", "fault handler", "forks and goes on", "forks a sleeper")  # print tracebacks themselves

METHOD = PLUGIN.format(phase="never", act="    pass")


def _with(attribute: str) -> str:
    """The method with an attribute more."""
    head = "class Hostile(Downsampler):"
    return METHOD.replace(head, f"{head}\n    {attribute}")


FILES: Mapping[str, str | bytes] = {
    "a syntax error": "def (:\n",
    "a NUL": "x = 1\0\n",
    "Latin-1": b"# caf\xe9\n",
    "UTF-16": METHOD.encode("utf-16"),
    "a missing import": "import nothing_of_this_name\n",
    "deep nesting": f"x = {'(' * 3000}1{')' * 3000}\n",
    "nothing": "",
    "registers none": METHOD.replace('"hostile"', '"none"'),
    "registers all": METHOD.replace('"hostile"', '"all"'),
    "registers grid_pooling": METHOD.replace('"hostile"', '"grid_pooling"'),
    "registers no name": METHOD.replace('"hostile"', '""'),
    "registers a sentence": METHOD.replace('"hostile"', '"two words, (and) a=b"'),
    "registers a number": METHOD.replace('"hostile"', "3"),
    "registers twice": METHOD + METHOD.replace("class Hostile", "class Again"),
    "registers a function": METHOD + "\nregister('other')(lambda: None)\n",
    "registers a class of another kind": METHOD + "\nregister('other')(dict)\n",
    "abstract": METHOD.replace("def forward", "def backward"),
    "required parameter": METHOD.replace("def __init__(self)", "def __init__(self, size: int)"),
    "parameter without a type": METHOD.replace("def __init__(self)", "def __init__(self, size=object())"),
    "parameter of a wrong type": METHOD.replace("def __init__(self)", "def __init__(self, size: 'Absent' = 3)"),
    "any parameters": METHOD.replace("def __init__(self)", "def __init__(self, *sizes, **more)"),
    "no super().__init__": METHOD.replace("super().__init__()", "pass"),
    "returns None": METHOD.replace("return tokens.select", "tokens.select"),
    "returns a tensor": METHOD.replace("return tokens.select", "return tokens.x; tokens.select"),
    "returns all tokens": METHOD.replace("return tokens.select", "return tokens; tokens.select"),
    "counts a text": METHOD.replace("return keep", "return 'many'"),
    "counts less than nothing": METHOD.replace("return keep", "return -keep"),
    "counts a fraction": METHOD.replace("return keep", "return keep / 3"),
    "counts infinity": METHOD.replace("return keep", "return float('inf')"),
    "lays out a text": METHOD.replace("return None", "return 'grid'"),
    "needs what there is not": _with("needs = {'x'}"),
    "acts nowhere": _with("site = 'roof'"),
    "claims a text": _with("claims = 'best'"),
    "schedule of nothing": _with("schedule = '(('"),
}

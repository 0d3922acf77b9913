"""A pretend accelerator shows without a GPU what would break, wait or launch too many kernels on one.

The backend of torch for custom devices (PrivateUse1) is implemented in Python. A tensor reports the device
``pretend:0`` and holds real values, and each operation is computed on the CPU. As on a GPU, an operation on tensors of
both devices raises, and so does a generator of the wrong device, or a CPU tensor in a collective (NCCL's rule). Each
host wait (a value read, a blocking copy, a size that depends on values) is recorded with the line of the package that
caused it, and every operation that runs at least one kernel is counted. Use a `Machine` without float64 for Apple's
devices, and one without values to count the kernels of sizes too large to compute here.

Not covered: speed and memory of real kernels, CUDA's own random streams, its autocast lists and its nondeterminism,
torch.compile for a GPU, streams, and NCCL itself. Random numbers drawn on the device are those of the CPU.
"""

import collections
import functools
import os
import sys
import time
import types
import weakref

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

import nc_lightning
from benchmarks.work import is_kernel

NAME = "pretend"
HOOK = "_setup_privateuseone_for_python_backend"
"""Private function of torch that makes a device in Python; `test_torch_has_the_hook` checks that it exists."""
PACKAGE = os.path.dirname(nc_lightning.__file__) + os.sep

# CUDA reads the size of their result, or an error, back from the device.
READ_BACK = {
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "repeat_interleave",
    "bincount",
}
READ_BACK |= {"equal", "histc", "_linalg_check_errors"}
STAGED = 2**16
"""Bytes of the CPU's usual memory that CUDA copies without making the host wait; more has to be pinned."""
# Operations that raise on CUDA under torch.use_deterministic_algorithms and that a network or loss may use.
NOT_DETERMINISTIC = {"histc", "put_", "median.dim", "kthvalue", "_adaptive_avg_pool2d_backward", "nll_loss2d_forward"}
NOT_DETERMINISTIC |= {"adaptive_max_pool2d_backward", "upsample_bilinear2d_backward", "reflection_pad2d_backward"}


class Backend:
    """The interface that torch requires of a device module such as `torch.cuda`."""

    is_initialized = staticmethod(lambda: True)
    # Available only inside a `Machine`: other tests of the same process have no accelerator.
    is_available = staticmethod(lambda: Machine.now is not None)
    current_device = staticmethod(lambda: 0)
    set_device = staticmethod(lambda device: None)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda seed: None)
    _is_in_bad_fork = staticmethod(lambda: False)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])
    get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, device=None: torch.set_rng_state(state))
    memory = 2**36

    @classmethod
    def mem_get_info(cls, device=None):
        return cls.memory, cls.memory

    @classmethod
    def get_device_properties(cls, device=None):
        return types.SimpleNamespace(total_memory=cls.memory)

    synchronize = staticmethod(lambda device=None: None)
    get_device_name = staticmethod(lambda device=None: "a pretend device")
    memory_allocated = staticmethod(lambda device=None: Machine.now.memory)
    max_memory_allocated = staticmethod(lambda device=None: Machine.now.peak)

    @staticmethod
    def reset_peak_memory_stats(device=None):
        Machine.now.peak = Machine.now.memory

    class Event:
        """An event on a device that has already finished all its work."""

        def __init__(self, enable_timing=False): ...
        def record(self):
            self.time = time.perf_counter()

        def synchronize(self): ...
        def elapsed_time(self, other):
            return 1e3 * (other.time - self.time)


DEVICE = None
if hasattr(backend_registration, HOOK):
    getattr(backend_registration, HOOK)(NAME, backend_module=Backend())
    DEVICE = torch.device(NAME, 0)


class OnDevice(torch.Tensor):
    """A tensor of the device: ``held`` has its values."""

    @staticmethod
    def __new__(cls, held):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, device=DEVICE, **layout)

    def __init__(self, held):
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})

    def __repr__(self, **_):
        return f"{NAME}({self.held})"

    def tolist(self):
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol):
        return self.detach().cpu().__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        return memo.setdefault(id(self), OnDevice(self.held.clone()).requires_grad_(self.requires_grad))


class Generator(torch.Generator):
    """A generator of either device; it stands in for `torch.Generator`."""

    of_device = set()

    def __new__(cls, device="cpu"):
        generator = super().__new__(cls, "cpu")
        generator.place = torch.device(device)
        (cls.of_device.add if generator.place.type == NAME else cls.of_device.discard)(generator._cdata)
        return generator

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self):
        return self.place


class Machine(TorchDispatchMode):
    """The device, while this context is entered, and its records.

    Args:
        float64: Whether the device has float64; Apple's devices do not.
        values: Whether floating-point tensors have values; without, they and bool matrices have only shapes.

    Attributes:
        phase: Set by tests; everything is counted under the phase it happens in.
        waits: Number of host waits by (phase, what, "file function") of the package.
        launches: Number of operations that run at least one kernel, by (phase, "file function").
        memory: Without values, bytes of all tensors on the device that were made while this was entered.
        peak: Maximum of `memory`; tests may reset it.
    """

    now = None

    def __init__(self, float64=True, values=True):
        super().__init__()
        self.float64, self.values = float64, values
        self.phase, self.waits, self.launches = "", collections.Counter(), collections.Counter()
        self.memory, self.peak, self._users = 0, 0, collections.Counter()

    def __enter__(self):
        self.before = torch._C._only_lift_cpu_tensors(), Machine.now
        torch._C._set_only_lift_cpu_tensors(True)  # otherwise torch.tensor(..., device=) would bypass this device
        Machine.now = self
        return super().__enter__()

    def __exit__(self, *exception):
        torch._C._set_only_lift_cpu_tensors(self.before[0])
        Machine.now = self.before[1]
        return super().__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.is_inference_mode_enabled() and func._can_decompose():
            super().__enter__()  # inference mode skips autograd, which decomposes operations
            try:
                return func.decompose(*args, **(kwargs or {}))
            finally:
                super().__exit__(None, None, None)
        return _compute(func, args, kwargs or {})

    def waits_in(self, phase):
        """Waits of a phase by (what, place)."""
        return {(what, place): n for (p, what, place), n in self.waits.items() if p == phase}

    def launches_in(self, phase, *files):
        """Number of launches in a phase, in total or from some files of the package."""
        chosen = (n for (p, place), n in self.launches.items() if p == phase and place.startswith(files or ""))
        return sum(chosen)

    def hold(self, held):
        """Count the memory of a tensor during its lifetime; views share it."""
        storage = held.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if self._users[key] == 0:
            self.memory += size
            self.peak = max(self.peak, self.memory)
        self._users[key] += 1
        weakref.finalize(held, self._release, key, size)

    def _release(self, key, size):
        self._users[key] -= 1
        if self._users[key] == 0:
            self.memory -= size

    def note(self, name, runs, args, kwargs, ours, theirs, asked):
        waits = _what_waits(name, args, kwargs, ours, theirs, asked)
        if waits is None and not runs:
            return
        place = _place()
        if waits is not None:
            self.waits[self.phase, waits, place] += 1
        if runs:
            self.launches[self.phase, place] += 1


@functools.cache
def _what_is(func):
    """Namespace and name of an operation, and whether it runs a kernel."""
    space, _, name = func._schema.name.partition("::")
    return space, name, is_kernel(func)


def _compute(func, args, kwargs):
    space, name, runs = _what_is(func)
    tensors = []
    _map((args, kwargs), torch.Tensor, tensors.append)
    ours = [t for t in tensors if isinstance(t, OnDevice)]
    theirs = [t for t in tensors if not isinstance(t, OnDevice)]
    asked = kwargs.get("device")
    place = asked if asked is not None else DEVICE if ours else torch.device("cpu")
    _refuse(func, space, name, args, kwargs, ours, theirs, place)
    machine = Machine.now
    if machine is not None and (ours or place.type == NAME):
        machine.note(name, runs, args, kwargs, ours, theirs, asked)
    if place.type == NAME and "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    if name == "is_pinned":
        return getattr(args[0], "pinned", False)
    if name == "_pin_memory":
        pinned = args[0].clone()
        pinned.pinned = True
        return pinned
    given = {id(t.held): t for t in ours}  # found again in the results of in-place operations and out=
    args, kwargs = _map((args, kwargs), OnDevice, lambda t: t.held)
    if machine is not None and not machine.values and place.type == NAME:
        args, kwargs, given = _without_values(args, kwargs, given)
    result = func(*args, **kwargs)
    if name == "copy_" and not given:
        return args[0]

    def on_device(t):
        if id(t) in given:
            return given[id(t)]
        if machine is not None and not machine.float64 and t.dtype == torch.float64:
            raise TypeError(f"{func}: this device does not support float64")
        if machine is not None and not machine.values and (t.dtype.is_floating_point or _is_mask(t)):
            t = t.to("meta")
        if machine is not None and not machine.values:
            machine.hold(t)
        return OnDevice(t)

    return _map(result, torch.Tensor, on_device) if place.type == NAME else result


def _map(values, kind, function):
    """Apply a function to all objects of a type in nested lists, tuples and dictionaries."""
    if isinstance(values, kind):
        return function(values)
    if isinstance(values, (list, tuple)):
        return type(values)([_map(value, kind, function) for value in values])
    return {key: _map(v, kind, function) for key, v in values.items()} if isinstance(values, dict) else values


def _is_mask(t):
    return t.dtype == torch.bool and t.ndim > 1


def _without_values(args, kwargs, given):
    """Move all operands to meta if one of them has only a shape."""
    tensors = []
    _map((args, kwargs), torch.Tensor, tensors.append)
    if not any(t.is_meta for t in tensors):
        return args, kwargs, given
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("meta")}
    moved = {id(t): t if t.is_meta else t.to("meta") for t in tensors}
    args, kwargs = _map((args, kwargs), torch.Tensor, lambda t: moved[id(t)])
    return args, kwargs, {id(moved[key]): t for key, t in given.items() if key in moved}


def _refuse(func, space, name, args, kwargs, ours, theirs, place):
    """Raise the errors that a GPU raises."""
    if space == "c10d" and theirs:
        raise RuntimeError("No backend type associated with device type cpu")
    if ours and theirs and name not in ("_to_copy", "copy_"):
        indexing = name in ("index", "index_put_") and isinstance(args[0], OnDevice)
        if not indexing and any(t.ndim > 0 for t in theirs):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {NAME}:0 and cpu")
    generator = kwargs.get("generator")
    if generator is not None and (generator._cdata in Generator.of_device) != (place.type == NAME):
        raise RuntimeError(f"{func}: expected a generator of {place}")
    if ours and torch.are_deterministic_algorithms_enabled():
        weighted = name == "bincount" and len(args) > 1 and args[1] is not None
        if weighted or name in NOT_DETERMINISTIC or str(func).removeprefix("aten.") in NOT_DETERMINISTIC:
            raise RuntimeError(f"{func} does not have a deterministic implementation")


def _what_waits(name, args, kwargs, ours, theirs, asked):
    if name == "_local_scalar_dense" and ours:
        return "item"
    if name == "_to_copy" and not kwargs.get("non_blocking"):
        if ours and asked is not None and asked.type == "cpu":
            return "to the CPU"
        if theirs and asked is not None and asked.type == NAME:
            return "from the CPU"
    if name == "_to_copy" and theirs and asked is not None and asked.type == NAME and theirs[0].nbytes > STAGED:
        return None if getattr(theirs[0], "pinned", False) else "from memory that is not pinned"
    if name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
        return None if len(args) > 2 and args[2] else "copy"
    if name in READ_BACK and ours and kwargs.get("output_size") is None:
        return name
    if name in ("index", "index_put_") and isinstance(args[0], OnDevice):
        indices = [index for index in args[1] if isinstance(index, torch.Tensor)]
        if any(not isinstance(index, OnDevice) for index in indices):
            return "index from the CPU"
        if any(index.dtype == torch.bool for index in indices) and (name == "index" or args[2].numel() > 1):
            return "index by mask"
    return None


def _place():
    """The innermost running function of the package, as "file function"."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PACKAGE):
            return f"{path[len(PACKAGE) :]} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"

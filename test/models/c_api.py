"""Just enough of runtime/freeport.h in Python to step one sequence inside this process, where starting a program and
mapping a file do not count."""

import ctypes
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "build/lib/libfreeport.so"


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int32), ("message", ctypes.c_char * 1020)]


class ModelOptions(ctypes.Structure):
    _fields_ = [("device", ctypes.c_char_p), ("threads", ctypes.c_int32)]


class Row(ctypes.Structure):
    _fields_ = [("token", ctypes.c_int32), ("sequence", ctypes.c_int32), ("logits", ctypes.c_int32)]


class Sequence:
    """One sequence of a session of its own."""

    def __init__(self, package, device="cpu", threads=0):
        self.library, self.error = ctypes.CDLL(str(LIBRARY)), Error()
        self.model, self.session, self.sequence = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int32()
        options = ModelOptions(device.encode(), threads)
        self._call("fp_model_open", str(package).encode(), ctypes.byref(options), ctypes.byref(self.model))
        self._call("fp_session_create", self.model, None, ctypes.byref(self.session))
        self._call("fp_session_add", self.session, ctypes.byref(self.sequence))

    def _call(self, name, *arguments):
        if getattr(self.library, name)(*arguments, ctypes.byref(self.error)):
            raise RuntimeError(f"{name}: {self.error.message.decode()}")

    def step(self, tokens):
        """Appends the tokens; logits are computed behind the last one."""
        rows = (Row * len(tokens))(*(Row(token, self.sequence, i + 1 == len(tokens)) for i, token in enumerate(tokens)))
        self._call("fp_session_step", self.session, rows, ctypes.c_size_t(len(tokens)))

    def close(self):
        self.library.fp_session_destroy(self.session)
        self.library.fp_model_close(self.model)

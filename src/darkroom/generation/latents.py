"""Latents as requests have them: arrays as text, so that a request stays plain data and a picture can be made again."""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FORM = "give an array of (n, channels, height, width), or NumPy's .npy file of one in base64"


def latents_text(name: str, given: object) -> str:
    """Checks latents: torch's or NumPy's, (n, C, h, w) or one of (C, h, w), or text that this gave. Gives the bytes of
    an .npy file in base64."""
    import numpy as np

    if isinstance(given, str):
        array = _read(name, given)
    else:
        if hasattr(given, "detach"):
            given = given.detach().cpu().float().numpy()
        try:
            array = np.asarray(given)
        except (ValueError, TypeError, RuntimeError):
            raise InvalidRequest(f"{name} is no array: {_FORM}") from None
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or not array.size or array.dtype.kind not in "fiu":
        raise InvalidRequest(f"{name} is an array of {array.shape}, {array.dtype}: {_FORM}")
    array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise InvalidRequest(f"{name} holds numbers that are none (NaN or infinite): {_FORM}")
    return _written(array)


def read_latents(path: Path) -> NDArray[Any]:
    """The array in an .npy file, or the only one in a safetensors file. Raises InvalidRequest where there is none."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if path.suffix != ".safetensors":
            with path.open("rb") as file:
                return np.asarray(np.load(file, allow_pickle=False))
        arrays = load_file(path)
    except (OSError, ValueError, EOFError, TypeError, KeyError, SyntaxError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it holds no array"
        raise InvalidRequest(f"cannot read latents from {path}: {reason}") from None
    if len(arrays) != 1:
        raise InvalidRequest(f"{path} holds {len(arrays)} arrays: give a file with one")
    (array,) = arrays.values()
    return np.asarray(array)


def latents_array(text: str) -> NDArray[np.float32]:
    """The array (n, C, h, w) that a checked text holds."""
    return _read("latents", text)


def nth(text: str, index: int) -> str:
    """One of the latents that a text holds, from the first again where they end."""
    array = latents_array(text)
    return text if len(array) == 1 else _written(array[index % len(array)][None])


def _read(name: str, text: str) -> NDArray[Any]:
    import numpy as np

    try:
        found: NDArray[Any] = np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False)
    except (binascii.Error, ValueError, EOFError, OSError, MemoryError, SyntaxError):
        raise InvalidRequest(f"{name} is text that holds no array: {_FORM}") from None
    return found


def _written(array: NDArray[np.float32]) -> str:
    import numpy as np

    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return base64.b64encode(content.getvalue()).decode("ascii")

"""Latents as requests have them: arrays as text, so that a request stays plain data and a picture can be made again."""

from __future__ import annotations

import base64
import binascii
import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.errors import InvalidRequest, ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FORM = "give an array of (n, channels, height, width), or NumPy's .npy file of one in base64"


def latents_text(name: str, given: object) -> str:
    """Checks latents: torch's or NumPy's, (n, C, h, w) or one of (C, h, w), or text that this gave. Gives the bytes of
    an .npy file in base64."""
    import numpy as np

    if isinstance(given, str):
        return _checked_text(name, given)
    try:
        tensor: Any = given
        if hasattr(given, "detach"):
            tensor = tensor.detach().cpu()
            tensor = tensor if tensor.is_complex() else tensor.float()
        array = np.asarray(tensor)
    except (ValueError, TypeError, RuntimeError):
        raise InvalidRequest(f"{name} is no array: {_FORM}") from None
    return _checked_array(name, array)


@lru_cache(maxsize=8)
def _checked_text(name: str, text: str) -> str:
    """Once for a text: a request is made anew from another many times."""
    return _checked_array(name, _read(name, text))


def _checked_array(name: str, array: NDArray[Any]) -> str:
    import numpy as np

    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or not array.size or array.dtype.kind not in "fiu":
        raise InvalidRequest(f"{name} is an array of {array.shape}, {array.dtype}: {_FORM}")
    array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise InvalidRequest(f"{name} holds numbers that are none (NaN or infinite): {_FORM}")
    return _written(array)


def read_latents(path: Path) -> Any:
    """The array in an .npy file, or the only one in a safetensors file. Raises InvalidRequest where there is none."""
    import numpy as np

    from darkroom.weights.opening import open_weights

    if path.suffix not in (".npy", ".safetensors"):
        raise InvalidRequest(f"{path} holds no latents: give an .npy or .safetensors file")
    arrays: list[Any]
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                arrays = [np.lib.format.read_array(file, allow_pickle=False)]
        else:
            with open_weights(path) as weights:
                arrays = [weights.get(name).clone() for name in weights.entries]
    except OSError as error:
        raise InvalidRequest(f"cannot read latents from {path}: {error.strerror}") from error
    except (ModelError, ValueError, EOFError, TypeError, MemoryError, SyntaxError) as error:
        raise InvalidRequest(f"cannot read latents from {path}: it holds no array") from error
    if len(arrays) != 1:
        raise InvalidRequest(f"{path} holds {len(arrays)} arrays: give a file with one")
    return arrays[0]


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
        content = io.BytesIO(base64.b64decode(text, validate=True))
        found: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
    except (binascii.Error, ValueError, EOFError, OSError, MemoryError, SyntaxError):
        raise InvalidRequest(f"{name} is text that holds no array: {_FORM}") from None
    return found


def _written(array: NDArray[np.float32]) -> str:
    import numpy as np

    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return base64.b64encode(content.getvalue()).decode("ascii")

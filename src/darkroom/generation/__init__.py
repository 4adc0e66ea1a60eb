"""What a user asks for, and the one job that makes it."""

from darkroom.generation.picture import Picture, open_picture
from darkroom.generation.request import Request

__all__ = ["Picture", "Request", "open_picture"]

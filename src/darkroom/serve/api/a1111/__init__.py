"""AUTOMATIC1111's interface, /sdapi/v1/*, as its clients speak it."""

"""Which models there are: found by name, looked into, verified, locked; `fetch` brings them."""

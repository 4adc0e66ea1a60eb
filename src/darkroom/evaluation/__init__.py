"""Whether pictures show what was asked for: the oracle, and what is measured with it."""

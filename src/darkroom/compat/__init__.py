"""The programming interfaces of other tools, on Darkroom's engine."""

"""The judge of the drawn world: what a picture shows, and whether that is what was asked for."""

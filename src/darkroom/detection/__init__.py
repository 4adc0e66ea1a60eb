"""Finding things in pictures: by people's detectors from files, and by the oracle of the drawn world."""

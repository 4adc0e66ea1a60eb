"""What is measured of models on the drawn world with the oracle."""

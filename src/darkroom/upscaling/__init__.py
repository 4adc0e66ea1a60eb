"""Making pictures larger, by a filter or by people's networks: ESRGAN and its kin."""

"""Which of several pictures is best: judges, pictures that are given up halfway, rankings, what a picture shows."""

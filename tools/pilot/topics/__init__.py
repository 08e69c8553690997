"""What the model is taught, one file per topic; each has `sample(rng, language) -> Exchange`."""

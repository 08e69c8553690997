"""The home folder, the database, content-addressed blobs and uploads. Knows no models."""

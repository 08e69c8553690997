"""The routes, one file per group; each has a `ROUTES` table."""

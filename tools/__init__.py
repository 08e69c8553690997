"""What maintains the repository: environment, generated pages, checks of what is shipped."""

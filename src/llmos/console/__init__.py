"""The web console: pages over the sdk, served beside the API. Only `front` is loaded at the start."""

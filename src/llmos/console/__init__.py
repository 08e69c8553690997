"""The web console: pages over the sdk, served beside the API. It is loaded when it is used."""

"""What is refused in the same words at the edge and by preparers. Light: no pydantic."""

NOTHING_FETCHED = "The server fetches nothing: send the image itself, as a data: URL."

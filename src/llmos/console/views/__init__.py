"""What pages show, made of what the sdk answers. Pure: no widgets, no clock, no server."""

"""The storm: real servers killed, starved, cut off from power, and a checker of what they said."""

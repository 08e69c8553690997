"""The program `task`: one thing done with every input of a list or a file."""

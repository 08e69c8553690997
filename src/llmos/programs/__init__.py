"""What jobs run inside workers. Named by entry strings, imported only there; knows its Context."""

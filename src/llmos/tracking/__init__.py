"""What runs told, passed on to other trackers, on the server's side: programs know of none."""

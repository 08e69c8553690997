"""Drawing tokens for engines that leave it to us: what a request may ask, and how it is drawn."""

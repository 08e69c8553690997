"""Chats with images for models that read both: from pixels to what a driver is handed."""

"""The native engine through the whole server beside what a user would pick instead."""

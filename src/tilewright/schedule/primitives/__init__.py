"""One file for each primitive. A module here is found by itself: see ``schedule.primitive.discover``."""

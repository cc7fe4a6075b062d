"""Twenty minutes of all that a server meets in a bad week: see ``__main__``."""

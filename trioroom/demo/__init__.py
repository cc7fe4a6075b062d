"""The chat that ``trioroom demo`` serves, with its page."""

"""The hidden tests, one module for each assignment: oracles, and the messages that teach."""

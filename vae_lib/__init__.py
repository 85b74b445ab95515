"""The library of *Not an Arbitrary Loss*, an executable textbook on variational autoencoders.

The folders read like the book's table of contents: densities, divergences and bounds first, models whose
evidence is known exactly beside them. Every model and every approximate posterior meets ``protocols``, so
each bound runs unchanged where the answer is known and is tested there. All log-quantities are in nats.
"""

__version__ = "1.0.0rc1"

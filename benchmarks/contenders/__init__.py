"""The ways of training one VAE that `vae_training.py` times, each in the idiom of its library."""
